// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory, split: private memory and pools are separate mappings and separate KVM slots.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use cvmm_arch::native::{boot, layout};
use cvmm_devices::pool::Pool;
use cvmm_firmware::{Machine, Range};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion, mmap::MmapRegionBuilder,
};

use super::huge_pages;
use crate::config::PoolConfig;
use crate::host::limits;
use crate::{Error, Result};

/// The memory of a guest that is not loaded yet.
#[derive(Debug)]
pub struct GuestMemory {
    private: GuestMemoryMmap,
    pools: Vec<Pool>,
}

/// The private memory of a loaded guest: mapped for KVM, and out of reach. It has no method that reads or writes, no
/// accessor, and cannot be turned back.
#[derive(Debug)]
pub struct SealedMemory {
    /// What KVM is told: addresses of mappings, the pools' too.
    slots: Vec<kvm_userspace_memory_region>,
    _mapped: GuestMemoryMmap,
}

impl GuestMemory {
    /// Maps the memory of `machine`.
    ///
    /// # Errors
    /// This host has no memory for it, or no huge pages for a pool of `options` that wants some.
    pub fn new(machine: &Machine, options: &[PoolConfig]) -> Result<Self> {
        let ranges: Vec<Range> = machine.pools.iter().map(|pool| pool.range).collect();
        let failed = |error: &dyn Display| Error::Host(format!("guest memory can't be mapped: {error}"));
        let private = layout::private(&machine.memory, &ranges).into_iter().map(|range| {
            let mapping = map(bytes(range)?, None, false).map_err(|error| failed(&error))?;
            GuestRegionMmap::new(mapping, GuestAddress(range.base()))
                .ok_or_else(|| failed(&"it has no place"))
        });
        let private = private.collect::<Result<Vec<_>>>()?;
        let private = GuestMemoryMmap::from_regions(private).map_err(|error| failed(&error))?;
        private.iter().try_for_each(|region| keep_from_core_dumps(region.as_ptr(), region.size()))?;
        let pools = machine.pools.iter().zip(options);
        let pools = pools.map(|(pool, option)| map_pool(&pool.name, pool.range, option));
        let pools = pools.collect::<Result<_>>()?;
        Ok(Self { private, pools })
    }

    /// Loads the guest, and gives up the handle of private memory.
    pub fn load(self, machine: &Machine, images: boot::Images) -> boot::Result<Loaded> {
        let entry = boot::load(&self.private, machine, images)?;
        // Not before: the loader touches little, and need not wait for large pages to be cleared.
        self.private.iter().for_each(|region| advise_huge(region.as_ptr(), region.size()));
        let private = self.private.iter().map(|region| (region.start_addr().0, mapping(region)));
        let pools = machine.pools.iter().zip(&self.pools);
        let pools = pools.map(|(pool, mapped)| (pool.range.base(), mapped.mapping()));
        let slots = (0..)
            .zip(private.chain(pools))
            .map(|(slot, (guest_phys_addr, (userspace_addr, memory_size)))| kvm_userspace_memory_region {
                slot,
                guest_phys_addr,
                memory_size,
                userspace_addr,
                flags: 0,
            })
            .collect();
        Ok(Loaded { private: SealedMemory { slots, _mapped: self.private }, pools: self.pools, entry })
    }
}

impl SealedMemory {
    /// Gives each mapping to `vm` as a slot of its own: private memory and pools.
    pub fn register(&self, vm: &VmFd) -> Result<()> {
        for region in &self.slots {
            // SAFETY: the range is one whole mapping of this process. It stays mapped while the VM lives: whoever
            // holds the VM holds the sealed memory and the pools, too (`Vm`).
            unsafe { vm.set_user_memory_region(*region) }.map_err(|error| {
                Error::Host(format!("KVM refused guest memory at {:#x}: {error}", region.guest_phys_addr))
            })?;
        }
        Ok(())
    }

    /// The first KVM slot that is free.
    pub fn next_slot(&self) -> u32 {
        self.slots.last().map_or(0, |region| region.slot + 1)
    }
}

/// A guest that is loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Keep it while vCPUs run.
    pub private: SealedMemory,
    /// The pools, in the order of the machine description.
    pub pools: Vec<Pool>,
    /// Where the first vCPU starts.
    pub entry: boot::Entry,
}

/// A pool is a memfd that can't shrink: truncated, it would turn accesses into SIGBUS.
pub(super) fn map_pool(name: &str, range: Range, option: &PoolConfig) -> Result<Pool> {
    let huge = option.hugepages;
    let failed =
        |what: &str, error: String| Error::Host(format!("the memory of {name} can't be {what}: {error}"));
    let file_name = CString::new(format!("cvmm-{name}")).map_err(|e| failed("named", e.to_string()))?;
    let kind = if huge { MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB } else { MFdFlags::empty() };
    let fd = memfd_create(file_name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | kind)
        .map_err(|e| failed("made", e.to_string()))?;
    let file = File::from(fd);
    let too_large = |error: io::Error| match limits::file_size(range.size()) {
        Some(why) => format!("{error}: {why}"),
        None => error.to_string(),
    };
    file.set_len(range.size()).map_err(|e| failed("made", too_large(e)))?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| failed("sealed", e.to_string()))?;
    let mapping = map(bytes(range)?, Some(file), huge).map_err(|error| match huge {
        true => huge_pages::missing(&option.option, range.size(), &error),
        false => failed("mapped", error.to_string()),
    })?;
    keep_from_core_dumps(mapping.as_ptr(), mapping.size())?;
    advise_huge(mapping.as_ptr(), mapping.size());
    Pool::new(name, range.base(), mapping).ok_or_else(|| failed("placed", range.to_string()))
}

