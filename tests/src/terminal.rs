// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lab's own terminal while a guest's console is on it.

use std::io::{self, IsTerminal, Read};

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::host::Control;

/// A raw terminal, restored when this is dropped.
#[derive(Debug)]
pub struct Raw(Termios);

impl Raw {
    /// Makes the terminal raw; `None` where standard input is none, or another process group has it: in the background,
    /// setting it would stop the lab.
    pub fn enter() -> Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || !io::stdout().is_terminal() || in_background() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).context("cannot make the terminal raw")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nothing better to do when the terminal is gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Whether standard input is a terminal that another process group has.
fn in_background() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group != getpgrp())
}

/// Passes standard input on to a program, until either ends. In the background of a shell there is none: reading the
/// terminal would stop the lab.
pub fn forward_input(to: Control) {
    if in_background() {
        return;
    }
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
            if to.input(&buffer[..length]).is_err() {
                return;
            }
        }
        // The program may have ended.
        let _ = to.end_input();
    });
}

/// Passes SIGINT, SIGTERM and SIGHUP on to a program as SIGTERM: it ends in order, and the lab after it.
pub fn forward_signals(to: Control) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // The program may have ended.
            let _ = to.signal(SIGTERM);
        }
    });
    Ok(())
}
