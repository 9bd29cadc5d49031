// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ELF kernels. Offsets are those of the System V gABI, chapters 4 and 5, for 64 bits.

use super::*;

const BASE: u64 = 0x20_0000;

/// An ELF kernel with these segments: physical address, bytes in the file, bytes in memory. It starts at [`BASE`].
fn elf(segments: &[(u64, u64, u64)]) -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &[2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86_64, version 1
    put(&mut image, 24, &BASE.to_le_bytes()); // entry
    put(&mut image, 32, &64u64.to_le_bytes()); // program headers
    put(&mut image, 52, &[64, 0, 56, 0]); // header sizes
    put(&mut image, 56, &u16::try_from(segments.len()).unwrap().to_le_bytes());
    for (number, (address, file, memory)) in segments.iter().enumerate() {
        let at = 64 + 56 * number;
        put(&mut image, at, &[1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD
        for (field, value) in [0x200, *address, *address, *file, *memory, 0x1000].into_iter().enumerate() {
            put(&mut image, at + 8 + 8 * field, &u64::to_le_bytes(value));
        }
    }
    put(&mut image, 0x200, b"elf kernel");
    image
}

#[test]
fn an_elf_kernel_starts_at_its_entry() {
    let mut image = elf(&[(BASE, 16, 0x1000)]);
    put(&mut image, 24, &(BASE + 0x10).to_le_bytes());
    let (memory, entry) = boot(&image, None, "");
    assert_eq!(entry.unwrap().0, BASE + 0x10);
    assert_eq!(memory.read_obj::<[u8; 10]>(GuestAddress(BASE)).unwrap(), *b"elf kernel");
    assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(ZERO_PAGE + 0x202)).unwrap(), *b"HdrS");
    // A segment that would lie in the pool has no memory to go to.
    put(&mut image, 88, &POOL.base().to_le_bytes());
    put(&mut image, 24, &POOL.base().to_le_bytes());
    assert!(matches!(error(&image, None, ""), Error::NoRoom { extent } if extent.base() == POOL.base()));
    // All of it may be above the pool.
    let mut image = elf(&[(POOL.end(), 16, 0x1000)]);
    put(&mut image, 24, &POOL.end().to_le_bytes());
    assert_eq!(boot(&image, None, "").1.unwrap().0, POOL.end());
}

/// 32 bits, big endian, aarch64, program headers of 32 bits: each is told.
#[test]
fn an_elf_file_of_another_machine_is_no_kernel() {
    let with = |at, value: &[u8]| {
        let mut image = elf(&[(BASE, 16, 16)]);
        put(&mut image, at, value);
        match error(&image, None, "") {
            Error::ElfHeader { field, is, needed } => (field, is, needed),
            other => panic!("{other}"),
        }
    };
    assert_eq!(with(4, &[1]), ("EI_CLASS", 1, 2));
    assert_eq!(with(5, &[2]), ("EI_DATA", 2, 1));
    assert_eq!(with(18, &[183, 0]), ("e_machine", 183, 62));
    assert_eq!(with(54, &[32, 0]), ("e_phentsize", 32, 56));
    let error = error(b"\x7fELF", None, "");
    assert!(matches!(error, Error::ElfTruncated) && error.image() == Image::Kernel);
}

#[test]
fn segments_are_above_the_first_megabyte_and_hold_what_is_in_the_file() {
    let refused = |segments: &[(u64, u64, u64)]| error(&elf(segments), None, "");
    // Over the zero page; just below the first megabyte's end; without a byte in the file.
    for place in [0x7000, 0xf_ffff] {
        for file in [0, 16] {
            let error = refused(&[(BASE, 16, 16), (place, file, 16)]);
            assert!(matches!(error, Error::Place { address } if address == place), "{error}");
        }
    }
    // Past the last address: the place itself may be right.
    for (place, size) in [(u64::MAX - 8, 16), (0x30_0000, u64::MAX - 0xf_ffff)] {
        let error = refused(&[(BASE, 16, 16), (place, 0, size)]);
        assert!(
            matches!(error, Error::ElfSegmentEnd { address, memory } if (address, memory) == (place, size)),
            "{error}"
        );
        assert!(error.image() == Image::Kernel);
    }
    let small = refused(&[(BASE, 16, 15)]);
    assert!(matches!(small, Error::ElfSegment { address: BASE, file: 16, memory: 15 }), "{small}");
    assert!(matches!(refused(&[]), Error::ElfEmpty));
    assert!(matches!(refused(&[(BASE, 0, 0)]), Error::ElfEmpty));
    // It would start between segments' ends and nowhere.
    let nowhere = refused(&[(BASE + 1, 16, 16)]);
    assert!(matches!(nowhere, Error::ElfEntry { entry: BASE, .. }), "{nowhere}");
    let headers = |at, value: &[u8]| {
        let mut image = elf(&[(BASE, 16, 16)]);
        put(&mut image, at, value);
        error(&image, None, "")
    };
    assert!(matches!(headers(56, &[100, 0]), Error::ElfTruncated), "100 program headers");
    assert!(matches!(headers(32, &u64::MAX.to_le_bytes()), Error::ElfTruncated), "e_phoff");
    let inside = headers(32, &63u64.to_le_bytes());
    assert!(matches!(inside, Error::ElfProgramHeaders { offset: 63 }), "{inside}");
    // Contents past the end of the file, by a byte and by all that there is.
    for (offset, end) in [(0xff1, 0x1001), (u64::MAX, u64::MAX)] {
        let cut = headers(64 + 8, &u64::to_le_bytes(offset));
        assert!(matches!(cut, Error::Truncated { len: 0x1000, expected } if expected == end), "{cut}");
    }
    assert!(boot(&with_offset(0xff0), None, "").1.is_ok());
}

