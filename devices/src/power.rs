// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a guest ends itself. With a device tree: a power control register for `syscon-poweroff` and `syscon-reboot`. With ACPI:
//! its sleep and reset registers. With either: what a PC has, the reset control register and the keyboard controller's reset
//! line; and the pvpanic event register.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::bus::BusDevice;

/// Written to the power control register: power off.
pub const POWER_OFF: u32 = 0x5555;
/// Written to the power control register: reset.
pub const RESET: u32 = 0x7777;

/// The sleep type of ACPI's `\_S5`: power off.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// Written to ACPI's reset register: reset.
pub const ACPI_RESET: u8 = 1;

/// Sleep control register (ACPI 6.5, 4.8.3.7): SLP_EN, and the position of SLP_TYP.
const SLP_EN: u8 = 1 << 5;
const SLP_TYP_SHIFT: u8 = 2;

/// pvpanic events (QEMU, docs/specs/pvpanic.rst): the guest panicked.
const PVPANIC_PANICKED: u8 = 1;

/// By which register a guest asked for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The power control register.
    PowerControl,
    /// ACPI's sleep control or reset register.
    Acpi,
    /// The keyboard controller.
    Keyboard,
    /// The reset control register.
    ResetControl,
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Means::PowerControl => "power control register",
            Means::Acpi => "ACPI",
            Means::Keyboard => "keyboard controller",
            Means::ResetControl => "reset control register",
        })
    }
}

/// What a guest asks for, or says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// Power off.
    PowerOff(Means),
    /// Reset.
    Reset(Means),
    /// The kernel panicked, as the pvpanic register says.
    Panicked,
    /// A warm reset. cvmm's command line asks Linux for one after a panic, and for a cold reset otherwise.
    WarmReset,
}

/// Called on a vCPU thread with what the guest asked for.
pub type Handler = Arc<dyn Fn(GuestEvent) + Send + Sync>;

macro_rules! register {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Handler);

        impl $name {
            /// A register that tells `handler`.
            pub fn new(handler: Handler) -> Self {
                Self(handler)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

register! {
    /// The power control register: 32 bits, write only.
    PowerControl
}
register! {
    /// ACPI's sleep control, sleep status and reset registers, one byte each.
    SleepRegisters
}
register! {
    /// The pvpanic register: 8 bits; reads say which events are understood.
    PvPanic
}
register! {
    /// Command port (0x64) of a PC's keyboard controller, of which only "pulse the reset line" is there: it is how
    /// Linux resets an x86 machine without ACPI.
    KeyboardReset
}

/// The reset control register of a PC's chipset, one byte at port 0xcf9 (Intel 500 Series PCH datasheet, RST_CNT): a reset as
/// RST_CPU becomes 1, a cold one with FULL_RST.
pub struct ResetControl {
    value: AtomicU8,
    handler: Handler,
}

const RST_CPU: u8 = 1 << 2;
const FULL_RST: u8 = 1 << 3;

impl ResetControl {
    /// A register that tells `handler`.
    pub fn new(handler: Handler) -> Self {
        Self { value: AtomicU8::new(0), handler }
    }
}

impl fmt::Debug for ResetControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetControl")
    }
}

impl BusDevice for ResetControl {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (0, [byte]) = (offset, data) {
            *byte = self.value.load(Ordering::Relaxed);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (0, &[value]) = (offset, data) {
            let before = self.value.swap(value, Ordering::Relaxed);
            if value & !before & RST_CPU != 0 {
                let cold = value & FULL_RST != 0;
                let event = if cold { GuestEvent::Reset(Means::ResetControl) } else { GuestEvent::WarmReset };
                (self.handler)(event);
            }
        }
    }
}

/// "Pulse output port bit 0", which is the CPU's reset line.
const KEYBOARD_PULSE_RESET: u8 = 0xfe;

impl BusDevice for PowerControl {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let value = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
        match (offset, value) {
            (0, Ok(POWER_OFF)) => (self.0)(GuestEvent::PowerOff(Means::PowerControl)),
            (0, Ok(RESET)) => (self.0)(GuestEvent::Reset(Means::PowerControl)),
            _ => log::debug!("power control: unknown value {data:?} at {offset}"),
        }
    }
}

impl BusDevice for SleepRegisters {
    /// Sleep status: the machine never woke up. The others are write-only.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, [control]) if control & SLP_EN != 0 && control >> SLP_TYP_SHIFT & 7 == SLEEP_TYPE_OFF => {
                (self.0)(GuestEvent::PowerOff(Means::Acpi));
            }
            (2, [ACPI_RESET]) => (self.0)(GuestEvent::Reset(Means::Acpi)),
            _ => log::debug!("sleep registers: unknown value {data:?} at {offset}"),
        }
    }
}

impl BusDevice for PvPanic {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(events) = data.first_mut() {
            *events = PVPANIC_PANICKED;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data.first().is_some_and(|events| events & PVPANIC_PANICKED != 0) {
            (self.0)(GuestEvent::Panicked);
        }
    }
}

