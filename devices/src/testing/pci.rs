// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver's side of virtio-pci, and a machine with a PCI bus. It finds its way as a driver does: vendor and device ID,
//! the list of capabilities (PCI 3.0, 6.7), and structures where these say (virtio 1.3, 4.1.4).

mod machine;

use std::rc::Rc;

use super::{RecordingSlot, Transport};
use crate::bus::Bus;
use crate::pool::Gate;
use crate::virtio::{Core, DeviceType, RestrictedDma, Worker};
pub(crate) use machine::{PciMachine, Plugged};

/// Where configuration space is.
pub(crate) const ECAM: u64 = 0xe000_0000;
/// Bytes of a BAR.
pub(crate) const BAR_SIZE: u64 = 0x8000;
/// Bits of the command register (PCI 3.0, 6.2.2).
pub(crate) const MEMORY: u64 = 2;
pub(crate) const BUS_MASTER: u64 = 4;
pub(crate) const INTERRUPT_DISABLE: u64 = 0x400;
/// Bits of MSI-X' message control (PCI 3.0, 6.8.2.3).
pub(crate) const MSIX_ENABLE: u64 = 0x8000;
pub(crate) const FUNCTION_MASK: u64 = 0x4000;

/// Reads `len` bytes as a number.
pub(crate) fn read(bus: &Bus, address: u64, len: usize) -> u64 {
    let mut data = [0; 8];
    data[..len].fill(0xaa);
    bus.read(address, &mut data[..len]);
    u64::from_le_bytes(data)
}

/// Writes a number of `len` bytes.
pub(crate) fn write(bus: &Bus, address: u64, len: usize, value: u64) {
    bus.write(address, &value.to_le_bytes()[..len]);
}

/// Where a driver found a structure in the BAR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The capability, in configuration space.
    pub(crate) at: u64,
}

/// A driver of a function, with its BAR wherever that is at the time.
#[derive(Clone)]
pub(crate) struct PciDriver {
    pub(crate) machine: Rc<PciMachine>,
    device: u8,
    pub(crate) common: Found,
    pub(crate) notify: Found,
    pub(crate) notify_multiplier: u64,
    pub(crate) isr: Found,
    pub(crate) config: Option<Found>,
    pub(crate) access: Found,
    /// The device's own memory, in BAR 2 (RFC of April 2025, 3/3).
    pub(crate) memory: Option<Found>,
    /// MSI-X: the capability, table and pending bits in the BAR, number of vectors.
    pub(crate) msix: u64,
    pub(crate) table: u64,
    pub(crate) pending: u64,
    pub(crate) vectors: u64,
}

impl PciDriver {
    /// Finds out where everything is, and turns the function on.
    pub(crate) fn probe(machine: &Rc<PciMachine>, device: u8) -> Self {
        let nowhere = Found { offset: 0, length: 0, at: 0 };
        let mut driver = Self {
            machine: Rc::clone(machine),
            device,
            common: nowhere,
            notify: nowhere,
            notify_multiplier: 0,
            isr: nowhere,
            config: None,
            access: nowhere,
            memory: None,
            msix: 0,
            table: 0,
            pending: 0,
            vectors: 0,
        };
        assert_eq!(driver.config_read(0x00, 2), 0x1af4);
        assert_eq!(driver.config_read(0x06, 2) & 0x10, 0x10, "there is a list of capabilities");
        let mut at = driver.config_read(0x34, 1);
        while at != 0 {
            let field = |offset, len| driver.config_read(at + offset, len);
            let found = Found { offset: field(8, 4), length: field(12, 4), at };
            match (field(0, 1), field(3, 1)) {
                (0x11, _) => {
                    assert_eq!((field(4, 4) & 7, field(8, 4) & 7), (0, 0), "in BAR 0");
                    let (table, pending) = (field(4, 4), field(8, 4));
                    let vectors = (field(2, 2) & 0x7ff) + 1;
                    (driver.msix, driver.table, driver.pending, driver.vectors) =
                        (at, table, pending, vectors);
                }
                (0x09, 1) => driver.common = found,
                (0x09, 2) => {
                    let multiplier = field(16, 4);
                    (driver.notify, driver.notify_multiplier) = (found, multiplier);
                }
                (0x09, 3) => driver.isr = found,
                (0x09, 4) => driver.config = Some(found),
                (0x09, 5) => driver.access = found,
                (0x09, 10) => driver.memory = Some(found),
                other => panic!("capability {other:?}"),
            }
            at = driver.config_read(at + 1, 1);
        }
        driver.set_command(MEMORY | BUS_MASTER);
        driver
    }

    pub(crate) fn plugged(&self) -> &Plugged {
        &self.machine.functions[usize::from(self.device) - 1]
    }

