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

/// The machine's memory, mapped to itself up to 4 GiB, and its ports.
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
    pub fn port_write(self, port: u16, value: u32) {
        // SAFETY: a port is no memory of ours.
        unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) }
    }

    /// Reads a port.
    pub fn port_read(self, port: u16) -> u32 {
        let value: u32;
        // SAFETY: a port is no memory of ours.
        unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) };
        value
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
