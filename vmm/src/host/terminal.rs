// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The terminal: raw while the guest runs in the foreground, and as it was on every way out.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use super::crash;

/// A terminal that this process may take, and gives back. Dropping it gives it back, also when a panic unwinds.
///
/// SIGTTOU is blocked (see `run::signals`), so that nothing here stops the process.
pub struct Terminal {
    file: File,
    /// Its settings before it was taken, while it is, and those that it was given.
    taken: Option<(Termios, Termios)>,
}

impl Terminal {
    /// `file`, if it is a terminal. It stays as it is.
    pub fn new(file: impl AsFd) -> io::Result<Option<Self>> {
        let file = File::from(file.as_fd().try_clone_to_owned()?);
        if !file.is_terminal() {
            return Ok(None);
        }
        // Now: once this process is confined, it can't install handlers.
        crash::watch();
        Ok(Some(Self { file, taken: None }))
    }

    /// Whether this process may use it: job control gives it to one process group at a time. A terminal that controls no
    /// session of ours has no job control.
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(&self.file).map_or(true, |group| group == getpgrp())
    }

    /// Whether it is raw now because of us.
    pub fn is_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// Makes it raw, if this process may use it. Also where it is taken: while the process was stopped, a shell may have
    /// changed it.
    ///
    /// # Errors
    /// It is gone.
    pub fn take(&mut self) -> io::Result<()> {
        if !self.is_ours() {
            return Ok(());
        }
        let now = tcgetattr(&self.file)?;
        let mut raw = now.clone();
        cfmakeraw(&mut raw);
        // Line feeds of cvmm's own messages still return the carriage.
        raw.output_flags = now.output_flags;
        // First: a crash may come as soon as it is raw.
        let before = self.taken.take().map_or(now, |(before, _)| before);
        let (before, ours) = self.taken.insert((before, raw.clone()));
        crash::restore_terminal(&self.file, before, ours);
        Ok(tcsetattr(&self.file, SetArg::TCSANOW, &raw)?)
    }

    /// Gives it back as it was. In the background it is another's by now, who may have set it for itself; not every shell does.
    pub fn give_back(&mut self) {
        crash::keep_terminal();
        if let Some((before, ours)) = self.taken.take()
            && (self.is_ours() || tcgetattr(&self.file).is_ok_and(|now| is_input_alike(&now, &ours)))
        {
            let _ = tcsetattr(&self.file, SetArg::TCSANOW, &before);
        }
    }
}

/// Whether two settings are the same, but for the flags of output, which are not ours to set. (`==` would compare nix's own
/// copy, too, which is that of the kernel's only after a call.)
fn is_input_alike(a: &Termios, b: &Termios) -> bool {
    let flags = |of: &Termios| (of.input_flags, of.control_flags, of.local_flags, of.control_chars);
    flags(a) == flags(b)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Terminal")
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
    pub fn filter(&mut self, typed: &[u8], to: &mut impl Extend<u8>) -> bool {
        for &key in typed {
            match (std::mem::take(&mut self.escaped), key) {
                (false, CTRL_A) => self.escaped = true,
                (true, b'x' | b'X') => return true,
                (true, CTRL_A) | (false, _) => to.extend([key]),
                (true, _) => to.extend([CTRL_A, key]),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::termios::SpecialCharacterIndices;

    use super::*;

    #[test]
    fn a_panic_restores_the_terminal() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let panicked = std::panic::catch_unwind(|| {
            let mut terminal = Terminal::new(&pty.slave).unwrap().expect("a terminal");
            terminal.take().unwrap();
            assert_ne!(tcgetattr(&pty.slave).unwrap().local_flags, before.local_flags, "not raw");
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
    }

    /// What a shell did to it meanwhile is not what it was before.
    #[test]
    fn a_terminal_that_is_taken_twice_is_as_it_was_before_the_first_time() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let mut terminal = Terminal::new(&pty.slave).unwrap().expect("a terminal");
        terminal.take().unwrap();
        let raw = tcgetattr(&pty.slave).unwrap();
        terminal.take().unwrap();
        assert_eq!(tcgetattr(&pty.slave).unwrap(), raw);
        terminal.give_back();
        assert!(!terminal.is_taken());
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
    }

    /// In the background, that is how it is known that nobody else has set it since.
    #[test]
    fn the_settings_that_it_was_given_last_are_ours() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let mut terminal = Terminal::new(&pty.slave).unwrap().expect("a terminal");
        terminal.take().unwrap();
        // As `stty erase ^H` would, in a shell that has stopped us.
        let mut changed = before.clone();
        changed.control_chars[SpecialCharacterIndices::VERASE as usize] = 8;
        tcsetattr(&pty.slave, SetArg::TCSANOW, &changed).unwrap();
        terminal.take().unwrap();
        let (given_back, ours) = terminal.taken.as_ref().unwrap();
        assert_eq!(*given_back, before);
        assert!(is_input_alike(ours, &tcgetattr(&pty.slave).unwrap()));
    }

    #[test]
    fn what_is_no_terminal_is_left_alone() {
        assert!(Terminal::new(tempfile::tempfile().unwrap()).unwrap().is_none());
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