/// A large page of x86_64 and aarch64. Pools begin and end at multiples of it.
pub const LARGE_PAGE: usize = 2 << 20;

/// Maps `size` bytes of memory, of `file` if there is one. The mapping begins at a large page, as its guest-physical range
/// does: KVM gives the guest a large page only where both addresses agree. It stays until the process ends, as the VM does.
///
/// `reserve`: it fails here if there is not enough memory, not when it is touched. So it is with huge pages.
fn map(size: usize, file: Option<File>, reserve: bool) -> io::Result<MmapRegion> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let (kind, fd) = match &file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    let flags = if reserve { kind } else { kind | libc::MAP_NORESERVE };
    let nothing = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let room = size.checked_add(LARGE_PAGE).ok_or(io::ErrorKind::InvalidInput)?;
    let mapped = |address: *mut libc::c_void| match address {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        address => Ok(address.cast::<u8>()),
    };
    // SAFETY: the kernel chooses the address.
    let reserved = mapped(unsafe { libc::mmap(ptr::null_mut(), room, libc::PROT_NONE, nothing, -1, 0) })?;
    let before = reserved.align_offset(LARGE_PAGE);
    let place = reserved.wrapping_add(before);
    // SAFETY: the range is inside of what was just reserved, which nobody else knows.
    let address = mapped(unsafe { libc::mmap(place.cast(), size, prot, flags | libc::MAP_FIXED, fd, 0) })?;
    for (unused, bytes) in [(reserved, before), (place.wrapping_add(size), LARGE_PAGE - before)] {
        if bytes > 0 {
            // SAFETY: the range is the reserved one before or after the mapping. A failure keeps some addresses from us.
            unsafe { libc::munmap(unused.cast(), bytes) };
        }
    }
    let builder = MmapRegionBuilder::new(size).with_mmap_prot(prot).with_mmap_flags(flags);
    let builder = match file {
        Some(file) => builder.with_file_offset(FileOffset::new(file, 0)),
        None => builder,
    };
    // SAFETY: it is a mapping of that size, which is never taken away.
    unsafe { builder.with_raw_mmap_pointer(address) }.build().map_err(io::Error::other)
}

/// What a guest keeps in its memory is not for whoever reads a core dump of ours.
fn keep_from_core_dumps(mapping: *mut u8, size: usize) -> Result<()> {
    // SAFETY: the range is one whole mapping of this process, and the advice does not change its contents.
    match unsafe { libc::madvise(mapping.cast(), size, libc::MADV_DONTDUMP) } {
        0 => Ok(()),
        _ => {
            let error = std::io::Error::last_os_error();
            Err(Error::Host(format!("guest memory can't be kept out of core dumps: {error}")))
        }
    }
}

/// Asks for huge pages: fewer faults while the guest touches its memory for the first time, and a pool is cleared by
/// the guest at boot. A host that has none to give does not matter.
fn advise_huge(mapping: *mut u8, size: usize) {
    // SAFETY: the range is one whole mapping of this process, and the advice does not change its contents.
    unsafe { libc::madvise(mapping.cast(), size, libc::MADV_HUGEPAGE) };
}

/// Host-virtual address and bytes of a mapping.
fn mapping(region: &GuestRegionMmap) -> (u64, u64) {
    (region.as_ptr() as u64, region.len())
}

fn bytes(range: Range) -> Result<usize> {
    usize::try_from(range.size()).map_err(|error| Error::vmm("guest memory", error))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::VmConfig;

    /// VmFlags of what is mapped at `address`: the kernel may have joined neighbours.
    fn vm_flags(address: u64) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines();
        let covers = |line: &str| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).ok());
            Some((start?..end?).contains(&address))
        };
        lines.find(|line| covers(line) == Some(true)).expect("mapped");
        lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("Linux shows the flags").to_owned()
    }

    /// Linux, Documentation/filesystems/proc.rst: `dd` is "do not include area into core dump".
    #[test]
    fn guest_memory_stays_out_of_core_dumps() {
        let arguments = ["cvmm", "run", "--kernel", "k", "--pool", "2M", "--mem", "5G"];
        let Command::Run(arguments) = Cli::try_parse_from(arguments).unwrap().command else {
            panic!("it is run");
        };
        let config = VmConfig::new(&arguments).unwrap();
        let machine = crate::machine::describe(&config.machine).unwrap();
        let memory = GuestMemory::new(&machine, &config.machine.pools).unwrap();
        let mut mappings: Vec<_> = memory.private.iter().map(|region| mapping(region).0).collect();
        assert!(mappings.len() > 1, "below and above 4 GiB");
        mappings.extend(memory.pools.iter().map(|pool| pool.mapping().0));
        for address in mappings {
            assert!(address.is_multiple_of(LARGE_PAGE as u64), "{address:x}: no large page begins there");
            let flags = vm_flags(address);
            assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{address:x}: {flags}");
        }
    }
}
