// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Physical memory and ports, all of which this guest may use as it likes.

use core::arch::asm;
use core::ptr;

/// What is read and written at once.
pub trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

/// What is read from a port and written to it at once.
pub trait PortWord: Word {
    /// Writes it to a port.
    fn write(self, hardware: Hardware, port: u16);
    /// Reads it from a port.
    fn read(hardware: Hardware, port: u16) -> Self;
}

macro_rules! port_words {
    ($($type:ty, $register:tt, $out:literal, $in:literal;)*) => {$(
        impl PortWord for $type {
            fn write(self, _: Hardware, port: u16) {
                // SAFETY: a port is no memory of ours.
                unsafe { asm!($out, in("dx") port, in($register) self, options(nomem, nostack)) }
            }

            fn read(_: Hardware, port: u16) -> Self {
                let value: Self;
                // SAFETY: as above.
                unsafe { asm!($in, in("dx") port, out($register) value, options(nomem, nostack)) };
                value
            }
        }
    )*};
}

port_words! {
    u8, "al", "out dx, al", "in al, dx";
    u16, "ax", "out dx, ax", "in ax, dx";
    u32, "eax", "out dx, eax", "in eax, dx";
}

/// The machine's memory, mapped to itself up to 5 GiB, and its ports.
#[derive(Clone, Copy, Debug)]
pub struct Hardware(());

impl Hardware {
    /// The hardware of this machine.
    ///
    /// # Safety
    /// Memory is mapped to itself, the I/O privilege level is 3, and the program's own memory is below 8 MiB.
    #[must_use]
    pub const unsafe fn of_this_machine() -> Self {
        Self(())
    }

    /// Reads memory or a register, once.
    pub fn read<T: Word>(self, address: u64) -> T {
        // SAFETY: all of memory is mapped and any bytes are a word; see of_this_machine.
        unsafe { ptr::read_volatile(pointer(address)) }
    }

    /// Writes memory or a register, once. Callers keep away from the program's own memory.
    pub fn write<T: Word>(self, address: u64, value: T) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(pointer(address), value) }
    }

    /// The bytes of a range that nobody writes while they are looked at.
    pub fn bytes(self, address: u64, length: usize) -> &'static [u8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts(pointer(address), length) }
    }

    /// The words of a range, likewise.
    pub fn words(self, start: u64, end: u64) -> &'static [u64] {
        let length = usize::try_from((end - start) / 8).unwrap_or(0);
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts(pointer(start), length) }
    }

    /// Writes `value` to a port.
    pub fn port_write<T: PortWord>(self, port: u16, value: T) {
        value.write(self, port);
    }

    /// Reads a port.
    pub fn port_read<T: PortWord>(self, port: u16) -> T {
        T::read(self, port)
    }

    /// Ends by an exception that nobody handles.
    pub fn crash(self) -> ! {
        // SAFETY: it does not return.
        unsafe { asm!("ud2", options(noreturn)) }
    }
}

fn pointer<T>(address: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}
