// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The loader: Linux' 64-bit boot protocol (Documentation/arch/x86/boot.rst). It runs once, before the first vCPU,
//! and is the only code of the project that writes private memory.

use std::fs::File;
use std::io;

use cvmm_firmware::{AcpiTable, Machine, Range};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::{kernel, layout, page_tables, setup_data};

/// Guest-physical address of the zero page.
pub(super) const ZERO_PAGE: u64 = 0x7000;
const CMDLINE: Range = Range::fixed(0x1_0000, 0x1_0000);
const SETUP_DATA: Range = Range::fixed(0x2_0000, 0x7_0000);
const _: () = assert!(page_tables::END <= CMDLINE.base());
const _: () = assert!(SETUP_DATA.end() <= layout::LEGACY_HOLE.base());

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const E820_ACPI: u32 = 3;
/// Boot loader ID "undefined".
const TYPE_OF_LOADER: u8 = 0xff;
const PAGE: u64 = 4096;

/// Why a guest can't be loaded. [`Error::image`] says which image is to blame.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// I/O error on the image.
    #[error("it can't be read: {0}")]
    KernelRead(#[source] io::Error),
    /// Neither bzImage nor ELF.
    #[error("this is neither a bzImage nor an ELF kernel (vmlinux) for x86_64")]
    NotAKernel,
    /// An ELF file of another machine.
    #[error("it is an ELF file with {field} {is}; a kernel for x86_64 has {needed}")]
    ElfHeader {
        /// As the ELF specification calls it.
        field: &'static str,
        /// What it is.
        is: u16,
        /// What it has to be.
        needed: u16,
    },
    /// An ELF file that ends before what its headers name.
    #[error("the ELF file is truncated: it ends within its headers")]
    ElfTruncated,
    /// An ELF file that asks for nothing in memory.
    #[error("the ELF file has no segment to load")]
    ElfEmpty,
    /// Program headers that are in the ELF header.
    #[error("its program headers are at {offset:#x}, which is within the ELF header")]
    ElfProgramHeaders {
        /// e_phoff.
        offset: u64,
    },
    /// A segment with less room than contents.
    #[error("its segment at {address:#x} has {file:#x} bytes in the file, but only {memory:#x} in memory")]
    ElfSegment {
        /// Physical address.
        address: u64,
        /// p_filesz.
        file: u64,
        /// p_memsz.
        memory: u64,
    },
    /// A segment that goes past the last address.
    #[error("its segment at {address:#x} has {memory:#x} bytes in memory, which go past the last address")]
    ElfSegmentEnd {
        /// Physical address.
        address: u64,
        /// p_memsz.
        memory: u64,
    },
    /// The entry leads nowhere.
    #[error("its entry point {entry:#x} is not in its segments, {extent}")]
    ElfEntry {
        /// e_entry.
        entry: u64,
        /// What it loads.
        extent: Range,
    },
    /// Too old a bzImage, or a 32-bit one.
    #[error(
        "a 64-bit kernel with boot protocol 0x20f (Linux 5.5) or later is needed; it has no 64-bit entry or speaks boot protocol {:#x}",
        version
    )]
    TooOld {
        /// The boot protocol that it speaks.
        version: u16,
    },
    /// It wants to be where our own structures are, or where 32 bits do not reach.
    #[error("its load address is {address:#x}; it must be above the first megabyte and below 4 GiB")]
    Place {
        /// The lowest address.
        address: u64,
    },
    /// The file ends too early.
    #[error("it is truncated: it has {len} bytes of {expected}")]
    Truncated {
        /// Bytes there are.
        len: u64,
        /// Bytes the headers promise.
        expected: u64,
    },
    /// The loader's own error: the file, not its place, which was looked at before.
    #[error("it can't be loaded: {0}")]
    Kernel(#[source] linux_loader::loader::Error),
    /// It needs room that is not there.
    #[error(
        "it needs the memory at {extent}, and not all of that is private memory; use more --mem or another pool base"
    )]
    NoRoom {
        /// What it needs.
        extent: Range,
    },
    /// One byte of memory is in two segments, so that a small file can say to copy without end.
    #[error("its segments overlap: they have {sum:#x} bytes in all, and lie in {extent}")]
    ElfOverlap {
        /// Bytes of all segments.
        sum: u64,
        /// Where they are.
        extent: Range,
    },
    /// I/O error on the initrd.
    #[error("it can't be read: {0}")]
    InitrdRead(#[source] io::Error),
    /// The initrd is empty.
    #[error("the file is empty")]
    InitrdEmpty,
    /// No private memory is large enough for it.
    #[error(
        "it has {len} bytes, and no piece of private memory that the kernel can reach is so large; use more --mem"
    )]
    InitrdTooLarge {
        /// Its size.
        len: u64,
    },
    /// The command line is too long for this kernel.
    #[error("it has {len} bytes; this kernel takes {max}")]
    CmdlineTooLong {
        /// Its length.
        len: usize,
        /// What the kernel takes.
        max: u64,
    },
    /// The device tree is too large.
    #[error("it needs {len} bytes; there is room for {max}")]
    DeviceTreeTooLarge {
        /// Bytes with the reservations around it.
        len: u64,
        /// Room for it.
        max: u64,
    },
    /// The ACPI tables are not where they can be.
    #[error("the ACPI tables do not fit into {window}")]
    AcpiTables {
        /// Where they have to be.
        window: Range,
    },
    /// Private memory is not where the layout says: a defect of the VMM.
    #[error("private memory can't be written: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// What was being loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// The kernel.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// The command line.
    Cmdline,
    /// The device tree.
    DeviceTree,
    /// None of them: the VMM's own structures.
    None,
}

