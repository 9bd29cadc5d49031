// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel images: bzImage and ELF, by the 64-bit entry.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use cvmm_firmware::Range;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{ByteValued, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::boot::{Error, Result, contains};

mod elf;

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// Offset of the setup header, and of its magic, in a bzImage.
const SETUP_HEADER: u64 = 0x1f1;
const HDRS_MAGIC: u32 = 0x5372_6448;
/// xloadflags: the kernel has the 64-bit entry, 0x200 past its load address.
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;
/// 2.12 brought xloadflags; SETUP_INDIRECT came with 2.15.
const MIN_VERSION: u16 = 0x20f;
/// What the loader puts into memory is above the legacy megabyte, in which its own structures are.
pub(super) const LOWEST_LOAD: u64 = 0x10_0000;

/// A loaded kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Guest-physical address of the first instruction.
    pub(super) entry: u64,
    /// What it occupies until it runs, unpacking included.
    pub(super) extent: Range,
    /// The setup header to start from.
    pub(super) header: setup_header,
}

/// Loads `image` into `memory`, which is private memory only: a kernel that would reach into a pool does not load.
pub(super) fn load(memory: &GuestMemoryMmap, image: &mut File) -> Result<Kernel> {
    let mut magic = [0; 4];
    let io = Error::KernelRead;
    image.rewind().map_err(io)?;
    let len = image.metadata().map_err(io)?.len();
    read(image, &mut magic)?;
    match magic {
        ELF_MAGIC => load_elf(memory, image, len),
        _ => load_bzimage(memory, image, len),
    }
}

/// A file that ends too early is no kernel; one that can't be read may be.
fn read(image: &mut File, to: &mut [u8]) -> Result<()> {
    image.read_exact(to).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::NotAKernel,
        _ => Error::KernelRead(error),
    })
}

/// All that a kernel needs is one piece of private memory.
fn check_room(memory: &GuestMemoryMmap, extent: Range) -> Result<()> {
    match memory.iter().any(|region| contains(region, &extent)) {
        true => Ok(()),
        false => Err(Error::NoRoom { extent }),
    }
}

fn load_elf(memory: &GuestMemoryMmap, image: &mut File, len: u64) -> Result<Kernel> {
    let extent = elf::extent(image, len)?;
    check_room(memory, extent)?;
    // With an offset, be it 0, the loader reads no notes (PT_NOTE): it looks for the entry of another boot protocol (PVH) in
    // them, and refuses a kernel with notes that it can't read.
    let loaded = Elf::load(memory, Some(GuestAddress(0)), image, Some(GuestAddress(LOWEST_LOAD)))
        .map_err(Error::Kernel)?;
    let entry = loaded.kernel_load.0;
    // The protocol's own values: an ELF image has no setup header.
    let header = setup_header {
        header: HDRS_MAGIC,
        version: MIN_VERSION,
        boot_flag: 0xaa55,
        initrd_addr_max: 0x7fff_ffff,
        kernel_alignment: 0x20_0000,
        cmdline_size: 2047,
        ..Default::default()
    };
    Ok(Kernel { entry, extent, header })
}

fn load_bzimage(memory: &GuestMemoryMmap, image: &mut File, len: u64) -> Result<Kernel> {
    let mut header = setup_header::default();
    image.seek(SeekFrom::Start(SETUP_HEADER)).map_err(Error::KernelRead)?;
    read(image, header.as_mut_slice())?;
    if header.header != HDRS_MAGIC {
        return Err(Error::NotAKernel);
    }
    let (version, xloadflags) = (header.version, header.xloadflags);
    if version < MIN_VERSION || xloadflags & XLF_KERNEL_64 == 0 {
        return Err(Error::TooOld { version });
    }
    // setup_sects 0 means 4; the boot sector comes on top; syssize counts paragraphs.
    let setup_sects = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    let setup = (setup_sects + 1) * 512;
    let expected = setup + u64::from(header.syssize) * 16;
    if len < expected {
        return Err(Error::Truncated { len, expected });
    }
    let load = GuestAddress(header.pref_address);
    if load.0 < LOWEST_LOAD || u32::try_from(load.0).is_err() {
        return Err(Error::Place { address: load.0 });
    }
    // While it unpacks, the kernel needs init_size bytes from where it was loaded. What comes after it in its file is loaded,
    // too.
    let extent = Range::new(load.0, u64::from(header.init_size).max(len - setup)).ok_or(Error::NotAKernel)?;
    check_room(memory, extent)?;
    let loaded = BzImage::load(memory, Some(load), image, None).map_err(Error::Kernel)?;
    let entry = loaded.kernel_load.0.checked_add(ENTRY_64).ok_or(Error::NotAKernel)?;
    Ok(Kernel { entry, extent, header })
}
