// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The main thread while the guest runs: signals, console input, and the guest's end.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use cvmm_devices::power::{GuestEvent, Handler};
use cvmm_devices::serial::Console;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::input::Input;
use crate::machine::Vm;
use crate::sandbox::{self, Sandbox};
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
                GuestEvent::PowerOff(means) => {
                    Outcome::PoweredOff(format!("the guest powered itself off ({means})"))
                }
                GuestEvent::Reset(means) => Outcome::Reset(format!("the guest asked for a reset ({means})")),
                GuestEvent::Panicked => Outcome::GuestCrashed("the guest's kernel panicked".into()),
            });
        })
    }

    /// Whether the run is about to end.
    pub fn is_asked(&self) -> bool {
        self.outcome().is_some()
    }

    /// Confines this process. A violation, too, asks for the end.
    pub fn sandbox(&self) -> Result<Sandbox> {
        Sandbox::enter(&self.event)
    }

    fn outcome(&self) -> Option<Outcome> {
        if let Some(violation) = sandbox::violation() {
            return Some(violation.into());
        }
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The signals that end a run, blocked so that only the control loop sees them.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks them. Before any other thread starts, which would not inherit that otherwise; and before anything takes
    /// time: a signal that comes while the guest is loaded ends the run when that is done.
    pub fn block() -> Result<Self> {
        let failed = |error: nix::Error| Error::vmm("signals", error);
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        signals.thread_block().map_err(failed)?;
        // Blocked and never looked at: a file that reaches RLIMIT_FSIZE is then an error, and not our death.
        SigSet::from(Signal::SIGXFSZ).thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&signals, flags).map(Self).map_err(failed)
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

impl Control {
    /// Gets ready to wait for the end, of which `signals` are one way.
    pub fn new(signals: Signals, read_stdin: bool, vm: &Vm, exit: Arc<ExitRequest>) -> Result<Self> {
        let input = read_stdin.then(|| Input::new(INPUT)).transpose();
        let input = input.map_err(|error| Error::vmm("standard input", error))?;
        let mut events = EventManager::new().map_err(|error| Error::vmm("event loop", error))?;
        events.add_subscriber(Subscriber {
            exit: Arc::clone(&exit),
            signals: signals.0,
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

    /// Reads what was typed, and hands it on.
    fn input(&mut self, ops: &mut EventOps) {
        if let Some(input) = &mut self.input {
            if input.read() {
                self.exit.ask(Outcome::Stopped("stopped by the quit key".into()));
            }
            input.feed(&self.console, ops);
        }
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
                if let Some(input) = &mut self.input {
                    input.feed(&self.console, ops);
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
        if let Some(input) = &mut self.input {
            input.feed(&self.console, ops);
        }
    }
}
