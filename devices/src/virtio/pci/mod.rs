// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtio over PCI, as a function that is not transitional (virtio 1.3, 4.1): a register layout over [`Core`].

mod common;
mod interrupt;
pub mod layout;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvmm_firmware::Range;

pub use interrupt::{NO_VECTOR, PciInterrupt};

use super::status::bit;
use super::{Core, EventFds};
use crate::bus::BusDevice;
use crate::pci::{ConfigSpace, Function, Slot, command};
use crate::pool::{Pool, Refusal};
use common::Common;
use layout::{COMMON, DEVICE, ISR, MSIX_PENDING, MSIX_TABLE, NOTIFY, NOTIFY_OFF_MULTIPLIER, Offsets};

/// Offset in the BAR of the notification address of the queue with this index, for ioeventfds.
pub fn notify_offset(queue: u16) -> u64 {
    NOTIFY.base() + u64::from(queue) * u64::from(NOTIFY_OFF_MULTIPLIER)
}

/// A virtio device as a PCI function.
#[derive(Debug)]
pub struct PciTransport {
    registers: Mutex<Registers>,
    interrupt: Arc<PciInterrupt>,
    notifications: Arc<EventFds>,
    slot: Arc<dyn Slot>,
    /// Where it answers: what the slot was told last. Not among the registers, whose lock a reset may hold for long.
    window: Mutex<Option<Range>>,
}

#[derive(Debug)]
struct Registers {
    core: Core,
    common: Common,
    space: ConfigSpace,
    offsets: Offsets,
    /// It may use memory.
    bus_master: bool,
    /// Where BAR 2 is: what the slot was told last.
    memory: Option<Range>,
}

/// A device with more queues than vectors fit the BAR, whose capabilities don't fit, or whose memory does not fit BAR 2.
#[derive(Debug, thiserror::Error)]
#[error("the device does not fit virtio-pci's layout")]
pub struct DoesNotFit;

impl PciTransport {
    /// The function of `core`'s device, whose interrupt must be `interrupt`, in `slot`, with its BAR at `bar`.
    ///
    /// As after a reset of PCI, it answers at no address and may not use memory: the guest has to say so.
    pub fn new(
        core: Core,
        interrupt: Arc<PciInterrupt>,
        notifications: Arc<EventFds>,
        slot: Arc<dyn Slot>,
        bar: Range,
    ) -> Result<Self, DoesNotFit> {
        let queues = u16::try_from(core.queue_count()).map_err(|_| DoesNotFit)?;
        if queues > layout::MAX_QUEUES {
            return Err(DoesNotFit);
        }
        let (space, offsets) =
            layout::config_space(core.kind(), queues, core.config_len(), core.named_pool().is_some(), bar)
                .ok_or(DoesNotFit)?;
        core.handle().allow_dma(false);
        let registers =
            Registers { core, common: Common::default(), space, offsets, bus_master: false, memory: None };
        Ok(Self {
            registers: Mutex::new(registers),
            interrupt,
            notifications,
            slot,
            window: Mutex::new(None),
        })
    }

    /// The same with the device's pool on the device, as the RFC of April 2025 has it: BAR 2 at `bar`, as large as the pool,
    /// and a capability that says so. The pool is where the guest puts the BAR; at first it is nowhere.
    pub fn with_device_memory(mut self, bar: Range) -> Result<Self, DoesNotFit> {
        let registers = self.registers.get_mut().unwrap_or_else(PoisonError::into_inner);
        let pool = registers.core.pool();
        if pool.size() != bar.size() {
            return Err(DoesNotFit);
        }
        pool.move_to(None);
        layout::add_device_memory(&mut registers.space, bar).ok_or(DoesNotFit)?;
        Ok(self)
    }

