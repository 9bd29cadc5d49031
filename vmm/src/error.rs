// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a guest was not started, or could not go on.

use crate::Outcome;

/// An error, by who can mend it. Its text is one line that says what was wrong and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user can: `option` is wrong.
    #[error("{}: {}", one_line(option), one_line(reason))]
    Argument {
        /// The option as the user wrote it: `--blk path=disk.img`.
        option: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The host's administrator can.
    #[error("this host can't run the guest: {0}")]
    Host(String),
    /// The same, where no guest was to run: a program is missing, or too few files may be open.
    #[error("{0}")]
    Describe(String),
    /// We can.
    #[error("{0}")]
    Vmm(String),
}

/// What a user gave us may have line breaks and worse in it.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The result of what can fail on the way to a guest.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Argument`].
    pub fn argument(option: impl Into<String>, reason: impl ToString) -> Self {
        Error::Argument { option: option.into(), reason: reason.to_string() }
    }

    /// An [`Error::Vmm`]: `what` failed with `error`.
    pub fn vmm(what: &str, error: impl std::fmt::Display) -> Self {
        Error::Vmm(format!("{what}: {error}"))
    }

    /// The outcome of a run that ended with this error.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Argument { .. } => Outcome::BadArguments(self.to_string()),
            Error::Host(_) | Error::Describe(_) => Outcome::HostCannot(self.to_string()),
            Error::Vmm(_) => Outcome::VmmError(self.to_string()),
        }
    }
}
