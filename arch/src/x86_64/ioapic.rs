// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! I/O APIC (Intel 82093AA datasheet). KVM has the local APICs (split irqchip); the redirection table becomes KVM's
//! interrupt routes, so that a device's irqfd reaches a CPU without an exit.
//!
//! Most lines of this machine are edge-triggered: a pulse of an irqfd. The lines of PCI are level-triggered: devices
//! assert and release them with [`IoApic::set_line`], and the pin sends a message again after each EOI for as long as
//! a device asserts it. A pin that a guest configures wrongly loses interrupts, of that guest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::irq::{Msi, Routes};
use super::layout::IO_APIC_PINS;

const PINS: usize = IO_APIC_PINS as usize;

/// Register select, and the window to the selected register.
const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;

/// Selected registers.
const IOAPICID: u8 = 0x00;
const IOAPICVER: u8 = 0x01;
const IOAPICARB: u8 = 0x02;
const IOREDTBL: u8 = 0x10;

const VERSION: u32 = 0x11 | (IO_APIC_PINS - 1) << 16;
const ID_MASK: u32 = 0x0f00_0000;

/// Fields of a redirection table entry (datasheet, 3.2.4).
const VECTOR: u64 = 0xff;
const DELIVERY_MODE: u64 = 0x700;
const LOGICAL_DESTINATION: u64 = 1 << 11;
const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL_TRIGGERED: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const DESTINATION_SHIFT: u32 = 56;
/// What a write can't change.
const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR;
/// Bits that exist.
const DEFINED: u64 = 0xff00_0000_0001_ffff;

/// Where a message for the local APICs is written (Intel SDM 3A, 11.11.1).
const MSI_BASE: u64 = 0xfee0_0000;

/// The machine's I/O APIC.
#[derive(Debug)]
pub struct IoApic {
    registers: Mutex<Registers>,
    routes: Arc<Routes>,
}

#[derive(Debug)]
struct Registers {
    select: u8,
    id: u32,
    entries: [u64; PINS],
    /// How many devices assert the line of each pin.
    asserted: [u32; PINS],
}

impl IoApic {
    /// All pins masked.
    pub fn new(routes: Arc<Routes>) -> Self {
        Self { registers: Mutex::new(Registers::new()), routes }
    }

    /// A device asserts the line of `pin`, or releases it. It must keep count: devices share lines.
    pub fn set_line(&self, pin: u32, asserted: bool) {
        let mut registers = self.lock();
        let Some(pin) = usize::try_from(pin).ok().filter(|pin| *pin < PINS) else { return };
        let count = &mut registers.asserted[pin];
        *count = if asserted { count.saturating_add(1) } else { count.saturating_sub(1) };
        self.send(&mut registers, pin);
    }

