// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel images, initrds, command lines and device trees: what is loaded is whole and apart, nothing else in private
//! memory is touched, and what can't be loaded is an error.

use std::fs::File;
use std::io::{Seek, Write};
use std::ops::Range;
use std::os::fd::AsFd;

use arbitrary::{Arbitrary, Unstructured};
use clap::Parser;
use cvmm::cli::{Cli, Command};
use cvmm::config::VmConfig;
use cvmm_arch::native::boot::{self, Firmware, Images};
use cvmm_arch::native::layout;
use cvmm_firmware::{Machine, acpi_tables};
use linux_loader::loader::bootparam::setup_header;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};
use vm_memory::{ByteValued, Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::spec::core::half;

const MIB: u64 = 1 << 20;
/// What the loader may write below the kernel: from the GDT to the end of setup_data, and where a BIOS is.
const BOOT: [Range<u64>; 2] = [0x500..0x9_0000, 0xe_0000..0x10_0000];

/// The kernel, which takes most bytes, is the last: a short input has the rest, too.
#[derive(Arbitrary, Debug)]
struct Input {
    /// Length of the initrd.
    initrd: Option<Initrd>,
    /// Length of the command line.
    cmdline: Choice<u16>,
    /// Length of the device tree; without one, ACPI tables.
    device_tree: Option<u16>,
    kernel: Kernel,
}

/// Bytes, and pieces of 64 KiB; rarely of 1 MiB, which takes time.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Initrd {
    len: u16,
    pieces: u8,
}

impl Initrd {
    fn len(self) -> usize {
        let pieces = usize::from(self.pieces);
        let many = match self.pieces {
            0..128 => 0,
            128..224 => (pieces % 16) << 16,
            224.. => (pieces - 223) << 20,
        };
        usize::from(self.len) + many
    }
}

#[derive(Debug)]
enum Kernel {
    BzImage(BzImage),
    Elf(Elf),
    Any(Vec<u8>),
}

/// By one byte, which a search changes sooner than the four of a derived one. So are others here.
impl<'a> Arbitrary<'a> for Kernel {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u8::arbitrary(bytes)? {
            0..112 => Self::BzImage(Arbitrary::arbitrary(bytes)?),
            112..224 => Self::Elf(Arbitrary::arbitrary(bytes)?),
            224.. => Self::Any(Arbitrary::arbitrary(bytes)?),
        })
    }
}

#[derive(Arbitrary, Debug)]
struct BzImage {
    version: Choice<u16>,
    xloadflags: Choice<u16>,
    loadflags: Choice<u8>,
    setup_sects: u8,
    /// In paragraphs, more or less than there are.
    syssize: Choice<i8>,
    pref_address: Choice<u64>,
    pref_mib: u8,
    init_size: Choice<u32>,
    cmdline_size: Choice<u32>,
    initrd_addr_max: Reach,
    /// Bytes of the kernel proper.
    len: u16,
}

/// How far the kernel reaches for its initrd.
#[derive(Clone, Copy, Debug)]
enum Reach {
    Usual,
    /// So many pages past its own end, or before that.
    Near(i8),
    Any(u32),
}

impl<'a> Arbitrary<'a> for Reach {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u8::arbitrary(bytes)? {
            0..100 => Self::Usual,
            100..228 => Self::Near(i8::arbitrary(bytes)?),
            228.. => Self::Any(u32::arbitrary(bytes)?),
        })
    }
}

#[derive(Arbitrary, Debug)]
struct Elf {
    class: Choice<u8>,
    encoding: Choice<u8>,
    machine: Choice<u16>,
    entry: Choice<u64>,
    phoff: Choice<u64>,
    phentsize: Choice<u16>,
    phnum: Choice<u16>,
    first: Segment,
    more: Vec<Segment>,
    /// Bytes after the headers.
    len: u16,
}

#[derive(Arbitrary, Debug)]
struct Segment {
    kind: Choice<u32>,
    offset: Choice<u64>,
    address: Choice<u64>,
    /// 64 KiB units; the first 16 are not for kernels.
    place: u16,
    filesz: Choice<u64>,
    memsz: Choice<u64>,
    /// 64 KiB units that are in memory only; many: nothing is in the file.
    bss: u8,
}

