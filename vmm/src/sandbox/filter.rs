// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A thread's filters of system calls.

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::ThreadKind;
use super::calls::{self, Allowed, When};

/// Lets calls that name a file fail, for the calling thread and the ones that it will start.
///
/// A thread has two filters, of whose verdicts the kernel takes the stricter: a trap before an error before a pass. This
/// one is the same for all, so it is made once.
pub(super) fn fail_paths() -> Result<(), seccompiler::Error> {
    let failing = calls::FAILING.iter().map(|call| (*call, Vec::new())).collect();
    let errno = SeccompAction::Errno(libc::EACCES.cast_unsigned());
    apply_filter(&compile(failing, SeccompAction::Allow, errno)?)
}

/// Confines the calling thread for good.
pub(super) fn install(kind: ThreadKind) -> Result<(), seccompiler::Error> {
    let mut allowed = calls::allowed(kind);
    allowed.extend(calls::FAILING.iter().map(|call| (*call, When::Always)));
    let allowed = allowed.iter().map(rules).collect::<Result<Vec<_>, BackendError>>()?;
    let allowed = compile(allowed, SeccompAction::Trap, SeccompAction::Allow)?;
    // The last: it takes away the call that installs filters, too.
    apply_filter(&allowed)
}

fn compile(
    rules: Vec<(libc::c_long, Vec<SeccompRule>)>,
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules.into_iter().collect(), otherwise, action, std::env::consts::ARCH.try_into()?)?
        .try_into()
}

/// The rules of one call, of which one must hold; none means that the call is allowed as it is.
fn rules((call, when): &Allowed) -> Result<(libc::c_long, Vec<SeccompRule>), BackendError> {
    use SeccompCmpArgLen::Dword;
    let rule = |argument, operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, Dword, operator, value)?])
    };
    let rules = match when {
        When::Always => Vec::new(),
        When::OneOf { argument, values } => values
            .iter()
            .map(|value| rule(*argument, SeccompCmpOp::Eq, *value))
            .collect::<Result<_, BackendError>>()?,
        When::Without { argument, bits } => vec![rule(*argument, SeccompCmpOp::MaskedEq(*bits), 0)?],
    };
    Ok((*call, rules))
}
