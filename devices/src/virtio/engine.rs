// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a device type on its queues, and stops it at the first refusal.

use std::fmt::Debug;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{DeviceType, HostIo, Lane};
use crate::pool::{Gate, Refusal};
use crate::queue::Queue;
use crate::waiters::{Waiters, lock};
use crate::{ErrorLog, HostErrors};

/// Interrupts in the abstract. A transport knows what they are on its bus.
pub trait Interrupt: Debug + Send + Sync {
    /// Used buffer notification for `queue`.
    fn used_buffer(&self, queue: u16);
    /// Configuration change notification.
    fn config_change(&self);
    /// The device was reset: nothing is pending any more.
    fn reset(&self);
}

/// A device's queues, of which the driver may have enabled some.
#[derive(Debug, Default)]
pub struct Queues(Vec<Option<Queue>>);

impl Queues {
    /// The queue with this index, if the driver has enabled it.
    pub fn get(&mut self, index: u16) -> Option<&mut Queue> {
        self.0.get_mut(usize::from(index))?.as_mut()
    }
}

/// What the registers and the workers share of one device.
///
/// Each lane has an engine of its own, whose lock its worker holds for one bounded turn at a queue. No worker needs
/// another lane's lock for its turns. A turn ends after the request that is under way when somebody waits for the device, so
/// a reset, which takes the locks one after the other, waits for at most that: when the register write returns, the device no
/// longer touches the driver's memory.
///
/// Requests that a lane has under way on the host's side are waited for, too: nobody changes an engine that has any.
#[derive(Debug)]
pub struct Handle {
    engines: Vec<Shared>,
    /// The gate of each lane.
    gates: Vec<Gate>,
    /// The lane of each queue.
    lanes: Vec<usize>,
    waiters: Waiters,
    /// A lane has refused, and waits until no other lane is in a turn.
    stopping: AtomicBool,
    /// Changes of the configuration space. Odd while the device needs a reset: both change at once.
    config_generation: AtomicU32,
    interrupt: Arc<dyn Interrupt>,
    errors: ErrorLog,
    /// How the host moves data, on all lanes.
    host_io: Option<HostIo>,
    name: String,
}

impl Handle {
    pub(super) fn new(
        name: &str,
        device: Box<dyn DeviceType>,
        gate: &Gate,
        interrupt: Arc<dyn Interrupt>,
    ) -> Self {
        let queues = device.max_queue_sizes().len();
        let lanes = (0u16..).take(queues).map(|queue| device.lane_of(queue)).collect();
        let errors = device.host_errors();
        let lanes_of_device = device.into_lanes(gate.pool());
        let host_io = lanes_of_device.iter().map(|lane| lane.host_io());
        let host_io = host_io.min_by_key(|io| *io == Some(HostIo::Ring)).flatten();
        let engines: Vec<_> = lanes_of_device.into_iter().map(Shared::new).collect();
        let more = (1..engines.len()).map(|_| gate.for_another_thread());
        Self {
            gates: std::iter::once(gate.clone()).chain(more).collect(),
            engines,
            lanes,
            waiters: Waiters::default(),
            stopping: AtomicBool::new(false),
            config_generation: AtomicU32::new(0),
            interrupt,
            errors,
            host_io,
            name: name.into(),
        }
    }

    /// Whether DEVICE_NEEDS_RESET is set.
    pub fn needs_reset(&self) -> bool {
        self.config_generation() % 2 == 1
    }

    /// Counts the changes of the configuration space, which reads as zeros while the device needs a reset.
    pub fn config_generation(&self) -> u32 {
        self.config_generation.load(Ordering::Acquire)
    }

    /// Whether the device may use the driver's memory from now on; it may at first. Returns whether it might before.
    /// When this returns, the device keeps to it.
    pub fn allow_dma(&self, allowed: bool) -> bool {
        let mut before = true;
        self.each(|_, engine| before = std::mem::replace(&mut engine.dma, allowed));
        before
    }

    /// The device's interrupt.
    pub fn interrupt(&self) -> &dyn Interrupt {
        &*self.interrupt
    }

    /// The gate of the lane that serves this queue.
    pub(super) fn gate(&self, queue: u32) -> Option<&Gate> {
        self.gates.get(*self.lanes.get(usize::try_from(queue).ok()?)?)
    }

    /// Number of the lane that serves this queue.
    pub(super) fn lane_of(&self, queue: u16) -> Option<usize> {
        self.lanes.get(usize::from(queue)).copied()
    }

    /// Starts the device on `queues`: DRIVER_OK. A device that needs a reset does not start.
    pub(super) fn start(&self, features: u64, mut queues: Vec<Option<Queue>>) {
        queues.iter_mut().flatten().for_each(|queue| queue.give_way_to(&self.waiters));
        self.each(|lane, engine| {
            if self.needs_reset() {
                return;
            }
            let own = queues.iter_mut().zip(&self.lanes);
            let own = own.map(|(queue, of)| queue.take_if(|_| *of == lane)).collect();
            engine.queues = Queues(own);
            engine.lane.start(features);
            engine.running = true;
        });
        self.errors.tell(&self.name);
    }

    /// Stops one queue for good.
    pub(super) fn stop_queue(&self, index: u16) {
        let _waiter = self.waiters.announce();
        let engine = self.lane_of(index).and_then(|lane| self.engines.get(lane)).map(Shared::settle);
        if let Some(mut engine) = engine
            && let Some(queue) = engine.queues.0.get_mut(usize::from(index))
        {
            *queue = None;
        }
    }