impl Error {
    /// The image that is to blame.
    pub fn image(&self) -> Image {
        match self {
            Error::KernelRead(_)
            | Error::NotAKernel
            | Error::ElfHeader { .. }
            | Error::ElfTruncated
            | Error::ElfEmpty
            | Error::ElfSegment { .. }
            | Error::ElfSegmentEnd { .. }
            | Error::ElfEntry { .. }
            | Error::ElfOverlap { .. }
            | Error::ElfProgramHeaders { .. }
            | Error::TooOld { .. }
            | Error::Place { .. }
            | Error::Truncated { .. }
            | Error::Kernel(_)
            | Error::NoRoom { .. } => Image::Kernel,
            Error::InitrdRead(_) | Error::InitrdEmpty | Error::InitrdTooLarge { .. } => Image::Initrd,
            Error::CmdlineTooLong { .. } => Image::Cmdline,
            Error::DeviceTreeTooLarge { .. } => Image::DeviceTree,
            Error::AcpiTables { .. } | Error::Memory(_) => Image::None,
        }
    }
}

/// The loader's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What to boot.
#[derive(Debug)]
pub struct Images {
    /// bzImage or ELF.
    pub kernel: File,
    /// Initial RAM disk.
    pub initrd: Option<File>,
    /// What tells the kernel of its machine.
    pub firmware: Firmware,
}

/// What tells a kernel of its machine.
#[derive(Debug)]
pub enum Firmware {
    /// A flattened device tree.
    DeviceTree(Vec<u8>),
    /// ACPI tables in [`layout::ACPI_TABLES`], the RSDP first.
    Acpi(Vec<AcpiTable>),
}

/// Guest-physical address of the first instruction.
#[derive(Clone, Copy, Debug)]
pub struct Entry(pub(super) u64);

