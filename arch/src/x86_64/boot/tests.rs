// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Images that are good and bad, and what the kernel finds in memory. Offsets are those of boot.rst.

mod elf;

use std::io::{Seek, Write};

use cvmm_firmware::{Pool, SleepRegisters, SystemDevices};

use super::*;

const MEMORY: u64 = 64 << 20;
const POOL: Range = Range::fixed(40 << 20, 2 << 20);
const PREF: u64 = 16 << 20;

fn machine(bootargs: &str) -> Machine {
    let system = SystemDevices {
        uart: (layout::UART, layout::UART_PIN),
        power: layout::POWER,
        power_off_value: 1,
        reset_value: 2,
        sleep: SleepRegisters { window: layout::SLEEP, type_off: 5, reset_value: 1 },
        pvpanic: layout::PVPANIC,
    };
    Machine {
        memory: layout::memory(MEMORY),
        pools: vec![Pool { name: "pool".into(), range: POOL, dma_default: false }],
        cpus: vec![0],
        local_apic: layout::local_apic(),
        io_apic: layout::io_apic(),
        system,
        pci: None,
        virtio: Vec::new(),
        bootargs: bootargs.into(),
    }
}

fn private() -> GuestMemoryMmap {
    let ranges: Vec<_> = layout::private(&layout::memory(MEMORY), &[POOL])
        .iter()
        .map(|range| (GuestAddress(range.base()), usize::try_from(range.size()).unwrap()))
        .collect();
    GuestMemoryMmap::from_ranges(&ranges).unwrap()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A bzImage of one setup sector and 4 KiB, with the fields of boot.rst set one by one.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 2 * 512 + 4096];
    put(&mut image, 0x1f1, &[1]); // setup_sects
    put(&mut image, 0x1f4, &256u32.to_le_bytes()); // syssize, in paragraphs
    put(&mut image, 0x1fe, &0xaa55u16.to_le_bytes()); // boot_flag
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &0x20fu16.to_le_bytes()); // version
    put(&mut image, 0x211, &[1]); // loadflags: LOADED_HIGH
    put(&mut image, 0x214, &0x10_0000u32.to_le_bytes()); // code32_start
    put(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes()); // initrd_addr_max
    put(&mut image, 0x236, &1u16.to_le_bytes()); // xloadflags: 64-bit entry
    put(&mut image, 0x238, &2047u32.to_le_bytes()); // cmdline_size
    put(&mut image, 0x258, &PREF.to_le_bytes()); // pref_address
    put(&mut image, 0x260, &(8u32 << 20).to_le_bytes()); // init_size
    put(&mut image, 1024, b"kernel");
    image
}

fn boot(kernel: &[u8], initrd: Option<&[u8]>, bootargs: &str) -> (GuestMemoryMmap, Result<Entry>) {
    let memory = private();
    let images = Images {
        kernel: file(kernel),
        initrd: initrd.map(file),
        firmware: Firmware::DeviceTree(vec![0xd0, 0x0d, 0xfe, 0xed]),
    };
    let entry = load(&memory, &machine(bootargs), images);
    (memory, entry)
}

fn error(kernel: &[u8], initrd: Option<&[u8]>, bootargs: &str) -> Error {
    boot(kernel, initrd, bootargs).1.expect_err("it must not load")
}

#[test]
fn the_kernel_finds_what_the_boot_protocol_promises() {
    let (memory, entry) = boot(&bzimage(), Some(&[7; 5000]), "console=x");
    assert_eq!(entry.unwrap().0, PREF + 0x200);
    let read32 = |at| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
    let read64 = |at| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
    let bytes = |at, len| {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    };
    assert_eq!(bytes(PREF, 6), b"kernel");
    assert_eq!(bytes(u64::from(read32(ZERO_PAGE + 0x228)), 10), b"console=x\0");
    // The initrd is above the pool, where there are 22 MiB, at the end of memory.
    let initrd = u64::from(read32(ZERO_PAGE + 0x218));
    assert_eq!((initrd, read32(ZERO_PAGE + 0x21c)), (MEMORY - 8192, 5000));
    assert_eq!(bytes(initrd, 5000), [7; 5000]);
    // setup_data: the pool's reservation first.
    let chain = read64(ZERO_PAGE + 0x250);
    assert_eq!(
        (read32(chain + 8), read64(chain + 24), read64(chain + 32)),
        (1 << 31, POOL.size(), POOL.base())
    );
    // e820: RAM below the legacy hole, the hole, the rest as one piece with the pool in it.
    assert_eq!(bytes(ZERO_PAGE + 0x1e8, 1), [3]);
    let e820 = |n: u64| {
        let at = ZERO_PAGE + 0x2d0 + 20 * n;
        (read64(at), read64(at + 8), read32(at + 16))
    };
    assert_eq!(
        [e820(0), e820(1), e820(2)],
        [(0, 0x9_fc00, 1), (0x9_fc00, 0x6_0400, 2), (0x10_0000, MEMORY - 0x10_0000, 1)]
    );
}