    /// Looks at the core: for the report.
    pub fn with_core<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.lock().core)
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_window(&self) -> MutexGuard<'_, Option<Range>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest reads in the BAR. Accesses that a structure does not have read as zeros.
    fn read_bar(&self, registers: &Registers, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some((structure, at)) = structure(offset, data.len()) else { return };
        match structure {
            Structure::Common => registers.common.read(&registers.core, &self.interrupt, at, data),
            Structure::Isr => data.fill(self.interrupt.take_isr()),
            Structure::Device => registers.core.read_config(at, data),
            Structure::Notify => {}
            Structure::MsixTable => self.interrupt.read_table(at, data),
            Structure::MsixPending => self.interrupt.read_pending(at, data),
        }
    }

    fn write_bar(&self, registers: &mut Registers, offset: u64, data: &[u8]) {
        let Some((structure, at)) = structure(offset, data.len()) else { return };
        match structure {
            Structure::Common => {
                let before = registers.core.status();
                registers.common.write(&mut registers.core, &self.interrupt, at, data);
                // A message that was refused before a reset is still wrong if the driver left it as it was.
                if !before & registers.core.status() & bit::DRIVER_OK != 0 {
                    let result = self.interrupt.check_messages();
                    record(registers, result);
                }
            }
            // One address a queue: what is written does not matter.
            Structure::Notify => {
                if let Ok(queue) = u32::try_from(at / u64::from(NOTIFY_OFF_MULTIPLIER)) {
                    self.notifications.notify(queue);
                }
            }
            Structure::MsixTable => {
                let result = self.interrupt.write_table(at, data);
                record(registers, result);
            }
            // The configuration spaces of our devices are read-only.
            Structure::Isr | Structure::Device | Structure::MsixPending => {}
        }
    }

    /// Acts on the registers of configuration space that the guest may have written.
    fn apply(&self, registers: &mut Registers) {
        let command = registers.space.command();
        let control = u16::from_le_bytes(registers.space.get(registers.offsets.msix_control));
        let bus_master = command & command::BUS_MASTER != 0;
        if std::mem::replace(&mut registers.bus_master, bus_master) != bus_master {
            registers.core.handle().allow_dma(bus_master);
            // What the driver asked for while the device could not do it.
            if bus_master {
                self.notifications.notify_all();
            }
        }
        let result = self.interrupt.configure(command, control);
        record(registers, result);
        let memory = registers.space.memory();
        if std::mem::replace(&mut registers.memory, memory) != memory {
            self.move_memory(registers.core.pool(), memory);
        }
        let window = registers.space.window();
        // Not held while the slot, which may take long, is told: the registers' lock keeps that in order.
        let before = std::mem::replace(&mut *self.lock_window(), window);
        if before != window {
            self.slot.map(window);
        }
    }

    /// The pool goes where the guest put BAR 2, if CPUs reach it there: an address means the same to them and to the device.
    fn move_memory(&self, pool: &Pool, window: Option<Range>) {
        pool.move_to(None);
        if self.slot.map_memory(window) {
            pool.move_to(window.map(|window| window.base()));
        }
    }
}

/// A refused message stops the device like any other address that is refused.
fn record(registers: &Registers, result: Result<(), Refusal>) {
    if let Err(refusal) = result {
        registers.core.handle().refuse(refusal);
    }
}

#[derive(Clone, Copy, Debug)]
enum Structure {
    Common,
    Isr,
    Device,
    Notify,
    MsixTable,
    MsixPending,
}

/// The structure that has all of an access, and the access's offset in it.
fn structure(offset: u64, len: usize) -> Option<(Structure, u64)> {
    let access = Range::new(offset, u64::try_from(len).ok()?)?;
    let structures = [
        (COMMON, Structure::Common),
        (ISR, Structure::Isr),
        (DEVICE, Structure::Device),
        (NOTIFY, Structure::Notify),
        (MSIX_TABLE, Structure::MsixTable),
        (MSIX_PENDING, Structure::MsixPending),
    ];
    let (range, structure) = structures.into_iter().find(|(range, _)| range.contains(&access))?;
    Some((structure, offset - range.base()))
}

/// The PCI configuration access capability (virtio 1.3, 4.1.4.9): the BAR through configuration space.
struct Access {
    /// Where pci_cfg_data is.
    data: usize,
    /// In the BAR.
    offset: u64,
    len: usize,
}

impl Registers {
    /// What a driver's access at `offset` of configuration space does to the BAR, if it is one to pci_cfg_data. How many
    /// bytes is the capability's length, and not the width with which the driver reaches the data (4.1.4.9.1).
    fn access(&self, offset: usize) -> Option<Access> {
        /// Distances from the capability's start.
        const BAR: usize = 4;
        const OFFSET: usize = 8;
        const LENGTH: usize = 12;
        const DATA: usize = 16;
        let at = self.offsets.access;
        let length = u32::from_le_bytes(self.space.get(at + LENGTH));
        let target = u64::from(u32::from_le_bytes(self.space.get(at + OFFSET)));
        let valid = self.space.get(at + BAR) == [0]
            && matches!(length, 1 | 2 | 4)
            && target.is_multiple_of(u64::from(length));
        let data = at + DATA;
        let hit = (data..data + 4).contains(&offset);
        (valid && hit).then_some(Access { data, offset: target, len: usize::try_from(length).ok()? })
    }
}

impl Function for PciTransport {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut registers = self.lock();
        if let Some(access) = registers.access(offset) {
            let mut window = [0; 4];
            let window = window.get_mut(..access.len).unwrap_or_default();
            self.read_bar(&registers, access.offset, window);
            registers.space.write(access.data, window);
        }
        registers.space.set_interrupt_status(self.interrupt.status());
        registers.space.read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        let mut registers = self.lock();
        registers.space.write(offset, data);
        if let Some(access) = registers.access(offset) {
            let window = registers.space.get::<4>(access.data);
            self.write_bar(&mut registers, access.offset, window.get(..access.len).unwrap_or_default());
        }
        self.apply(&mut registers);
    }

    fn window(&self) -> Option<Range> {
        *self.lock_window()
    }
}

impl BusDevice for PciTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = self.lock();
        self.read_bar(&registers, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut registers = self.lock();
        self.write_bar(&mut registers, offset, data);
    }
}

#[cfg(test)]
mod tests;