/// Loads a guest into `private`, the private memory of `machine`.
pub fn load(private: &GuestMemoryMmap, machine: &Machine, mut images: Images) -> Result<Entry> {
    let kernel = kernel::load(private, &mut images.kernel)?;
    let mut params = boot_params { hdr: kernel.header, ..Default::default() };
    params.hdr.type_of_loader = TYPE_OF_LOADER;

    let cmdline = machine.bootargs.as_bytes();
    // cmdline_size does not count the terminating zero.
    let max = u64::from(params.hdr.cmdline_size).min(CMDLINE.size() - 1);
    if cmdline.len() as u64 > max {
        return Err(Error::CmdlineTooLong { len: cmdline.len(), max });
    }
    private.write_slice(cmdline, GuestAddress(CMDLINE.base()))?;
    private.write_obj(0u8, GuestAddress(CMDLINE.base() + cmdline.len() as u64))?;
    params.hdr.cmd_line_ptr = low32(CMDLINE.base());

    if let Some(mut initrd) = images.initrd {
        let place = load_initrd(private, &mut initrd, kernel.extent, params.hdr.initrd_addr_max)?;
        params.hdr.ramdisk_image = low32(place.base());
        params.hdr.ramdisk_size = low32(place.size());
    }

    let pools: Vec<Range> = machine.pools.iter().map(|pool| pool.range).collect();
    let dtb = match &images.firmware {
        Firmware::DeviceTree(dtb) => Some(dtb.as_slice()),
        Firmware::Acpi(tables) => {
            params.acpi_rsdp_addr = write_acpi(private, tables)?;
            None
        }
    };
    let chain = setup_data::chain(SETUP_DATA.base(), &pools, dtb);
    if chain.len() as u64 > SETUP_DATA.size() {
        return Err(Error::DeviceTreeTooLarge { len: chain.len() as u64, max: SETUP_DATA.size() });
    }
    private.write_slice(&chain, GuestAddress(SETUP_DATA.base()))?;
    params.hdr.setup_data = SETUP_DATA.base();

    let e820 = e820(&machine.memory, matches!(images.firmware, Firmware::Acpi(_)));
    for (to, (range, kind)) in params.e820_table.iter_mut().zip(&e820) {
        *to = boot_e820_entry { addr: range.base(), size: range.size(), r#type: *kind };
    }
    params.e820_entries = u8::try_from(e820.len()).unwrap_or(u8::MAX);

    private.write_slice(params.as_slice(), GuestAddress(ZERO_PAGE))?;
    page_tables::write(private)?;
    Ok(Entry(kernel.entry))
}

/// Writes the tables, and returns the guest-physical address of the RSDP.
fn write_acpi(private: &GuestMemoryMmap, tables: &[AcpiTable]) -> Result<u64> {
    let window = layout::ACPI_TABLES;
    let fits = |table: &AcpiTable| {
        Range::new(table.address, table.bytes.len() as u64).is_some_and(|place| window.contains(&place))
    };
    if !tables.iter().all(fits) {
        return Err(Error::AcpiTables { window });
    }
    for table in tables {
        private.write_slice(&table.bytes, GuestAddress(table.address))?;
    }
    tables.first().map(|rsdp| rsdp.address).ok_or(Error::AcpiTables { window })
}

/// The memory map: RAM, a pool's too, less what a PC keeps of its first megabyte, where ACPI tables are if there are any.
fn e820(memory: &[Range], acpi: bool) -> Vec<(Range, u32)> {
    let (hole, tables) = (layout::LEGACY_HOLE, layout::ACPI_TABLES);
    let legacy = if acpi { Range::from_bounds(hole.base(), tables.base()) } else { Some(hole) };
    let tables = acpi.then_some((tables, E820_ACPI));
    let mut map = Vec::new();
    for ram in memory {
        if ram.contains(&hole) {
            map.extend(Range::from_bounds(ram.base(), hole.base()).map(|range| (range, E820_RAM)));
            map.extend(legacy.map(|range| (range, E820_RESERVED)));
            map.extend(tables);
            map.extend(Range::from_bounds(hole.end(), ram.end()).map(|range| (range, E820_RAM)));
        } else {
            map.push((*ram, E820_RAM));
        }
    }
    map
}

/// Puts the initrd as high as the kernel can reach, out of the kernel's way.
fn load_initrd(private: &GuestMemoryMmap, initrd: &mut File, kernel: Range, addr_max: u32) -> Result<Range> {
    let len = initrd.metadata().map_err(Error::InitrdRead)?.len();
    if len == 0 {
        return Err(Error::InitrdEmpty);
    }
    let reach = u64::from(addr_max).saturating_add(1);
    let place = private
        .iter()
        .filter_map(|region| {
            let (base, end) = (region.start_addr().0, region.start_addr().0 + region.len());
            let start = end.min(reach).checked_sub(len)? / PAGE * PAGE;
            let floor = if contains(region, &kernel) { kernel.end() } else { base.max(kernel::LOWEST_LOAD) };
            (start >= floor).then_some(start)
        })
        .max()
        .and_then(|start| Range::new(start, len))
        .ok_or(Error::InitrdTooLarge { len })?;
    let bytes = usize::try_from(len).map_err(|_| Error::InitrdTooLarge { len })?;
    private
        .read_exact_volatile_from(GuestAddress(place.base()), initrd, bytes)
        .map_err(|error| Error::InitrdRead(io::Error::other(error)))?;
    Ok(place)
}

/// Whether all of `range` is in `region`.
pub(super) fn contains(region: &impl GuestMemoryRegion, range: &Range) -> bool {
    Range::new(region.start_addr().0, region.len()).is_some_and(|region| region.contains(range))
}

/// Truncates what is known to be below 4 GiB.
fn low32(value: u64) -> u32 {
    debug_assert!(u32::try_from(value).is_ok());
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
