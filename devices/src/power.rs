// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a guest ends itself without ACPI: a power control register for `syscon-poweroff` and `syscon-reboot`, the
//! keyboard controller's reset line, and the pvpanic event register.

use std::fmt;
use std::sync::Arc;

use crate::bus::BusDevice;

/// Written to the power control register: power off.
pub const POWER_OFF: u32 = 0x5555;
/// Written to the power control register: reset.
pub const RESET: u32 = 0x7777;

/// pvpanic events (QEMU, docs/specs/pvpanic.rst): the guest panicked.
const PVPANIC_PANICKED: u8 = 1;

/// What a guest asks for, or says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// Power off.
    PowerOff,
    /// Reset.
    Reset,
    /// The kernel panicked.
    Panicked,
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
    /// The pvpanic register: 8 bits; reads say which events are understood.
    PvPanic
}
register! {
    /// Command port (0x64) of a PC's keyboard controller, of which only "pulse the reset line" is there: it is how
    /// Linux resets an x86 machine without ACPI.
    KeyboardReset
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
            (0, Ok(POWER_OFF)) => (self.0)(GuestEvent::PowerOff),
            (0, Ok(RESET)) => (self.0)(GuestEvent::Reset),
            _ => log::debug!("power control: {data:?} at {offset} means nothing"),
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
            (self.0)(GuestEvent::Reset);
        }
    }
}