/// What it should be, or anything.
#[derive(Clone, Copy, Debug)]
enum Choice<T> {
    Good,
    Any(T),
}

/// Mostly good, so that a kernel of many fields is one now and then; and in one byte then.
impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Choice<T> {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u8::arbitrary(bytes)? {
            0..=239 => Self::Good,
            _ => Self::Any(T::arbitrary(bytes)?),
        })
    }
}

impl<T> Choice<T> {
    fn or(self, good: T) -> T {
        match self {
            Self::Any(value) => value,
            _ => good,
        }
    }
}

/// A file, and where its parts go in memory: address, offset in the file, bytes in the file, bytes in memory. Whether these
/// are known, and whether a loader has to refuse it.
struct Image {
    bytes: Vec<u8>,
    parts: Vec<(u64, u64, u64, u64)>,
    known: bool,
    wrong: bool,
}

impl BzImage {
    fn image(&self) -> Image {
        let good_size =
            u32::from(self.len).next_multiple_of(0x1000) + u32::from(self.setup_sects >> 5) * 0x10_0000;
        let mut header = setup_header {
            setup_sects: self.setup_sects % 8,
            boot_flag: 0xaa55,
            header: 0x5372_6448,
            version: self.version.or(0x20f),
            xloadflags: self.xloadflags.or(1),
            loadflags: self.loadflags.or(1),
            code32_start: 0x10_0000,
            pref_address: self.pref_address.or(MIB + u64::from(self.pref_mib % 36) * MIB),
            init_size: self.init_size.or(good_size),
            cmdline_size: self.cmdline_size.or(2047),
            kernel_alignment: 0x20_0000,
            ..Default::default()
        };
        header.initrd_addr_max = match self.initrd_addr_max {
            Reach::Usual => 0x7fff_ffff,
            Reach::Near(pages) => {
                let end = header.pref_address.wrapping_add(header.init_size.into());
                half(end.wrapping_add_signed(i64::from(pages) << 12).wrapping_sub(1), 0)
            }
            Reach::Any(max) => max,
        };
        let paragraphs = i64::from(self.len / 16) + i64::from(self.syssize.or(0));
        header.syssize = u32::try_from(paragraphs).unwrap_or(0);
        let sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
        let start = (sectors + 1) * 512;
        let mut bytes = vec![0; crate::memory::usize_of(start)];
        bytes[0x1f1..0x1f1 + header.as_slice().len()].copy_from_slice(header.as_slice());
        bytes.extend(pattern(self.len.into(), 3));
        let len = u64::from(self.len);
        let in_memory = len.max(header.init_size.into());
        let wrong = header.version < 0x20f || header.xloadflags & 1 == 0 || header.pref_address < MIB;
        Image { bytes, parts: vec![(header.pref_address, start, len, in_memory)], known: true, wrong }
    }
}

