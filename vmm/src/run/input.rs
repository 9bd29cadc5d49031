// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Console input: from standard input to the guest's UART, no faster than the guest reads it. Nothing is dropped on the way:
//! what has no room waits where it is.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use cvmm_devices::serial::Console;
use event_manager::{EventOps, EventSet, Events};

use super::pace::Pace;
use crate::host::stdio::Stdin;
use crate::host::terminal::{Keyboard, Terminal};

/// Bytes of a file or a pipe that are read at once, and wait for the guest.
const CHUNK: usize = 4096;
/// A message of a socket is read whole, or its rest is lost. More than Linux lets one have (`net.core.wmem_max`), unless somebody
/// raised that.
const LONGEST_MESSAGE: usize = 1 << 18;
/// Bytes of a terminal that wait for the guest. They are read although the guest does not take them, since the quit key may
/// be behind them; more than anybody types or pastes.
const MOST_TYPED: usize = 16 << 20;

/// Standard input, on its way to the guest.
#[derive(Debug)]
pub(super) struct Input {
    /// Without a buffer: bytes in one would not make the file readable.
    stdin: Stdin,
    /// Where it comes from, if that is one.
    terminal: Option<Terminal>,
    /// Looks for the quit key, on a terminal.
    keyboard: Keyboard,
    /// For one read.
    buffer: Box<[u8]>,
    /// Read, and not yet in the UART.
    pending: VecDeque<u8>,
    pace: Pace,
    /// Marks standard input among the events.
    data: u32,
    /// Whether the loop waits for more.
    watched: bool,
    /// There is always something to read, or the end: a regular file, or a device such as /dev/zero. epoll refuses those.
    always_ready: bool,
    /// The last read of the terminal failed.
    failed: bool,
    /// There is no more.
    ended: bool,
}

impl Input {
    /// Standard input, whose events carry `data`. A terminal is taken if this process is in the foreground.
    pub(super) fn new(data: u32) -> io::Result<Self> {
        let stdin = Stdin::open()?;
        let at_once = if stdin.has_messages() { LONGEST_MESSAGE } else { CHUNK };
        let mut terminal = Terminal::new(io::stdin())?;
        if let Some(terminal) = &mut terminal {
            // Gone: reading will say so.
            let _ = terminal.take();
        }
        Ok(Self {
            stdin,
            terminal,
            keyboard: Keyboard::default(),
            buffer: vec![0; at_once].into(),
            pending: VecDeque::new(),
            pace: Pace::default(),
            data,
            watched: false,
            always_ready: false,
            failed: false,
            ended: false,
        })
    }

    /// Gives a terminal back, before the process stops.
    pub(super) fn give_back(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.give_back();
        }
    }

    /// Takes a terminal (again), if this process is in the foreground now.
    pub(super) fn take(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            // Gone: reading will say so.
            let _ = terminal.take();
        }
    }

    /// Whether there is a terminal that somebody else has, or had a moment ago. Nobody says when it becomes ours: a shell's
    /// `fg` signals a job that was stopped, but not one that runs.
    pub(super) fn waits_for_terminal(&self) -> bool {
        let waits = |terminal: &Terminal| !self.watched || !terminal.is_taken() || !terminal.is_ours();
        !self.ended && self.pending.len() < MOST_TYPED && self.terminal.as_ref().is_some_and(waits)
    }

    /// When to call [`feed`](Self::feed) again though nothing happens.
    pub(super) fn rest(&self) -> Option<Duration> {
        if self.pending.is_empty() { None } else { self.pace.rest(Instant::now()) }
    }

    /// Reads what there is, and gives the guest what it takes. `true` if the quit key was in it.
    pub(super) fn read(&mut self) -> bool {
        let typed = match self.stdin.read(&mut self.buffer) {
            Ok(n) if n > 0 => &self.buffer[..n],
            // Not now: who shares it with us may have read first.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                return false;
            }
            // Not ours any more, or not yet when it was read: SIGTTIN is blocked. Otherwise it is gone, and stays so.
            Err(error)
                if error.raw_os_error() == Some(libc::EIO)
                    && (self.in_background() || !std::mem::replace(&mut self.failed, true)) =>
            {
                return false;
            }
            Ok(_) => {
                self.ended = true;
                return false;
            }
            Err(error) => {
                // Without a word where it is open for writing only: nohup(1) leaves it so.
                if error.raw_os_error() != Some(libc::EBADF) {
                    log::warn!("standard input can't be read: {error}; the guest gets no more of it");
                }
                self.ended = true;
                return false;
            }
        };
        self.failed = false;
        if self.terminal.is_some() {
            return self.keyboard.filter(typed, &mut self.pending);
        }
        self.pending.extend(typed);
        false
    }

    fn in_background(&self) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| !terminal.is_ours())
    }

    /// Hands to the guest what it has room for, and says whether the loop waits for more.
    pub(super) fn feed(&mut self, console: &Console, ops: &mut EventOps) {
        loop {
            self.hand_over(console);
            if !(self.always_ready && !self.ended && self.pending.is_empty()) {
                break;
            }
            // No more than the guest takes: one chunk waits, and the rest is in the file.
            self.read();
            if self.pending.is_empty() {
                break;
            }
        }
        let wants = match &self.terminal {
            Some(_) => self.pending.len() < MOST_TYPED && !self.in_background(),
            None => self.pending.is_empty(),
        };
        let watch = wants && !self.ended && !self.always_ready;
        if watch == self.watched {
            return;
        }
        // Not watched means taken out of the loop: a pipe that was closed is always ready.
        let events = Events::with_data_raw(self.stdin.as_raw_fd(), self.data, EventSet::IN);
        match if watch { ops.add(events) } else { ops.remove(events) } {
            Ok(()) => self.watched = watch,
            Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EPERM => {
                self.always_ready = true;
                self.feed(console, ops);
            }
            Err(error) => {
                log::error!("standard input can't be waited for: {error}; the guest gets no more of it");
                self.ended = true;
            }
        }
    }

    fn hand_over(&mut self, console: &Console) {
        // Asked also where nothing is pending: the guest has just read the last of it.
        while self.pace.allows(console.has_input(), Instant::now()) && !self.pending.is_empty() {
            let taken = console.input(self.pending.as_slices().0);
            if taken == 0 {
                break;
            }
            self.pace.filled(Instant::now());
            self.pending.drain(..taken);
        }
        // What somebody pasted need not stay resident.
        if self.pending.is_empty() && self.pending.capacity() > CHUNK {
            self.pending = VecDeque::new();
        }
    }
}