    pub(crate) fn slot(&self) -> &RecordingSlot {
        &self.plugged().slot
    }

    /// Guest-physical address of a register of configuration space.
    pub(crate) fn ecam(&self, offset: u64) -> u64 {
        ECAM + (u64::from(self.device) << 15) + offset
    }

    pub(crate) fn config_read(&self, offset: u64, len: usize) -> u64 {
        read(&self.machine.memory, self.ecam(offset), len)
    }

    pub(crate) fn config_write(&self, offset: u64, len: usize, value: u64) {
        write(&self.machine.memory, self.ecam(offset), len, value);
    }

    pub(crate) fn set_command(&self, command: u64) {
        self.config_write(0x04, 2, command);
    }

    /// Where the BAR is, as its two registers say.
    pub(crate) fn bar(&self) -> u64 {
        self.config_read(0x14, 4) << 32 | self.config_read(0x10, 4) & !0xf
    }

    /// Puts the BAR elsewhere: low half, high half.
    pub(crate) fn move_bar(&self, to: u64) {
        self.config_write(0x10, 4, to & 0xffff_ffff);
        self.config_write(0x14, 4, to >> 32);
    }

    /// Where BAR 2 is.
    pub(crate) fn memory_bar(&self) -> u64 {
        self.config_read(0x1c, 4) << 32 | self.config_read(0x18, 4) & !0xf
    }

    /// Puts BAR 2 elsewhere, likewise.
    pub(crate) fn move_memory(&self, to: u64) {
        self.config_write(0x18, 4, to & 0xffff_ffff);
        self.config_write(0x1c, 4, to >> 32);
    }

    /// Reads in the BAR.
    pub(crate) fn read(&self, offset: u64, len: usize) -> u64 {
        read(&self.machine.memory, self.bar() + offset, len)
    }

    /// Writes in the BAR.
    pub(crate) fn write(&self, offset: u64, len: usize, value: u64) {
        write(&self.machine.memory, self.bar() + offset, len, value);
    }

    /// Reads a field of the common configuration.
    pub(crate) fn get(&self, field: u64, len: usize) -> u64 {
        self.read(self.common.offset + field, len)
    }

    /// Writes a field of the common configuration.
    pub(crate) fn set(&self, field: u64, len: usize, value: u64) {
        self.write(self.common.offset + field, len, value);
    }

    pub(crate) fn select(&self, queue: u16) {
        self.set(0x16, 2, queue.into());
    }

    /// Offset in the BAR of a queue's notification address (4.1.4.4).
    pub(crate) fn notify_offset(&self, queue: u16) -> u64 {
        self.select(queue);
        self.notify.offset + self.get(0x1e, 2) * self.notify_multiplier
    }

    /// Message control of MSI-X.
    pub(crate) fn set_msix(&self, control: u64) {
        self.config_write(self.msix + 2, 2, control);
    }

    /// Writes a table entry (PCI 3.0, 6.8.2.6 to 6.8.2.9), its mask last.
    pub(crate) fn set_entry(&self, vector: u64, address: u64, data: u64, masked: bool) {
        let at = self.table + 16 * vector;
        self.write(at, 4, address & 0xffff_ffff);
        self.write(at + 4, 4, address >> 32);
        self.write(at + 8, 4, data);
        self.set_mask(vector, masked);
    }

    pub(crate) fn set_mask(&self, vector: u64, masked: bool) {
        self.write(self.table + 16 * vector + 12, 4, masked.into());
    }

    /// The first 64 pending bits.
    pub(crate) fn pending_bits(&self) -> u64 {
        self.read(self.pending, 8)
    }

    /// How many messages each vector has sent since the last call.
    pub(crate) fn take_messages(&self) -> Vec<u64> {
        let mut messages = Vec::new();
        let register = |_, fd: &vmm_sys_util::eventfd::EventFd| {
            messages.push(fd.read().unwrap_or(0));
            Ok::<_, ()>(())
        };
        self.plugged().interrupt.for_each_vector(register).unwrap();
        messages
    }
}

/// The driver of the one function of a machine, with MSI-X or with the interrupt pin.
pub(crate) struct Pci<const MSIX: bool>(pub(crate) PciDriver);

/// virtio-pci with MSI-X: a vector for each queue, and one for the configuration.
pub(crate) type PciMsix = Pci<true>;
/// virtio-pci with its interrupt pin.
pub(crate) type PciIntx = Pci<false>;

impl<const MSIX: bool> Pci<MSIX> {
    fn queues(&self) -> u16 {
        u16::try_from(self.0.get(0x12, 2)).unwrap()
    }
}

