// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A thread for each lane of a device: a queue of a disk, a pair of queues of a network device. Slow storage behind one does
//! not hold up the others, nor a vCPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use cvmm_devices::virtio::{Kind, Worker};
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::control::ExitRequest;
use crate::sandbox::{Sandbox, ThreadKind};
use crate::{Error, Outcome, Result};

/// A running worker.
#[derive(Debug)]
pub struct IoThread {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    event: EventFd,
}

/// Wakes the loop so that it sees that it should stop.
struct Waker(Arc<Stop>);

impl MutEventSubscriber for Waker {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let _ = self.0.event.read();
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.0.event, EventSet::IN)) {
            log::error!("cvmm's event loop failed: {error}");
        }
    }
}

impl IoThread {
    /// Starts a thread for each lane of the device `name`, which `worker` serves as a whole.
    pub fn start_all(
        (name, kind): (&str, Kind),
        worker: Worker,
        exit: &Arc<ExitRequest>,
        sandbox: &Sandbox,
    ) -> Result<Vec<Self>> {
        let name = |lane| if lane == 0 { name.to_owned() } else { format!("{name}.{lane}") };
        let workers = worker.split().into_iter().enumerate();
        workers
            .map(|(lane, worker)| Self::start((&name(lane), kind), worker, Arc::clone(exit), sandbox))
            .collect()
    }

    /// Starts the thread `name` of a device, confined.
    fn start(
        (name, kind): (&str, Kind),
        worker: Worker,
        exit: Arc<ExitRequest>,
        sandbox: &Sandbox,
    ) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| Error::vmm(name, error);
        let event = EventFd::new(EFD_NONBLOCK).map_err(|error| failed(&error))?;
        let stop = Arc::new(Stop { asked: AtomicBool::new(false), event });
        let mut events: EventManager<Box<dyn MutEventSubscriber + Send>> =
            EventManager::new().map_err(|error| failed(&error))?;
        let finish = worker.finish();
        events.add_subscriber(Box::new(worker));
        events.add_subscriber(Box::new(Waker(Arc::clone(&stop))));
        let until = Arc::clone(&stop);
        let body = move || {
            let _guard = PanicGuard(&exit);
            while !until.asked.load(Ordering::Acquire) {
                if let Err(error) = events.run() {
                    exit.ask(Outcome::VmmError(format!("cvmm's event loop failed: {error}")));
                    break;
                }
            }
            finish.run();
        };
        let thread = sandbox.spawn(name, ThreadKind::Device(kind), body)?;
        Ok(Self { stop, thread })
    }

    /// Returns when the thread has ended, its current turn included.
    pub fn stop(self) {
        self.stop.asked.store(true, Ordering::Release);
        let _ = self.stop.event.write(1);
        // A panic was told by the guard.
        let _ = self.thread.join();
    }
}

/// Ends the run if its thread panics: no half-alive VM.
pub(super) struct PanicGuard<'a>(pub(super) &'a ExitRequest);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.ask(Outcome::VmmError("a thread of cvmm panicked".into()));
        }
    }
}
