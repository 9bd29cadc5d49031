// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One line for each assertion: `ok NAME: what was seen` or `FAIL NAME: what was wrong`.

use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::termios::tcdrain;

/// Counts the assertions. Shared by threads: disks are tested side by side.
#[derive(Debug, Default)]
pub(super) struct Report {
    passed: AtomicUsize,
    failed: AtomicUsize,
}

impl Report {
    /// Runs one assertion. An error is a FAIL, and so is a panic: whatever happens, there is a line for it.
    pub(super) fn check(&self, name: &str, assertion: impl FnOnce() -> anyhow::Result<String>) -> bool {
        let outcome = catch_unwind(AssertUnwindSafe(assertion))
            .unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", panic_text(panic.as_ref()))));
        match outcome {
            Ok(seen) => {
                self.passed.fetch_add(1, Ordering::Relaxed);
                say(&format!("ok {name}: {}", one_line(&seen)));
                true
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                say(&format!("FAIL {name}: {}", one_line(&format!("{error:#}"))));
                false
            }
        }
    }

    pub(super) fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }

    pub(super) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Prints a line. Without a working console nobody hears it, but the guest goes on: the host may look at other things.
///
/// Returns when the line is out: what the kernel says next would come into the middle of what its driver still holds, and a
/// crash would cut it off.
pub(super) fn say(line: &str) {
    let mut console = io::stdout().lock();
    let _ = writeln!(console, "{line}");
    let _ = tcdrain(&console);
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

fn one_line(text: &str) -> String {
    text.replace('\n', " | ")
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn errors_and_panics_are_failures() {
        let report = Report::default();
        assert!(report.check("good", || Ok("seen".into())));
        assert!(!report.check("bad", || bail!("wrong")));
        assert!(!report.check("panic", || panic!("at {}", 1)));
        assert_eq!((report.passed(), report.failed()), (1, 2));
    }
}
