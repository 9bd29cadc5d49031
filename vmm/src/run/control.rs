// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The main thread while the guest runs: signals, console input, and the guest's end.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use cvmm_devices::power::{GuestEvent, Handler};
use cvmm_devices::serial::Console;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::terminal::Keyboard;
use crate::machine::Vm;
use crate::{Error, Outcome, Result};

/// The end of the run, asked for by whoever comes first.
#[derive(Debug)]
pub struct ExitRequest {
    outcome: Mutex<Option<Outcome>>,
    event: EventFd,
}

impl ExitRequest {
    /// Nobody asked yet.
    pub fn new() -> Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK).map_err(|error| Error::vmm("eventfd", error))?;
        Ok(Self { outcome: Mutex::new(None), event })
    }

    /// Asks for the end with `outcome`, unless somebody did before.
    pub fn ask(&self, outcome: Outcome) {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
        // Fails only if 2^64 - 2 requests are pending.
        let _ = self.event.write(1);
    }

    /// What a guest's power control and panic registers call.
    pub fn handler(self: &Arc<Self>) -> Handler {
        let exit = Arc::clone(self);
        Arc::new(move |event| {
            exit.ask(match event {
                GuestEvent::PowerOff => Outcome::PoweredOff,
                GuestEvent::Reset => Outcome::Reset,
                GuestEvent::Panicked => Outcome::GuestCrashed("the guest's kernel panicked".into()),
            });
        })
    }

    /// Whether the run is about to end.
    pub fn is_asked(&self) -> bool {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The control loop.
pub struct Control {
    events: EventManager<Subscriber>,
    exit: Arc<ExitRequest>,
}

struct Subscriber {
    exit: Arc<ExitRequest>,
    signals: SignalFd,
    console: Arc<Console>,
    drained: EventFd,
    /// Console input, if there is any.
    input: Option<Input>,
}

struct Input {
    /// Standard input, without a buffer: bytes in one would not make the file readable.
    stdin: File,
    /// Looks for the quit key, on a terminal.
    keyboard: Option<Keyboard>,
}

impl Input {
    fn new() -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let keyboard = stdin.is_terminal().then(Keyboard::default);
        Ok(Self { stdin, keyboard })
    }
}

impl Control {
    /// Blocks the signals that end the run, and gets ready to wait for them. Before any other thread starts.
    pub fn new(read_stdin: bool, vm: &Vm, exit: Arc<ExitRequest>) -> Result<Self> {
        let failed = |error: nix::Error| Error::vmm("signals", error);
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        signals.thread_block().map_err(failed)?;
        let signals =
            SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)?;
        let input =
            read_stdin.then(Input::new).transpose().map_err(|error| Error::vmm("standard input", error))?;
        let mut events = EventManager::new().map_err(|error| Error::vmm("event loop", error))?;
        events.add_subscriber(Subscriber {
            exit: Arc::clone(&exit),
            signals,
            console: Arc::clone(&vm.console),
            drained: vm.console_drained.try_clone().map_err(|error| Error::vmm("console", error))?,
            input,
        });
        Ok(Self { events, exit })
    }

    /// Returns when the run has ended.
    pub fn wait(&mut self) -> Outcome {
        loop {
            if let Some(outcome) = self.exit.outcome() {
                return outcome;
            }
            if let Err(error) = self.events.run() {
                return Outcome::VmmError(format!("event loop: {error}"));
            }
        }
    }
}

const EXIT: u32 = 0;
const SIGNAL: u32 = 1;
const INPUT: u32 = 2;
const DRAINED: u32 = 3;

impl Subscriber {
    fn signal(&mut self) {
        if let Ok(Some(info)) = self.signals.read_signal() {
            let name = i32::try_from(info.ssi_signo)
                .ok()
                .and_then(|number| Signal::try_from(number).ok())
                .map_or("a signal", Signal::as_str);
            self.exit.ask(Outcome::Stopped(format!("stopped by {name}")));
        }
    }

    /// Hands input to the guest as far as it has room; the rest waits until it has read what it has.
    fn input(&mut self, ops: &mut EventOps) {
        let Some(Input { stdin, keyboard }) = &mut self.input else { return };
        let fd = stdin.as_raw_fd();
        let room = self.console.input_room();
        if room == 0 {
            return watch(ops, fd, INPUT, EventSet::empty());
        }
        let mut buffer = [0; 64];
        let len = room.min(buffer.len());
        let typed = match stdin.read(&mut buffer[..len]) {
            Ok(0) => {
                // End of file stays readable for ever.
                let _ = ops.remove(Events::empty_raw(fd));
                self.input = None;
                return;
            }
            Ok(n) => &buffer[..n],
            Err(_) => return,
        };
        match keyboard {
            None => self.console.input(typed),
            Some(keyboard) => {
                let mut for_guest = Vec::with_capacity(len + 1);
                if keyboard.filter(typed, &mut for_guest) {
                    self.exit.ask(Outcome::Stopped("stopped by the quit key".into()));
                }
                self.console.input(&for_guest);
            }
        }
    }
}

fn watch(ops: &mut EventOps, fd: RawFd, data: u32, set: EventSet) {
    if let Err(error) = ops.modify(Events::with_data_raw(fd, data, set)) {
        log::error!("console input: {error}");
    }
}

impl MutEventSubscriber for Subscriber {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            EXIT => {
                let _ = self.exit.event.read();
            }
            SIGNAL => self.signal(),
            INPUT => self.input(ops),
            _ => {
                let _ = self.drained.read();
                if let Some(input) = &self.input {
                    watch(ops, input.stdin.as_raw_fd(), INPUT, EventSet::IN);
                }
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        for (fd, data) in [
            (self.exit.event.as_raw_fd(), EXIT),
            (self.signals.as_raw_fd(), SIGNAL),
            (self.drained.as_raw_fd(), DRAINED),
        ] {
            if let Err(error) = ops.add(Events::with_data_raw(fd, data, EventSet::IN)) {
                log::error!("event loop: {error}");
            }
        }
        if let Some(input) = &self.input {
            // A regular file, or /dev/null, can't be waited for: then there is no input.
            let fd = input.stdin.as_raw_fd();
            if ops.add(Events::with_data_raw(fd, INPUT, EventSet::IN)).is_err() {
                self.input = None;
            }
        }
    }
}