impl BusDevice for KeyboardReset {
    /// Status: no byte waits in either direction, so a driver need not wait.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data.first() == Some(&KEYBOARD_PULSE_RESET) {
            (self.0)(GuestEvent::Reset(Means::Keyboard));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What was asked for since the last call.
    type Events = Arc<Mutex<Vec<GuestEvent>>>;

    fn register<T>(new: fn(Handler) -> T) -> (T, Events) {
        let events = Events::default();
        let log = Arc::clone(&events);
        (new(Arc::new(move |event| log.lock().unwrap().push(event))), events)
    }

    fn take(events: &Events) -> Vec<GuestEvent> {
        std::mem::take(&mut events.lock().unwrap())
    }

    /// ACPI 6.5, 4.8.3.7, sleep control register: SLP_TYP is bits 2 to 4, SLP_EN bit 5; the others mean
    /// nothing to us. One byte.
    #[test]
    fn sleep_control_powers_off_with_the_type_of_s5() {
        let (registers, events) = register(SleepRegisters::new);
        for control in 0..=u8::MAX {
            registers.write(0, &[control]);
            let off = control & 0b0010_0000 != 0 && (control & 0b0001_1100) >> 2 == SLEEP_TYPE_OFF;
            assert_eq!(take(&events), vec![GuestEvent::PowerOff(Means::Acpi); off.into()], "{control:#x}");
        }
        let off = 0x20 | SLEEP_TYPE_OFF << 2;
        for data in [&[off, 0][..], &[0, off], &[off, 0, 0, 0], &[off; 4], &[off; 8]] {
            registers.write(0, data);
            assert_eq!(take(&events), []);
        }
        for offset in [1, 2, 3, u64::MAX] {
            registers.write(offset, &[off]);
            assert_eq!(take(&events), []);
        }
    }

    /// ACPI 6.5, 4.8.3.6: the reset register takes RESET_VALUE, one byte.
    #[test]
    fn the_reset_register_resets() {
        let (registers, events) = register(SleepRegisters::new);
        for value in 0..=u8::MAX {
            registers.write(2, &[value]);
            assert_eq!(
                take(&events),
                vec![GuestEvent::Reset(Means::Acpi); (value == ACPI_RESET).into()],
                "{value}"
            );
        }
        for (offset, data) in
            [(0, &[ACPI_RESET][..]), (1, &[ACPI_RESET]), (2, &[ACPI_RESET, 0]), (3, &[ACPI_RESET])]
        {
            registers.write(offset, data);
            assert_eq!(take(&events), []);
        }
    }

    /// ACPI 6.5, 4.8.3.8: WAK_STS, bit 7 of the sleep status register, is clear: the machine never slept.
    #[test]
    fn sleep_status_is_zero_and_the_rest_is_write_only() {
        let (registers, events) = register(SleepRegisters::new);
        for offset in 0..3 {
            for len in [1, 2, 4, 8] {
                let mut data = vec![0xaa; len];
                registers.read(offset, &mut data);
                assert_eq!(data, vec![0; len]);
            }
        }
        assert_eq!(take(&events), []);
    }

    /// As Linux writes it (arch/x86/kernel/reboot.c, BOOT_CF9_FORCE): first which reset, then the reset.
    #[test]
    fn reset_control_resets_once_and_tells_warm_from_cold() {
        for (code, event) in [(0x0e, GuestEvent::Reset(Means::ResetControl)), (0x06, GuestEvent::WarmReset)] {
            let (control, events) = register(ResetControl::new);
            let mut now = [0xaa];
            control.read(0, &mut now);
            let cf9 = now[0] & !code;
            control.write(0, &[cf9 | 2]);
            assert_eq!(take(&events), []);
            control.write(0, &[cf9 | code]);
            control.write(0, &[cf9 | code]);
            assert_eq!(take(&events), [event]);
        }
        let (control, events) = register(ResetControl::new);
        control.write(0, &[0x0e, 0x0e]);
        control.write(1, &[0x0e]);
        assert_eq!(take(&events), []);
    }

    /// `syscon-poweroff` and `syscon-reboot` write their value with 32 bits, at offset 0.
    #[test]
    fn power_control_takes_its_two_values() {
        let (control, events) = register(PowerControl::new);
        for (value, event) in [
            (0x5555, Some(GuestEvent::PowerOff(Means::PowerControl))),
            (0x7777, Some(GuestEvent::Reset(Means::PowerControl))),
            (0, None),
        ] {
            let value: u32 = value;
            control.write(0, &value.to_le_bytes());
            assert_eq!(take(&events), Vec::from_iter(event));
            control.write(4, &value.to_le_bytes());
            control.write(0, &value.to_le_bytes()[..2]);
            control.write(0, &u64::from(value).to_le_bytes());
            assert_eq!(take(&events), []);
        }
    }
}
