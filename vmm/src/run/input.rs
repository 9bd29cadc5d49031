// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Console input: from standard input to the guest's UART, as far as the guest reads it.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::os::fd::AsRawFd;

use cvmm_devices::serial::Console;
use event_manager::{EventOps, EventSet, Events};

use crate::host::stdio;
use crate::host::terminal::Keyboard;

/// Most bytes that wait for the guest to read them.
const MOST_PENDING: usize = 4096;

/// Standard input, on its way to the guest.
#[derive(Debug)]
pub(super) struct Input {
    /// Without a buffer: bytes in one would not make the file readable.
    stdin: File,
    /// Looks for the quit key, on a terminal.
    keyboard: Option<Keyboard>,
    /// Read, and not yet in the UART.
    pending: Vec<u8>,
    /// Marks standard input among the events.
    data: u32,
    /// Whether the loop waits for more.
    watched: bool,
    /// There is no more.
    ended: bool,
}

impl Input {
    /// Standard input, whose events carry `data`.
    pub(super) fn new(data: u32) -> io::Result<Self> {
        let stdin = stdio::input()?;
        let keyboard = stdin.is_terminal().then(Keyboard::default);
        Ok(Self { stdin, keyboard, pending: Vec::new(), data, watched: false, ended: false })
    }

    /// Reads what there is. `true` if the quit key was among it.
    pub(super) fn read(&mut self) -> bool {
        let mut buffer = [0; 256];
        let typed = match self.stdin.read(&mut buffer) {
            Ok(n) if n > 0 => &buffer[..n],
            // Not now: who shares it with us may have read first.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                return false;
            }
            Ok(_) | Err(_) => {
                self.ended = true;
                return false;
            }
        };
        let quit = match &mut self.keyboard {
            Some(keyboard) => keyboard.filter(typed, &mut self.pending),
            None => {
                self.pending.extend(typed);
                false
            }
        };
        self.pending.truncate(MOST_PENDING);
        quit
    }

    /// Hands to the guest what it has room for. Meanwhile a file or a pipe waits; a terminal is read on, since a guest
    /// that does not read its UART must not take the quit key from us.
    pub(super) fn feed(&mut self, console: &Console, ops: &mut EventOps) {
        let room = console.input_room().min(self.pending.len());
        if room > 0 {
            let now: Vec<u8> = self.pending.drain(..room).collect();
            console.input(&now);
        }
        let watch = !self.ended && (self.keyboard.is_some() || self.pending.is_empty());
        if watch == self.watched {
            return;
        }
        // Not watched means taken out of the loop: a pipe that was closed is always ready.
        let events = Events::with_data_raw(self.stdin.as_raw_fd(), self.data, EventSet::IN);
        match if watch { ops.add(events) } else { ops.remove(events) } {
            Ok(()) => self.watched = watch,
            // A regular file, or /dev/null, can't be waited for: then there is no input.
            Err(_) => self.ended = true,
        }
    }
}
