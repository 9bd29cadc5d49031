// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Log lines that a guest can cause, and must not cause without end.

use std::fmt::Arguments;

/// Lines that are logged; the rest is silence.
const LINES: u32 = 8;

/// A device's budget of log lines.
#[derive(Debug, Default)]
pub(crate) struct LimitedLog {
    lines: u32,
}

impl LimitedLog {
    /// Logs an error, unless there were many already.
    pub(crate) fn error(&mut self, message: Arguments<'_>) {
        if self.allow() {
            log::error!("{message}");
        }
    }

    fn allow(&mut self) -> bool {
        self.lines = self.lines.saturating_add(1);
        if self.lines == LINES {
            log::error!("further errors of this device are not logged");
        }
        self.lines < LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_ends_where_the_errors_do_not() {
        let mut log = LimitedLog::default();
        assert_eq!((0..1000).filter(|_| log.allow()).count(), 7);
    }
}
