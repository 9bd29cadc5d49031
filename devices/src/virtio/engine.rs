// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a device type on its queues, and stops it at the first refusal.

use std::fmt::Debug;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::DeviceType;
use crate::pool::{Gate, Refusal};
use crate::queue::Queue;
use crate::{HostError, HostErrors};

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

/// What the registers and the worker share of one device.
///
/// The engine's lock is held for one bounded turn at a queue, which ends after the request that is under way when somebody
/// waits for it, so a reset waits for at most that: when the register
/// write returns, the device no longer touches the driver's memory.
#[derive(Debug)]
pub struct Handle {
    engine: Mutex<Engine>,
    /// How many wait for the engine other than the worker, which takes no turn before they had it: a mutex alone is not
    /// fair, and a worker with much to do would have it again before any of them has woken up.
    waiting: Arc<AtomicU32>,
    /// Changes of the configuration space. Odd while the device needs a reset: both change at once.
    config_generation: AtomicU32,
    gate: Gate,
    interrupt: Arc<dyn Interrupt>,
    name: String,
}

impl Handle {
    pub(super) fn new(
        name: &str,
        device: Box<dyn DeviceType>,
        gate: Gate,
        interrupt: Arc<dyn Interrupt>,
    ) -> Self {
        let engine = Mutex::new(Engine { device, queues: Queues::default(), running: false, dma: true });
        let (waiting, config_generation) = (Arc::default(), AtomicU32::new(0));
        Self { engine, waiting, config_generation, gate, interrupt, name: name.into() }
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
        std::mem::replace(&mut self.lock().dma, allowed)
    }

    /// The device's interrupt.
    pub fn interrupt(&self) -> &dyn Interrupt {
        &*self.interrupt
    }

    /// Starts the device on `queues`: DRIVER_OK. A device that needs a reset does not start.
    pub(super) fn start(&self, features: u64, mut queues: Vec<Option<Queue>>) {
        queues.iter_mut().flatten().for_each(|queue| queue.give_way_to(&self.waiting));
        let mut engine = self.lock();
        if !self.needs_reset() {
            engine.queues = Queues(queues);
            engine.device.start(features);
            engine.running = true;
            self.tell(engine.device.as_mut());
        }
    }

    /// Stops one queue for good.
    pub(super) fn stop_queue(&self, index: u16) {
        if let Some(queue) = self.lock().queues.0.get_mut(usize::from(index)) {
            *queue = None;
        }
    }

    /// Device reset. When it returns, the device has let go of all queues and buffers.
    pub(super) fn reset(&self) {
        let mut engine = self.lock();
        engine.running = false;
        engine.queues.0.clear();
        engine.device.stop();
        self.tell(engine.device.as_mut());
        self.set_needs_reset(false);
        self.interrupt.reset();
    }

    /// Stops the device because of `refusal`: the record, DEVICE_NEEDS_RESET, a configuration change notification
    /// (virtio 1.3, 2.1.2).
    pub(super) fn refuse(&self, refusal: Refusal) {
        // A hostile driver can do this for ever; the record counts on, the log does not.
        if self.gate.audit().refuse(refusal) {
            log::warn!("{}: stopped until the driver resets it, after a refusal: {refusal}", self.name);
        }
        self.set_needs_reset(true);
        self.interrupt.config_change();
    }

    fn set_needs_reset(&self, needed: bool) {
        let next =
            |generation: u32| (generation % 2 != u32::from(needed)).then(|| generation.wrapping_add(1));
        // An error says that it was so already.
        let _ = self.config_generation.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// One turn at the queue with this `index`. `true` if there is more to do at once.
    pub fn serve(&self, index: u16) -> bool {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
            return true;
        }
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let Engine { device, queues, running, dma } = &mut *engine;
        if !*running || !*dma || self.needs_reset() {
            return false;
        }
        let served = device.serve(index, queues);
        self.tell(device.as_mut());
        match served {
            Ok(turn) => {
                if turn.interrupt {
                    self.interrupt.used_buffer(index);
                }
                turn.more
            }
            Err(refusal) => {
                *running = false;
                // What was served before is the driver's: let it know.
                self.interrupt.used_buffer(index);
                self.refuse(refusal);
                false
            }
        }
    }

    /// Logs what is new among the host's errors.
    fn tell(&self, device: &mut dyn DeviceType) {
        for news in device.host_errors().map(HostErrors::news).unwrap_or_default() {
            let HostError { operation, error, place, .. } = news;
            log::error!(
                "{}: {operation}, {place}: {error}; later errors of this kind are only counted",
                self.name
            );
        }
    }

    /// What went wrong on the host's side so far.
    pub(super) fn host_errors(&self) -> HostErrors {
        self.lock().device.host_errors().cloned().unwrap_or_default()
    }

    pub(super) fn host_fds(&self) -> Vec<(RawFd, u16)> {
        self.lock().device.host_fds()
    }

    /// How many wait for the engine.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The engine, between two turns.
    fn lock(&self) -> MutexGuard<'_, Engine> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        engine
    }
}

/// A device type and the queues it runs on.
#[derive(Debug)]
pub struct Engine {
    device: Box<dyn DeviceType>,
    queues: Queues,
    running: bool,
    /// The device may use the driver's memory.
    dma: bool,
}

#[cfg(test)]
mod tests;