/// The first 4 GiB are mapped to themselves, so the kernel, the zero page and the command line are.
#[test]
fn the_page_tables_map_addresses_to_themselves() {
    let (memory, _) = boot(&bzimage(), None, "");
    let entry = |table: u64, index: u64| memory.read_obj::<u64>(GuestAddress(table + index * 8)).unwrap();
    for address in [0, ZERO_PAGE, PREF + 0x200, (4 << 30) - 1] {
        let frame = |entry: u64| entry & 0x000f_ffff_ffff_f000;
        let pdpt = entry(page_tables::PML4, address >> 39);
        let directory = entry(frame(pdpt), address >> 30 & 511);
        let page = entry(frame(directory), address >> 21 & 511);
        assert!([pdpt, directory, page].iter().all(|entry| entry & 3 == 3) && page & 1 << 7 != 0);
        assert_eq!(frame(page) + (address & 0x1f_ffff), address);
    }
}

#[test]
fn a_bad_kernel_is_told_apart() {
    assert!(matches!(error(b"", None, ""), Error::NotAKernel));
    assert!(matches!(error(&[0; 4096], None, ""), Error::NotAKernel));
    let image = bzimage();
    let len = image.len() as u64;
    match error(&image[..image.len() - 1], None, "") {
        Error::Truncated { len: found, expected } => assert_eq!((found, expected), (len - 1, len)),
        other => panic!("{other}"),
    }
    let with = |at, value: &[u8]| {
        let mut image = bzimage();
        put(&mut image, at, value);
        error(&image, None, "")
    };
    assert!(matches!(with(0x206, &0x20eu16.to_le_bytes()), Error::TooOld { version: 0x20e }));
    assert!(matches!(with(0x236, &[0, 0]), Error::TooOld { .. }));
    // It would unpack over the pool, or past the end of memory.
    assert!(matches!(with(0x260, &(24u32 << 20).wrapping_add(1).to_le_bytes()), Error::NoRoom { .. }));
    assert!(matches!(with(0x260, &u32::MAX.to_le_bytes()), Error::NoRoom { .. }));
    // The file has more than it unpacks: a page more than there is between its place and the pool.
    let mut long = bzimage();
    put(&mut long, 0x258, &(POOL.base() - 4096).to_le_bytes());
    put(&mut long, 0x260, &4096u32.to_le_bytes());
    assert!(boot(&long, None, "").1.is_ok());
    long.extend([0; 4096]);
    let end = POOL.base() + 4096;
    assert!(matches!(error(&long, None, ""), Error::NoRoom { extent } if extent.end() == end));
    assert!(matches!(with(0x258, &POOL.base().to_le_bytes()), Error::NoRoom { .. }));
    // Over the zero page; just below the first megabyte's end; above 4 GiB.
    for place in [0x7000, 0xf_ffff, 1u64 << 32, u64::MAX] {
        assert!(matches!(with(0x258, &place.to_le_bytes()), Error::Place { address } if address == place));
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let image = bzimage();
    assert!(boot(&image, None, &"x".repeat(2047)).1.is_ok());
    match error(&image, None, &"x".repeat(2048)) {
        Error::CmdlineTooLong { len, max } => assert_eq!((len, max), (2048, 2047)),
        other => panic!("{other}"),
    }
    assert!(matches!(error(&image, Some(b""), ""), Error::InitrdEmpty));
    // 22 MiB above the pool; between the kernel's 24 MiB and the pool there are 16.
    assert!(boot(&image, Some(&vec![1; 22 << 20]), "").1.is_ok());
    assert!(matches!(error(&image, Some(&vec![1; (22 << 20) + 1]), ""), Error::InitrdTooLarge { .. }));
    // The kernel is above the pool, so the initrd is below it, and above the first megabyte.
    let mut high = bzimage();
    put(&mut high, 0x258, &POOL.end().to_le_bytes());
    put(&mut high, 0x260, &0x10_0000u32.to_le_bytes());
    let room = usize::try_from(POOL.base() - 0x10_0000).unwrap();
    let (memory, loaded) = boot(&high, Some(&vec![1; room]), "");
    assert!(loaded.is_ok());
    assert_eq!(memory.read_obj::<u32>(GuestAddress(ZERO_PAGE + 0x218)).unwrap(), 0x10_0000);
    assert!(matches!(error(&high, Some(&vec![1; room + 1]), ""), Error::InitrdTooLarge { .. }));
    let images =
        Images { kernel: file(&image), initrd: None, firmware: Firmware::DeviceTree(vec![0; 0x7_0000]) };
    let too_large = load(&private(), &machine(""), images).unwrap_err();
    assert!(matches!(too_large, Error::DeviceTreeTooLarge { .. }));
}
