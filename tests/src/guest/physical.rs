// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory and registers by guest-physical address, through /dev/mem.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, bail, ensure};

const PAGE: u64 = 4096;

/// How the CPU may treat accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    /// Memory.
    Normal,
    /// Registers: each access reaches the device.
    None,
}

/// A mapped range of guest-physical addresses. A device may write to it at any time, so all accesses are volatile.
#[derive(Debug)]
pub(super) struct Physical {
    base: u64,
    length: usize,
    start: NonNull<u8>,
    mapped: (*mut libc::c_void, usize),
}

/// A value that an access can move at once.
pub(super) trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

impl Physical {
    pub(super) fn map(base: u64, length: usize, caching: Caching) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(if caching == Caching::None { libc::O_SYNC } else { 0 })
            .open("/dev/mem")
            .context("/dev/mem")?;
        let before = usize::try_from(base % PAGE)?;
        let size = length.checked_add(before).context("range too long")?;
        let offset = libc::off_t::try_from(base - base % PAGE)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that Rust knows about.
        let mapped = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), size, access, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        if mapped == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("map {length:#x} bytes at {base:#x}"));
        }
        // SAFETY: `before` is inside the mapping, which is at least one byte longer.
        let start = NonNull::new(unsafe { mapped.cast::<u8>().add(before) }).context("mapped at 0")?;
        Ok(Self { base, length, start, mapped: (mapped, size) })
    }

    pub(super) fn contains(&self, address: u64) -> bool {
        (self.base..self.base + self.length as u64).contains(&address)
    }

    pub(super) fn read<T: Word>(&self, address: u64) -> T {
        let place = self.place::<T>(address);
        // SAFETY: `place` checked that the value lies inside the mapping and is aligned; any bits are a valid word.
        unsafe { place.read_volatile() }
    }

    pub(super) fn write<T: Word>(&self, address: u64, value: T) {
        let place = self.place::<T>(address);
        // SAFETY: `place` checked that the value lies inside the mapping and is aligned.
        unsafe { place.write_volatile(value) }
    }

    /// Sets a range of bytes.
    pub(super) fn paint(&self, address: u64, length: u64, byte: u8) {
        (address..address + length).for_each(|address| self.write(address, byte));
    }

    /// Copies a range of bytes.
    pub(super) fn bytes(&self, address: u64, length: u64) -> Vec<u8> {
        (address..address + length).map(|address| self.read(address)).collect()
    }

    fn place<T: Word>(&self, address: u64) -> *mut T {
        let offset = address.checked_sub(self.base).and_then(|offset| usize::try_from(offset).ok());
        let end = offset.and_then(|offset| offset.checked_add(size_of::<T>()));
        assert!(
            end.is_some_and(|end| end <= self.length),
            "{address:#x} is outside the mapping at {:#x}",
            self.base
        );
        // SAFETY: checked just now: the offset is inside the mapping.
        let place = unsafe { self.start.as_ptr().add(offset.unwrap_or_default()) }.cast::<T>();
        assert!(place.is_aligned(), "{address:#x} is not aligned");
        place
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and nothing refers to it any more: accesses go through `self`.
        unsafe { libc::munmap(self.mapped.0, self.mapped.1) };
    }
}

/// The guest-physical address of a value of this process. It must have been written to, or there is no page yet.
pub(super) fn address_of(data: &[u8]) -> Result<u64> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    ensure!(!data.is_empty(), "nothing has no address");
    let virtual_address = data.as_ptr().expose_provenance() as u64;
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap")
        .and_then(|file| file.read_exact_at(&mut entry, virtual_address / PAGE * 8))
        .context("/proc/self/pagemap")?;
    let entry = u64::from_le_bytes(entry);
    if entry & PRESENT == 0 || entry & FRAME == 0 {
        bail!("no page at {virtual_address:#x}");
    }
    Ok((entry & FRAME) * PAGE + virtual_address % PAGE)
}