/// What has no byte in the file has room in memory all the same (gABI, 5: "the extra bytes are defined to hold the value 0").
#[test]
fn memory_without_file_contents_belongs_to_the_kernel() {
    let mib = 1 << 20;
    // Into the pool, and past the end of memory.
    for (address, len) in [(POOL.base() - mib, 2 * mib), (MEMORY - mib, 2 * mib)] {
        let refused = error(&elf(&[(BASE, 16, 16), (address, 0, len)]), None, "");
        assert!(matches!(refused, Error::NoRoom { .. }), "{refused}");
    }
    // All but 1 MiB of the memory below the pool; above it are 22 MiB, which this initrd does not fit.
    let kernel = elf(&[(BASE, 16, 16), (BASE + mib, 0, POOL.base() - BASE - 2 * mib)]);
    assert!(boot(&kernel, Some(&vec![1; 22 << 20]), "").1.is_ok());
    let refused = error(&kernel, Some(&vec![1; (22 << 20) + 1]), "");
    assert!(matches!(refused, Error::InitrdTooLarge { .. }), "{refused}");
}

/// One whose only segment has its contents at `offset`.
fn with_offset(offset: u64) -> Vec<u8> {
    let mut image = elf(&[(BASE, 16, 16)]);
    put(&mut image, 64 + 8, &offset.to_le_bytes());
    image
}

/// Notes are for other loaders, whatever is in them. Of a name of 4 bytes, "Xen", and type 18 is what the boot protocol PVH
/// has; then follow the sizes of name and contents, and the type.
#[test]
fn a_kernel_may_have_any_notes() {
    let note = |name: u32, contents: u32, kind: u32, rest: &[u8]| -> Vec<u8> {
        [&name.to_le_bytes(), &contents.to_le_bytes(), &kind.to_le_bytes(), rest].concat()
    };
    let last = u64::MAX - 8;
    for (what, note, offset, length) in [
        ("none", vec![], 0x800, 0),
        ("PVH", note(4, 4, 18, b"Xen\0\0\0\x20\0"), 0x800, 20),
        ("PVH with 8 bytes", note(4, 8, 18, b"Xen\0\0\0\x20\0\0\0\0\0"), 0x800, 24),
        ("PVH without contents", note(4, 0, 18, b"Xen\0"), 0x800, 16),
        ("a build ID", note(4, 20, 3, b"GNU\0"), 0x800, 36),
        ("a name without end", note(u32::MAX, 4, 1, b"x"), 0x800, 64),
        ("contents without end", note(4, u32::MAX, 1, b"GNU\0"), 0x800, 64),
        ("half a header", vec![1; 6], 0xffa, 6),
        ("past the end of the file", vec![], 0x1000, 64),
        ("past all files", vec![], last, 64),
        ("more than a file has", vec![], 0x800, u64::MAX),
    ] {
        let mut image = elf(&[(BASE, 16, 0x1000), (BASE, 0, 0)]);
        put(&mut image, if length == 6 { 0xffa } else { 0x800 }, &note);
        let header = 64 + 56;
        put(&mut image, header, &[4]); // PT_NOTE
        put(&mut image, header + 8, &u64::to_le_bytes(offset));
        put(&mut image, header + 32, &u64::to_le_bytes(length));
        let entry = boot(&image, None, "").1;
        assert!(entry.as_ref().is_ok_and(|entry| entry.0 == BASE), "{what}: {entry:?}");
    }
}

/// A file of some kilobytes would have its loader copy for days.
#[test]
fn a_small_file_does_not_make_much_work() {
    let overlapping = error(&elf(&[(BASE, 16, 0x1000), (BASE + 0x800, 16, 0x1000)]), None, "");
    assert!(matches!(overlapping, Error::ElfOverlap { sum: 0x2000, extent } if extent.size() == 0x1800));
    // Notes are not read: 1 TiB of them in a file that has holes.
    let mut image = elf(&[(BASE, 16, 0x1000), (BASE, 0, 0)]);
    put(&mut image, 64 + 56, &[4]); // PT_NOTE
    put(&mut image, 64 + 56 + 32, &u64::to_le_bytes(1 << 40));
    let kernel = file(&image);
    kernel.set_len(1 << 41).unwrap();
    let images = Images { kernel, initrd: None, firmware: Firmware::DeviceTree(vec![]) };
    assert_eq!(load(&private(), &machine(""), images).unwrap().0, BASE);
}