    /// Device reset. When it returns, the device has let go of all queues and buffers.
    pub(super) fn reset(&self) {
        self.each(|_, engine| {
            engine.running = false;
            engine.queues.0.clear();
            engine.lane.stop();
        });
        self.errors.tell(&self.name);
        // No lane runs, so none refuses meanwhile.
        self.stopping.store(false, Ordering::Release);
        self.set_needs_reset(false);
        self.interrupt.reset();
    }

    /// Stops the device because of `refusal`: the record, DEVICE_NEEDS_RESET, a configuration change notification
    /// (virtio 1.3, 2.1.2).
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.record(refusal);
        self.set_needs_reset(true);
        self.interrupt.config_change();
    }

    fn record(&self, refusal: Refusal) {
        // A hostile driver can do this for ever; the record counts on, the log does not.
        if self.gates.first().is_some_and(|gate| gate.audit().refuse(refusal)) {
            log::warn!("{}: stopped until the driver resets it, after a refusal: {refusal}", self.name);
        }
    }

    /// Stops the device because of a refusal in a turn of `lane`, whose lock the caller holds. When the driver sees
    /// DEVICE_NEEDS_RESET, no other lane is in a turn, either.
    fn refuse_in_turn(&self, lane: usize, refusal: Refusal) {
        // Of two lanes that refuse at a time, the second does not wait: the first waits for it.
        if self.stopping.swap(true, Ordering::AcqRel) {
            return self.record(refusal);
        }
        for (_, other) in self.engines.iter().enumerate().filter(|(other, _)| *other != lane) {
            let _waiter = self.waiters.announce();
            drop(other.settle());
        }
        self.refuse(refusal);
    }

    fn set_needs_reset(&self, needed: bool) {
        let next =
            |generation: u32| (generation % 2 != u32::from(needed)).then(|| generation.wrapping_add(1));
        // An error says that it was so already.
        let _ = self.config_generation.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// One turn at the queue with this `index`. `true` if there is more to do at once.
    pub fn serve(&self, index: u16) -> bool {
        let Some(lane) = self.lane_of(index) else { return false };
        let Some(shared) = self.engines.get(lane) else { return false };
        if self.waiters.any() && !shared.is_settling() {
            std::thread::yield_now();
            return true;
        }
        let mut engine = lock(&shared.engine);
        let stopped = self.stopping.load(Ordering::Acquire) || self.needs_reset();
        let settling = shared.is_settling();
        let Engine { lane: device, queues, running, dma } = &mut *engine;
        let served = if *running && *dma && !stopped && !settling {
            device.serve(index, queues)
        } else {
            device.complete(queues)
        };
        if settling && device.under_way() == 0 {
            shared.settled.notify_all();
        }
        self.errors.tell(&self.name);
        match served {
            Ok(turn) => {
                if turn.interrupt {
                    self.interrupt.used_buffer(index);
                }
                // What came while somebody waited is looked at afterwards.
                turn.more || settling && device.under_way() == 0
            }
            Err(refusal) => {
                *running = false;
                // What was served before is the driver's: let it know.
                self.interrupt.used_buffer(index);
                self.refuse_in_turn(lane, refusal);
                false
            }
        }
    }

    /// The thread that serves this queue ends: what is under way there is waited for.
    pub(crate) fn finish(&self, index: u16) {
        if let Some(shared) = self.lane_of(index).and_then(|lane| self.engines.get(lane)) {
            let Engine { lane, queues, running, .. } = &mut *lock(&shared.engine);
            *running = false;
            lane.settle(queues);
            shared.settled.notify_all();
        }
    }

    /// What went wrong on the host's side so far.
    pub(super) fn host_errors(&self) -> HostErrors {
        self.errors.all()
    }

    /// How the host moves data: by a ring if each lane has one.
    pub(super) fn host_io(&self) -> Option<HostIo> {
        self.host_io
    }

    pub(super) fn host_fds(&self) -> Vec<(RawFd, u16)> {
        self.engines.iter().flat_map(|shared| self.waiters.lock(&shared.engine).lane.host_fds()).collect()
    }

    /// How many wait for an engine.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> u32 {
        self.waiters.count()
    }

    /// Changes each lane's engine, between two of its turns.
    fn each(&self, mut change: impl FnMut(usize, &mut Engine)) {
        // All turns end, not one after the other.
        let _waiter = self.waiters.announce();
        self.engines.iter().enumerate().for_each(|(lane, shared)| change(lane, &mut shared.settle()));
    }
}

/// An engine, and how one waits for it.
#[derive(Debug)]
struct Shared {
    engine: Mutex<Engine>,
    /// Somebody waits until nothing is under way. Meanwhile, nothing begins.
    settling: AtomicBool,
    settled: Condvar,
}

impl Shared {
    fn new(lane: Box<dyn Lane>) -> Self {
        let engine = Engine { lane, queues: Queues::default(), running: false, dma: true };
        Self { engine: Mutex::new(engine), settling: AtomicBool::new(false), settled: Condvar::new() }
    }

    fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Acquire)
    }

    /// The engine, when none of its requests is under way. Its worker completes them meanwhile.
    fn settle(&self) -> MutexGuard<'_, Engine> {
        let mut engine = lock(&self.engine);
        while engine.lane.under_way() > 0 {
            self.settling.store(true, Ordering::Release);
            engine = self.settled.wait(engine).unwrap_or_else(PoisonError::into_inner);
        }
        self.settling.store(false, Ordering::Release);
        engine
    }
}

/// A lane and the queues it runs on.
#[derive(Debug)]
pub struct Engine {
    lane: Box<dyn Lane>,
    queues: Queues,
    running: bool,
    /// The device may use the driver's memory.
    dma: bool,
}

#[cfg(test)]
mod tests;