    /// Sends the message of a level-triggered pin if it is due.
    fn send(&self, registers: &mut Registers, pin: usize) {
        // Without an APIC that took it there will be no EOI.
        if registers.due(pin).is_some_and(|message| self.routes.signal(message)) {
            registers.entries[pin] |= REMOTE_IRR;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest reads at `offset` of the window. Registers are 32 bits wide.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = self.lock();
        let value = match offset {
            IOREGSEL => u32::from(registers.select),
            IOWIN => registers.read(),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    /// The guest writes at `offset` of the window.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return };
        let mut registers = self.lock();
        match offset {
            IOREGSEL => [registers.select, ..] = value.to_le_bytes(),
            IOWIN => {
                if let Some((pin, entry)) = registers.write(value) {
                    self.routes.set(pin, message(entry));
                    self.send(&mut registers, pin as usize);
                }
            }
            _ => {}
        }
    }

    /// A local APIC was told the end of the level-triggered interrupt `vector`.
    pub fn end_of_interrupt(&self, vector: u8) {
        let mut registers = self.lock();
        for pin in 0..PINS {
            let entry = &mut registers.entries[pin];
            if *entry & LEVEL_TRIGGERED != 0 && *entry & VECTOR == u64::from(vector) {
                *entry &= !REMOTE_IRR;
                self.send(&mut registers, pin);
            }
        }
    }
}

impl Registers {
    fn new() -> Self {
        Self { select: 0, id: 0, entries: [MASKED; PINS], asserted: [0; PINS] }
    }

    /// The message that a level-triggered pin has to send now, unless it waits for an EOI.
    fn due(&self, pin: usize) -> Option<Msi> {
        let entry = self.entries[pin];
        let wanted = self.asserted[pin] > 0 && entry & LEVEL_TRIGGERED != 0 && entry & REMOTE_IRR == 0;
        message(entry).filter(|_| wanted)
    }

    fn read(&self) -> u32 {
        match self.select {
            IOAPICID | IOAPICARB => self.id,
            IOAPICVER => VERSION,
            select => match self.entry(select) {
                Some((pin, shift)) => (self.entries[pin] >> shift & 0xffff_ffff) as u32,
                None => 0,
            },
        }
    }

    /// Returns the pin whose entry changed, and the entry.
    fn write(&mut self, value: u32) -> Option<(u32, u64)> {
        if self.select == IOAPICID {
            self.id = value & ID_MASK;
        }
        let (pin, shift) = self.entry(self.select)?;
        let writable = (0xffff_ffff << shift) & DEFINED & !READ_ONLY;
        let entry = &mut self.entries[pin];
        *entry = *entry & !writable | u64::from(value) << shift & writable;
        // An edge-triggered pin has no Remote IRR. KVM does not tell of the EOI of a pin that has no route, so a masked
        // one must not wait for it.
        if *entry & LEVEL_TRIGGERED == 0 || *entry & MASKED != 0 {
            *entry &= !REMOTE_IRR;
        }
        Some((u32::try_from(pin).ok()?, *entry))
    }

    /// Pin and shift of the half of a redirection table entry that `select` names.
    fn entry(&self, select: u8) -> Option<(usize, u32)> {
        let index = select.checked_sub(IOREDTBL)?;
        let pin = usize::from(index / 2);
        (pin < PINS).then_some((pin, u32::from(index % 2) * 32))
    }
}

/// The message that a pin with this entry sends; none while it is masked.
fn message(entry: u64) -> Option<Msi> {
    if entry & MASKED != 0 {
        return None;
    }
    let destination = entry >> DESTINATION_SHIFT;
    let logical = entry & LOGICAL_DESTINATION != 0;
    Some(Msi {
        address: MSI_BASE | destination << 12 | u64::from(logical) << 2,
        data: (entry & (VECTOR | DELIVERY_MODE | LEVEL_TRIGGERED)) as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        Registers::new()
    }

    #[test]
    fn a_redirection_entry_is_written_in_halves_and_read_back() {
        let mut r = registers();
        r.select = 0x10 + 2 * 5 + 1;
        assert_eq!(r.write(0xff00_0000 | 0x1234), Some((5, 0xff00_0000_0001_0000)));
        r.select -= 1;
        // Remote IRR and delivery status can't be written.
        let (pin, entry) = r.write(0x5931 | 0x4000).unwrap();
        assert_eq!((pin, entry), (5, 0xff00_0000_0000_0931));
        assert_eq!(r.read(), 0x0931);
        assert_eq!(message(entry), Some(Msi { address: 0xfeef_f004, data: 0x0131 }));
    }

    #[test]
    fn a_level_triggered_pin_sends_until_its_line_is_released() {
        let mut r = registers();
        (r.entries[60], r.asserted[60]) = (0x31 | LEVEL_TRIGGERED, 2);
        let message = Some(Msi { address: MSI_BASE, data: 0x8031 });
        assert_eq!(r.due(60), message);
        r.entries[60] |= REMOTE_IRR;
        assert_eq!(r.due(60), None, "one message for each EOI");
        // Masked and unmasked, it does not wait for an EOI that nobody tells of.
        r.select = 0x10 + 2 * 60;
        assert_eq!(r.write(0x1_8031), Some((60, 0x1_8031)));
        assert_eq!(r.due(60), None);
        r.write(0x8031);
        assert_eq!(r.due(60), message);
        (r.entries[60], r.asserted[60]) = (0x31 | LEVEL_TRIGGERED, 0);
        assert_eq!(r.due(60), None);
        (r.entries[60], r.asserted[60]) = (0x31, 1);
        assert_eq!(r.due(60), None, "edges come by irqfd");
    }

    #[test]
    fn a_masked_pin_sends_nothing() {
        assert_eq!(message(MASKED | 0x31), None);
    }

    #[test]
    fn registers_that_do_not_exist_read_zero_and_take_no_write() {
        let mut r = registers();
        for select in (3..0x10).chain(0x90..=0xff) {
            r.select = select;
            assert_eq!((r.write(u32::MAX), r.read()), (None, 0), "{select:#x}");
        }
        r.select = IOAPICVER;
        assert_eq!(r.write(0), None);
        assert_eq!(r.read(), 0x003f_0011);
    }

    fn select(io_apic: &IoApic, register: u8) {
        io_apic.write(IOREGSEL, &u32::from(register).to_le_bytes());
    }

    /// Vector 0x31, level-triggered, for APIC 0; and its register.
    const LEVEL: u32 = 0x8031;
    const LOW_60: u8 = 0x10 + 2 * 60;

    fn entry_60(io_apic: &IoApic) -> u32 {
        select(io_apic, LOW_60);
        let mut data = [0; 4];
        io_apic.read(IOWIN, &mut data);
        u32::from_le_bytes(data)
    }

    /// Says so past the capture of tests that pass; `cargo lab test` counts such lines.
    fn not_tested(why: &str) {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("NOT TESTED: {why}\n").as_bytes());
    }

    /// With KVM's local APIC, which runs no guest here: it accepts messages when it is enabled.
    #[test]
    fn remote_irr_is_set_by_acceptance_and_cleared_by_eoi() {
        let Ok(kvm) = kvm_ioctls::Kvm::new() else {
            return not_tested("there is no /dev/kvm");
        };
        let vm = Arc::new(kvm.create_vm().unwrap());
        super::super::create_irqchip(&vm).unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        let io_apic = IoApic::new(Arc::new(Routes::new(vm)));
        select(&io_apic, LOW_60);
        io_apic.write(IOWIN, &LEVEL.to_le_bytes());
        // The local APIC is disabled, as at reset: nobody takes the message, and nobody will tell of its end.
        io_apic.set_line(60, true);
        assert_eq!(entry_60(&io_apic), LEVEL);

        let mut apic = vcpu.get_lapic().unwrap();
        // Spurious interrupt vector register, bit 8: enabled (Intel SDM 3A, 11.9).
        apic.regs[0xf1] = 1;
        vcpu.set_lapic(&apic).unwrap();
        io_apic.write(IOWIN, &LEVEL.to_le_bytes());
        assert_eq!(entry_60(&io_apic), LEVEL | 0x4000);
        // Another device shares the line: the end of the interrupt is the start of the next.
        io_apic.set_line(60, true);
        io_apic.set_line(60, false);
        io_apic.end_of_interrupt(0x31);
        assert_eq!(entry_60(&io_apic), LEVEL | 0x4000);
        io_apic.set_line(60, false);
        io_apic.end_of_interrupt(0x31);
        assert_eq!(entry_60(&io_apic), LEVEL);
    }
}
