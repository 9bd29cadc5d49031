// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts of a virtio-pci device: MSI-X vectors for queues and configuration, or ISR status and the interrupt pin
//! (virtio 1.3, 4.1.5.3 and 4.1.5.4).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::pci::{Msix, Slot, command};
use crate::pool::Refusal;
use crate::virtio::Interrupt;

/// The vector register of what sends no message (virtio 1.3, 4.1.4.3, VIRTIO_MSI_NO_VECTOR).
pub const NO_VECTOR: u16 = 0xffff;

/// Bits of ISR status (virtio 1.3, 4.1.4.5).
mod isr {
    pub const QUEUE: u8 = 1;
    pub const CONFIG: u8 = 2;
}

/// The interrupts of one device. The worker raises them without the registers' lock.
#[derive(Debug)]
pub struct PciInterrupt {
    state: Mutex<State>,
    slot: Arc<dyn Slot>,
}

#[derive(Debug)]
struct State {
    msix: Msix,
    /// config_msix_vector.
    config_vector: u16,
    /// queue_msix_vector of each queue.
    queue_vectors: Vec<u16>,
    isr: u8,
    /// The driver has disabled the pin.
    pin_disabled: bool,
    /// What the slot was told last.
    pin: bool,
}

impl PciInterrupt {
    /// The interrupts of a device with `queues` queues: a vector for each, and one for changes of the configuration.
    pub fn new(queues: u16, slot: Arc<dyn Slot>) -> io::Result<Self> {
        let state = State {
            msix: Msix::new(queues.saturating_add(1))?,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues.into()],
            isr: 0,
            pin_disabled: false,
            pin: false,
        };
        Ok(Self { state: Mutex::new(state), slot })
    }

    /// Looks at the vectors' eventfds, in the order of the vectors, to register them as irqfds.
    pub fn for_each_vector<E>(
        &self,
        mut register: impl FnMut(u16, &EventFd) -> Result<(), E>,
    ) -> Result<(), E> {
        (0..).zip(self.lock().msix.fds()).try_for_each(|(vector, fd)| register(vector, fd))
    }

    /// The function's command register and MSI-X control word were written.
    pub(super) fn configure(&self, command: u16, control: u16) -> Result<(), Refusal> {
        let mut state = self.lock();
        let bus_master = command & command::BUS_MASTER != 0;
        let result = state.msix.configure(control, bus_master, &*self.slot);
        state.pin_disabled = command & command::INTERRUPT_DISABLE != 0;
        state.update_pin(&*self.slot);
        result
    }

    /// Looks at the messages that are in effect once more.
    pub(super) fn check_messages(&self) -> Result<(), Refusal> {
        self.lock().msix.update_all(&*self.slot)
    }

    /// Interrupt Status of the status register (virtio 1.3, 4.1.4.5.1).
    pub(super) fn status(&self) -> bool {
        self.lock().wants_pin()
    }

    /// The driver reads ISR status, which clears it and releases the pin.
    pub(super) fn take_isr(&self) -> u8 {
        let mut state = self.lock();
        let isr = std::mem::take(&mut state.isr);
        state.update_pin(&*self.slot);
        isr
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.lock().config_vector
    }

    /// A vector that is not there is none, and reads back so (virtio 1.3, 4.1.5.1.2.1).
    pub(super) fn set_config_vector(&self, vector: u16) {
        let mut state = self.lock();
        state.config_vector = if state.msix.has(vector) { vector } else { NO_VECTOR };
    }

    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        self.lock().queue_vectors.get(usize::from(queue)).copied().unwrap_or(NO_VECTOR)
    }

    pub(super) fn set_queue_vector(&self, queue: u16, vector: u16) {
        let mut state = self.lock();
        let vector = if state.msix.has(vector) { vector } else { NO_VECTOR };
        if let Some(entry) = state.queue_vectors.get_mut(usize::from(queue)) {
            *entry = vector;
        }
    }

    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        self.lock().msix.read_table(offset, data);
    }

    pub(super) fn write_table(&self, offset: u64, data: &[u8]) -> Result<(), Refusal> {
        self.lock().msix.write_table(offset, data, &*self.slot)
    }

    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        self.lock().msix.read_pending(offset, data);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends the message of `vector`, or asserts the pin.
    fn raise(&mut self, vector: u16, slot: &dyn Slot) {
        if self.msix.enabled() {
            self.msix.signal(vector, slot);
        } else {
            self.update_pin(slot);
        }
    }

    fn wants_pin(&self) -> bool {
        self.isr != 0 && !self.msix.enabled()
    }

    fn update_pin(&mut self, slot: &dyn Slot) {
        let pin = self.wants_pin() && !self.pin_disabled;
        if std::mem::replace(&mut self.pin, pin) != pin {
            slot.set_pin(pin);
        }
    }
}

impl Interrupt for PciInterrupt {
    fn used_buffer(&self, queue: u16) {
        let mut state = self.lock();
        if !state.msix.enabled() {
            state.isr |= isr::QUEUE;
        }
        let vector = state.queue_vectors.get(usize::from(queue)).copied().unwrap_or(NO_VECTOR);
        state.raise(vector, &*self.slot);
    }

    /// The configuration bit is set whether or not MSI-X is enabled (virtio 1.3, 4.1.4.5.1).
    fn config_change(&self) {
        let mut state = self.lock();
        state.isr |= isr::CONFIG;
        let vector = state.config_vector;
        state.raise(vector, &*self.slot);
    }

    fn reset(&self) {
        let mut state = self.lock();
        state.isr = 0;
        state.config_vector = NO_VECTOR;
        state.queue_vectors.fill(NO_VECTOR);
        state.msix.clear_pending();
        state.update_pin(&*self.slot);
    }
}
