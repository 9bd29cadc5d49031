// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The main thread while the guest runs: signals, console input, and the guest's end.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cvmm_devices::power::{GuestEvent, Handler};
use cvmm_devices::serial::Console;
use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::input::Input;
use super::signals::{self, Event, Signals};
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
    ///
    /// `warm_is_panic`: the guest's command line has no other word on resets than cvmm's, so that a warm one follows a panic.
    pub fn handler(self: &Arc<Self>, warm_is_panic: bool) -> Handler {
        let exit = Arc::clone(self);
        Arc::new(move |event| {
            exit.ask(match event {
                GuestEvent::PowerOff(means) => {
                    Outcome::PoweredOff(format!("the guest powered itself off ({means})"))
                }
                GuestEvent::Reset(means) => Outcome::Reset(format!("the guest asked for a reset ({means})")),
                GuestEvent::Panicked => Outcome::GuestCrashed("the guest's kernel panicked".into()),
                GuestEvent::WarmReset if warm_is_panic => Outcome::GuestCrashed(
                    "the guest asked for a warm reset: its kernel panicked (reboot=panic_warm on its command line)".into(),
                ),
                GuestEvent::WarmReset => Outcome::Reset("the guest asked for a warm reset".into()),
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

/// The control loop.
pub struct Control {
    events: EventManager<Subscriber>,
    subscriber: SubscriberId,
    exit: Arc<ExitRequest>,
    /// Wakes the loop as the console does.
    ready: EventFd,
}

/// How often a run in the background looks whether the terminal is its own now.
const LOOK_FOR_TERMINAL: Duration = Duration::from_millis(250);
const FOR_EVER: i32 = -1;

struct Subscriber {
    exit: Arc<ExitRequest>,
    signals: Signals,
    console: Arc<Console>,
    /// The guest can take input.
    ready: EventFd,
    /// Console input, if there is any.
    input: Option<Input>,
}

impl Control {
    /// Gets ready to wait for the end, of which `signals` are one way.
    pub fn new(signals: Signals, read_stdin: bool, vm: &Vm, exit: Arc<ExitRequest>) -> Result<Self> {
        let input = read_stdin.then(|| Input::new(INPUT)).transpose();
        let input = input.map_err(|error| Error::vmm("standard input", error))?;
        let mut events = EventManager::new().map_err(|error| Error::vmm("event loop", error))?;
        let ready = || vm.console_ready.try_clone().map_err(|error| Error::vmm("console", error));
        let subscriber = events.add_subscriber(Subscriber {
            exit: Arc::clone(&exit),
            signals,
            console: Arc::clone(&vm.console),
            ready: ready()?,
            input,
        });
        Ok(Self { events, subscriber, exit, ready: ready()? })
    }

    /// Gives back the terminal: what comes after the guest may take long, and takes no input.
    pub fn give_back_terminal(&mut self) {
        if let Ok(Subscriber { input: Some(input), .. }) = self.events.subscriber_mut(self.subscriber) {
            input.give_back();
        }
    }

    /// Returns when the run has ended.
    pub fn wait(&mut self) -> Outcome {
        loop {
            if let Some(outcome) = self.exit.outcome() {
                return outcome;
            }
            let pause = self.events.subscriber_mut(self.subscriber).ok().and_then(|s| s.pause());
            match self.events.run_with_timeout(pause.map_or(FOR_EVER, milliseconds)) {
                Ok(0) if pause.is_some() => {
                    // Fails only if 2^64 - 2 wake-ups are pending.
                    let _ = self.ready.write(1);
                }
                Ok(_) => {}
                Err(error) => return Outcome::VmmError(format!("event loop: {error}")),
            }
        }
    }
}

/// What the loop takes for a time: not less than it.
fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}

const EXIT: u32 = 0;
const SIGNAL: u32 = 1;
const INPUT: u32 = 2;
const READY: u32 = 3;

impl Subscriber {
    fn signal(&mut self) {
        let event = match self.signals.next() {
            // What came after it counts: somebody has thought better of it.
            Some(Event::Stop) => self.signals.next().or(Some(Event::Stop)),
            other => other,
        };
        match event {
            Some(Event::End(signal)) => self.exit.ask(Outcome::Stopped(format!("stopped by {signal}"))),
            Some(Event::Stop) => {
                if let Some(input) = &mut self.input {
                    input.give_back();
                }
                signals::stop();
                self.take_terminal();
            }
            Some(Event::Continued) => self.take_terminal(),
            None => {}
        }
    }

    /// After which time to look at the input, although nothing happens.
    fn pause(&self) -> Option<Duration> {
        let terminal = self.waits_for_terminal().then_some(LOOK_FOR_TERMINAL);
        terminal.into_iter().chain(self.input.as_ref().and_then(Input::rest)).min()
    }

    fn waits_for_terminal(&self) -> bool {
        self.input.as_ref().is_some_and(Input::waits_for_terminal)
    }

    /// In the foreground, a terminal is ours (again).
    fn take_terminal(&mut self) {
        if let Some(input) = &mut self.input {
            input.take();
        }
    }

    /// Reads what was typed, and hands it on.
    fn input(&mut self, ops: &mut EventOps) {
        if self.input.as_mut().is_some_and(Input::read) {
            self.exit.ask(Outcome::Stopped("stopped by the quit key".into()));
        }
        self.feed(ops);
    }

    fn feed(&mut self, ops: &mut EventOps) {
        if let Some(input) = &mut self.input {
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
            SIGNAL => {
                self.signal();
                self.feed(ops);
            }
            INPUT => self.input(ops),
            _ => {
                let _ = self.ready.read();
                if self.waits_for_terminal() {
                    self.take_terminal();
                }
                self.feed(ops);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        for (fd, data) in [
            (self.exit.event.as_raw_fd(), EXIT),
            (self.signals.as_raw_fd(), SIGNAL),
            (self.ready.as_raw_fd(), READY),
        ] {
            if let Err(error) = ops.add(Events::with_data_raw(fd, data, EventSet::IN)) {
                log::error!("event loop: {error}");
            }
        }
        self.feed(ops);
    }
}