impl<const MSIX: bool> Transport for Pci<MSIX> {
    fn plug_saying(device: Box<dyn DeviceType>, gate: Gate, restricted: RestrictedDma) -> (Self, Worker) {
        let (machine, mut workers) = PciMachine::saying(vec![device], &gate, restricted);
        let driver = PciDriver::probe(&machine, 1);
        if MSIX {
            driver.set_msix(MSIX_ENABLE);
            (0..driver.vectors)
                .for_each(|vector| driver.set_entry(vector, 0xfee0_0000, 0x20 + vector, false));
        }
        let pci = Self(driver);
        pci.set_up_interrupts();
        (pci, workers.remove(0))
    }

    fn with_core<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        self.0.plugged().transport.with_core(look)
    }

    fn named_pool(&self) -> Option<(u64, u64)> {
        let wide = |low| self.0.get(low, 4) | self.0.get(low + 4, 4) << 32;
        (self.0.common.length >= 0x50).then(|| (wide(0x40), wide(0x48)))
    }

    fn device_id(&self) -> u32 {
        u32::try_from(self.0.config_read(0x02, 2) - 0x1040).unwrap()
    }
    fn status(&self) -> u8 {
        u8::try_from(self.0.get(0x14, 1)).unwrap()
    }
    fn set_status(&self, status: u8) {
        self.0.set(0x14, 1, status.into());
    }
    fn device_features(&self, select: u32) -> u32 {
        self.0.set(0x00, 4, select.into());
        u32::try_from(self.0.get(0x04, 4)).unwrap()
    }
    fn set_driver_features(&self, select: u32, bits: u32) {
        self.0.set(0x08, 4, select.into());
        self.0.set(0x0c, 4, bits.into());
    }
    fn max_queue_size(&self, queue: u16) -> u16 {
        self.0.select(queue);
        u16::try_from(self.0.get(0x18, 2)).unwrap()
    }
    fn set_queue_size(&self, queue: u16, size: u16) {
        self.0.select(queue);
        self.0.set(0x18, 2, size.into());
    }
    fn set_area(&self, queue: u16, area: usize, address: u64) {
        self.0.select(queue);
        let low = [0x20, 0x28, 0x30][area];
        self.0.set(low, 4, address & 0xffff_ffff);
        self.0.set(low + 4, 4, address >> 32);
    }
    fn enable_queue(&self, queue: u16) {
        self.0.select(queue);
        self.0.set(0x1c, 2, 1);
    }
    fn queue_enabled(&self, queue: u16) -> bool {
        self.0.select(queue);
        self.0.get(0x1c, 2) == 1
    }
    /// 4.1.5.2: "by writing the 16-bit virtqueue index of this virtqueue to the Queue Notify address".
    fn notify(&self, queue: u16) {
        let offset = match queue < self.queues() {
            true => self.0.notify_offset(queue),
            false => self.0.notify.offset + u64::from(queue) * self.0.notify_multiplier,
        };
        self.0.write(offset, 2, queue.into());
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let at = self.0.bar() + self.0.config.unwrap().offset + offset;
        self.0.machine.memory.read(at, data);
    }
    fn write_config(&self, offset: u64, data: &[u8]) {
        let at = self.0.bar() + self.0.config.unwrap().offset + offset;
        self.0.machine.memory.write(at, data);
    }
    fn config_generation(&self) -> u8 {
        u8::try_from(self.0.get(0x15, 1)).unwrap()
    }

    fn set_up_interrupts(&self) {
        if MSIX {
            let queues = self.queues();
            for queue in 0..queues {
                self.0.select(queue);
                self.0.set(0x1a, 2, queue.into());
                assert_eq!(self.0.get(0x1a, 2), u64::from(queue));
            }
            self.0.set(0x10, 2, queues.into());
            assert_eq!(self.0.get(0x10, 2), u64::from(queues));
        }
    }

    /// 4.1.5.3 and 4.1.5.4.
    fn take_interrupts(&self) -> (bool, bool) {
        let asserted = self.0.slot().pin();
        if MSIX {
            assert!(!asserted, "MSI-X and the pin");
            let messages = self.0.take_messages();
            let (config, queues) = messages.split_last().unwrap();
            return (queues.iter().any(|count| *count > 0), *config > 0);
        }
        assert!(self.0.take_messages().iter().all(|count| *count == 0), "the pin and MSI-X");
        let isr = self.0.read(self.0.isr.offset, 1);
        assert_eq!(asserted, isr != 0, "the pin goes with ISR status {isr:#x}");
        assert!(!self.0.slot().pin());
        (isr & 1 != 0, isr & 2 != 0)
    }

    fn discard_interrupts(&self) {
        self.0.read(self.0.isr.offset, 1);
        self.0.take_messages();
    }
}
