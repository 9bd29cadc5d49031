// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The terminal: raw while the guest runs, and as it was on every way out.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Keeps a terminal raw while it lives. Dropping it restores what was, also when a panic unwinds.
pub struct RawTerminal {
    terminal: File,
    before: Termios,
}

impl RawTerminal {
    /// Makes `terminal` raw, if it is one.
    pub fn new(terminal: impl AsFd) -> io::Result<Option<Self>> {
        let terminal = File::from(terminal.as_fd().try_clone_to_owned()?);
        if !terminal.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // Line feeds of cvmm's own messages still return the carriage.
        raw.output_flags = before.output_flags;
        tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

impl std::fmt::Debug for RawTerminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawTerminal")
    }
}

const CTRL_A: u8 = 1;

/// Finds the quit key, Ctrl-A x, in what is typed. Ctrl-A twice is one Ctrl-A for the guest.
#[derive(Debug, Default)]
pub struct Keyboard {
    escaped: bool,
}

impl Keyboard {
    /// Appends to `to` what of `typed` is for the guest. `true` if the user wants to quit.
    pub fn filter(&mut self, typed: &[u8], to: &mut Vec<u8>) -> bool {
        for &key in typed {
            match (std::mem::take(&mut self.escaped), key) {
                (false, CTRL_A) => self.escaped = true,
                (true, b'x' | b'X') => return true,
                (true, CTRL_A) | (false, _) => to.push(key),
                (true, _) => to.extend([CTRL_A, key]),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_restores_the_terminal() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let panicked = std::panic::catch_unwind(|| {
            let _raw = RawTerminal::new(&pty.slave).unwrap().expect("a terminal");
            assert_ne!(tcgetattr(&pty.slave).unwrap().local_flags, before.local_flags, "not raw");
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
    }

    #[test]
    fn what_is_no_terminal_is_left_alone() {
        assert!(RawTerminal::new(tempfile::tempfile().unwrap()).unwrap().is_none());
    }

    #[test]
    fn ctrl_a_x_quits_and_ctrl_a_twice_is_ctrl_a() {
        let mut keyboard = Keyboard::default();
        let mut guest = Vec::new();
        assert!(!keyboard.filter(b"a\x01\x01b\x01", &mut guest));
        assert!(!keyboard.filter(b"cx\x01", &mut guest));
        assert_eq!(guest, b"a\x01b\x01cx");
        assert!(keyboard.filter(b"x", &mut guest));
    }
}