impl Elf {
    fn image(&self) -> Image {
        let segments: Vec<_> = std::iter::once(&self.first).chain(self.more.iter().take(3)).collect();
        let count = u16::try_from(segments.len()).expect("few");
        let data = 64 + 56 * u64::from(count);
        let (class, encoding, machine) = (self.class.or(2), self.encoding.or(1), self.machine.or(62));
        let (phoff, phentsize, phnum) = (self.phoff.or(64), self.phentsize.or(56), self.phnum.or(count));
        let mut bytes = b"\x7fELF".to_vec();
        bytes.extend([class, encoding, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        bytes.extend(machine.to_le_bytes());
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(self.entry.or(self.first.good_address()).to_le_bytes());
        bytes.extend(phoff.to_le_bytes());
        bytes.extend([0; 8 + 4]);
        for field in [64, phentsize, phnum, 64, 0, 0] {
            bytes.extend(field.to_le_bytes());
        }
        let known = phoff == 64 && phnum <= count;
        let mut wrong = (class, encoding, machine, phentsize) != (2, 1, 62, 56);
        let mut parts = Vec::new();
        for (number, segment) in (0..).zip(segments) {
            let kind = segment.kind.or(1);
            let (offset, address) = (segment.offset.or(data), segment.address.or(segment.good_address()));
            let in_file = if segment.bss < 192 { self.len.into() } else { 0 };
            let filesz = segment.filesz.or(in_file);
            let memsz = segment.memsz.or(filesz.saturating_add(u64::from(segment.bss % 64) * 0x1_0000));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(7u32.to_le_bytes());
            for field in [offset, address, address, filesz, memsz, 0x1000] {
                bytes.extend(field.to_le_bytes());
            }
            if kind == 1 && number < phnum {
                wrong |= filesz > memsz || memsz > 0 && address < MIB;
                parts.extend((memsz > 0).then_some((address, offset, filesz, memsz)));
            }
        }
        bytes.extend(pattern(self.len.into(), 5));
        Image { bytes, parts, known, wrong: known && wrong }
    }
}

impl Segment {
    fn good_address(&self) -> u64 {
        u64::from(self.place % 540) * 0x1_0000
    }
}

/// Bytes that tell where they are from, and differ between steps. They repeat themselves at no power of two.
fn pattern(len: usize, step: u8) -> Vec<u8> {
    let piece: Vec<u8> = (0..251).map(|at: u8| at.wrapping_mul(step).wrapping_add(7)).collect();
    let mut bytes = piece.repeat(len / piece.len() + 1);
    bytes.truncate(len);
    bytes
}

fn memfd(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
    file.write_all(bytes).expect("memory");
    file.rewind().expect("a memfd");
    file
}

thread_local! {
    static MACHINE: Machine = {
        let arguments = ["cvmm", "run", "--kernel", "k", "--mem", "36M", "--pool", "2M", "--rng", "transport=pci"];
        let Command::Run(arguments) = Cli::try_parse_from(arguments).expect("options").command else {
            panic!("it is run")
        };
        cvmm::machine::describe(&VmConfig::new(&arguments).expect("options").machine).expect("a machine")
    };
}

/// Private memory in one file, whose holes are what nobody has touched.
struct Private {
    file: File,
    memory: GuestMemoryMmap,
    /// Guest-physical ranges; the first is at 0, and each is in the file at its address.
    ranges: Vec<Range<u64>>,
}

impl Private {
    fn new(machine: &Machine) -> Self {
        let pools: Vec<_> = machine.pools.iter().map(|pool| pool.range).collect();
        let ranges = layout::private(&machine.memory, &pools);
        let file = memfd(&[]);
        file.set_len(ranges.last().expect("some").end()).expect("memory");
        let region = |range: &cvmm_firmware::Range| {
            let offset = FileOffset::new(file.try_clone().expect("a file"), range.base());
            let mapping =
                MmapRegion::from_file(offset, crate::memory::usize_of(range.size())).expect("memory");
            GuestRegionMmap::new(mapping, GuestAddress(range.base())).expect("an address")
        };
        let memory = GuestMemoryMmap::from_regions(ranges.iter().map(region).collect()).expect("memory");
        let ranges = ranges.iter().map(|range| range.base()..range.end()).collect();
        Self { file, memory, ranges }
    }

    /// Pieces of memory that were touched, in whole pages.
    fn touched(&self) -> Vec<Range<u64>> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        while let Ok(start) = lseek(self.file.as_fd(), at, Whence::SeekData) {
            let end = lseek(self.file.as_fd(), start, Whence::SeekHole).expect("there is an end");
            pieces.push(u64::try_from(start).expect("positive")..u64::try_from(end).expect("positive"));
            at = end;
        }
        pieces
    }

    fn has(&self, address: u64, len: u64) -> bool {
        let end = u128::from(address) + u128::from(len);
        self.ranges.iter().any(|range| range.start <= address && end <= u128::from(range.end))
    }

    fn read(&self, address: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; crate::memory::usize_of(len)];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).expect("it is private memory");
        bytes
    }

    fn u32(&self, address: u64) -> u64 {
        u32::from_le_bytes(self.read(address, 4).try_into().expect("4 bytes")).into()
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let image = match &input.kernel {
        Kernel::BzImage(kernel) => kernel.image(),
        Kernel::Elf(kernel) => kernel.image(),
        Kernel::Any(bytes) => Image { bytes: bytes.clone(), parts: Vec::new(), known: false, wrong: false },
    };
    let mut machine = MACHINE.with(Machine::clone);
    if let Choice::Any(len) = input.cmdline {
        machine.bootargs = "x".repeat(usize::from(len % 0x1000));
    }
    let initrd = input.initrd.map(|initrd| pattern(initrd.len(), 9));
    let firmware = match input.device_tree {
        Some(len) => Firmware::DeviceTree(pattern(usize::from(len) * 8, 11)),
        None => Firmware::Acpi(acpi_tables(&machine, layout::ACPI_TABLES.base()).expect("tables")),
    };
    let images = Images { kernel: memfd(&image.bytes), initrd: initrd.as_deref().map(memfd), firmware };
    let private = Private::new(&machine);
    let loaded = boot::load(&private.memory, &machine, images);
    // Before we touch more.
    let touched = private.touched();
    assert!(!image.wrong || loaded.is_err(), "it is no kernel for this machine, or not in its place");

    // Nothing is touched but where boot structures, the kernel's parts and the initrd are.
    let mut allowed = BOOT.to_vec();
    allowed.extend(image.parts.iter().map(|(address, _, len, _)| *address..address.saturating_add(*len)));
    let mut place = 0..0;
    if loaded.is_ok() {
        // boot.rst: ramdisk_image and ramdisk_size.
        place.start = private.u32(0x7000 + 0x218);
        place.end = place.start + private.u32(0x7000 + 0x21c);
    }
    if let Some(initrd) = initrd.as_ref().filter(|_| loaded.is_ok()) {
        assert!(private.read(place.start, initrd.len() as u64) == *initrd, "the initrd is in memory");
        assert_eq!(place.end - place.start, initrd.len() as u64, "ramdisk_size");
        allowed.push(place.clone());
    }
    if image.known && loaded.is_ok() {
        for page in touched.iter().cloned().flat_map(|piece| piece.step_by(0x1000)) {
            let hit = allowed.iter().any(|allowed| page < allowed.end && allowed.start < page + 0x1000);
            assert!(hit, "the page at {page:#x} was touched, of {touched:x?}; allowed: {allowed:x?}");
        }
    }
    let Ok(entry) = loaded else { return };

    // The command line ends with a zero; e820 has a pool as RAM, too.
    let cmdline = private.u32(0x7000 + 0x228);
    let bytes = private.read(cmdline, machine.bootargs.len() as u64 + 1);
    assert_eq!(bytes.strip_suffix(&[0]), Some(machine.bootargs.as_bytes()), "the command line");
    if !image.known {
        return;
    }
    // The kernel is whole, has the memory that it asks for, and the initrd is not in it.
    for (address, offset, len, in_memory) in &image.parts {
        assert!(
            private.has(*address, *in_memory),
            "all of {address:#x}, {in_memory:#x} bytes, is private memory"
        );
        let apart = |other: &Range<u64>| other.end <= *address || other.start >= address + in_memory;
        assert!(
            place.is_empty() || apart(&place),
            "the initrd at {place:x?} is in the kernel at {address:#x}"
        );
        assert!(BOOT.iter().all(apart), "the kernel at {address:#x} is in boot structures");
        // Of segments on top of each other, one has its bytes.
        let covers = |(other, _, _, memory): &&(u64, u64, u64, u64)| !apart(&(*other..other + memory));
        if *len > 0 && image.parts.iter().filter(covers).count() == 1 {
            let offset = crate::memory::usize_of(*offset);
            let expected = &image.bytes[offset..offset + crate::memory::usize_of(*len)];
            assert!(private.read(*address, *len) == expected, "the kernel at {address:#x} is whole");
        }
    }
    let entry = format!("{entry:?}");
    let entry = entry.strip_prefix("Entry(").and_then(|entry| entry.strip_suffix(')')).expect("a number");
    let entry: u64 = entry.parse().expect("a number");
    assert!(private.has(entry, 1), "the entry at {entry:#x} is private memory");
}
