// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a run ended. Each way has an exit code, which the help text and resources/guide/exit-codes.md document.

/// How a run ended, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered itself off.
    PoweredOff(String),
    /// An error of the VMM.
    VmmError(String),
    /// Wrong options, or files that they name.
    BadArguments(String),
    /// No KVM, or one that can't run this guest; too little memory, or too few open files.
    HostCannot(String),
    /// Panic, triple fault, or an error inside KVM.
    GuestCrashed(String),
    /// The guest asked for a reset.
    Reset(String),
    /// A signal that would end a process, or the quit key.
    Stopped(String),
}

impl Outcome {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Outcome::PoweredOff(_) => 0,
            Outcome::VmmError(_) => 1,
            Outcome::BadArguments(_) => 2,
            Outcome::HostCannot(_) => 3,
            Outcome::GuestCrashed(_) => 4,
            Outcome::Reset(_) => 5,
            Outcome::Stopped(_) => 6,
        }
    }

    /// The same end, if it has to be told of an error of ours.
    #[must_use]
    pub fn after(self, error: &str) -> Self {
        Outcome::VmmError(format!("{error}; before that: {}", self.detail()))
    }

    /// The name in the report.
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::PoweredOff(_) => "powered-off",
            Outcome::VmmError(_) => "vmm-error",
            Outcome::BadArguments(_) => "bad-arguments",
            Outcome::HostCannot(_) => "host-cannot",
            Outcome::GuestCrashed(_) => "guest-crashed",
            Outcome::Reset(_) => "reset",
            Outcome::Stopped(_) => "stopped",
        }
    }

    /// What there is to say.
    pub fn detail(&self) -> &str {
        match self {
            Outcome::PoweredOff(text)
            | Outcome::Reset(text)
            | Outcome::VmmError(text)
            | Outcome::BadArguments(text)
            | Outcome::HostCannot(text)
            | Outcome::GuestCrashed(text)
            | Outcome::Stopped(text) => text,
        }
    }
}
