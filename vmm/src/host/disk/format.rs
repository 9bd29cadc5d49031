// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is no raw image, by the bytes that such files begin or end with. Nothing else of them is looked at.
//!
//! Such a file as a disk would show the guest the container's tables, and let it write them: a table can name other files
//! of the host. So it is refused, a block device with such contents too. The guest of a raw image can write these bytes as
//! well, and its disk would be refused at the next start: `format=raw` is the way out, and looks at nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How many bytes are read of each end: a VHD's footer.
const LOOKED_AT: u64 = 512;

/// What stands where. Counted from the start, or from the end.
enum Place {
    Start(usize),
    End(usize),
}
use Place::{End, Start};

/// How it becomes raw.
enum Way {
    Convert,
    Unpack,
}
use Way::{Convert, Unpack};

/// Name, place, bytes, way. Sources: QEMU's block/*.c, the formats' own specifications, file(1)'s list.
const FORMATS: &[(&str, Place, &[u8], Way)] = &[
    ("qcow", Start(0), b"QFI\xfb\0\0\0\x01", Convert),
    ("qcow2", Start(0), b"QFI\xfb", Convert),
    ("QED", Start(0), b"QED\0", Convert),
    ("VHDX", Start(0), b"vhdxfile", Convert),
    ("VMDK", Start(0), b"KDMV", Convert),
    ("VMDK", Start(0), b"COWD", Convert),
    ("VHD", Start(0), b"conectix", Convert),
    ("VHD", End(512), b"conectix", Convert),
    // Old ones have a footer of 511 bytes.
    ("VHD", End(511), b"conectix", Convert),
    ("VDI", Start(64), &0xbeda_107f_u32.to_le_bytes(), Convert),
    ("Parallels", Start(0), b"WithoutFreeSpace", Convert),
    ("Parallels", Start(0), b"WithouFreSpacExt", Convert),
    ("DMG", End(512), b"koly\0\0\0\x04", Convert),
    ("Bochs", Start(0), b"Bochs Virtual HD Image", Convert),
    ("cloop", Start(0), b"#!/bin/sh\n#V2.0 Format", Convert),
    ("gzip", Start(0), b"\x1f\x8b\x08", Unpack),
    ("xz", Start(0), b"\xfd7zXZ\0", Unpack),
    ("zstd", Start(0), b"\x28\xb5\x2f\xfd", Unpack),
    ("bzip2", Start(4), b"1AY&SY", Unpack),
    ("lz4", Start(0), b"\x04\x22\x4d\x18", Unpack),
    ("zip", Start(0), b"PK\x03\x04", Unpack),
    ("zstd", Start(1), b"\x2a\x4d\x18", Unpack),
    ("lzma", Start(0), b"\x5d\0\0", Unpack),
    ("compress", Start(0), b"\x1f\x9d", Unpack),
    ("EWF", Start(0), b"EVF\x09\x0d\x0a\xff\0", Convert),
    // An OVA is one with a disk in it. (ustar, POSIX 1003.1, pax)
    ("tar", Start(257), b"ustar", Unpack),
    ("7z", Start(0), b"7z\xbc\xaf\x27\x1c", Unpack),
    ("Android sparse", Start(0), &0xed26_ff3a_u32.to_le_bytes(), Unpack),
    ("lzip", Start(0), b"LZIP", Unpack),
    ("partclone", Start(0), b"partclone-image", Unpack),
    ("CHD", Start(0), b"MComprHD", Unpack),
    ("sparse DMG", Start(0), b"sprs", Unpack),
    ("encrypted DMG", Start(0), b"encrcdsa", Unpack),
    // Version 1.
    ("encrypted DMG", End(8), b"cdsaencr", Unpack),
];

/// Refuses a file of `size` bytes that is no raw image.
///
/// # Errors
/// What it is and what would be right, for a message that names the option.
pub(super) fn refuse(file: &File, size: u64) -> Result<(), String> {
    let read = |offset| {
        let mut bytes = vec![0; usize::try_from(size.min(LOOKED_AT)).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset)?;
        io::Result::Ok(bytes)
    };
    let unreadable = |error| format!("it can't be read: {error}");
    let start = read(0).map_err(unreadable)?;
    let end = read(size.saturating_sub(LOOKED_AT)).map_err(unreadable)?;
    let Some((name, way)) = recognise(&start, &end) else { return Ok(()) };
    let way = match way {
        Convert => "convert it with qemu-img convert -O raw OLD NEW",
        Unpack => "unpack it first",
    };
    Err(format!("it seems to be in {name} format: {way}, or add ,format=raw if it really is raw"))
}

/// The format of a file with this start and end.
fn recognise(start: &[u8], end: &[u8]) -> Option<(&'static str, &'static Way)> {
    let there = |place: &Place, magic: &[u8]| {
        let bytes = match place {
            Start(at) => start.get(*at..),
            End(at) => end.len().checked_sub(*at).and_then(|at| end.get(at..)),
        };
        bytes.is_some_and(|bytes| bytes.starts_with(magic))
    };
    let format = FORMATS.iter().find(|(_, place, magic, _)| there(place, magic));
    let vmdk = || is_vmdk_descriptor(start).then_some(("VMDK", &Convert));
    format.map(|(name, .., way)| (*name, way)).or_else(vmdk)
}

/// A VMDK's descriptor is text. Comments and empty lines may be before its first words, as QEMU takes it (block/vmdk.c,
/// vmdk_probe).
fn is_vmdk_descriptor(start: &[u8]) -> bool {
    let lines = start.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = lines.skip_while(|line| {
        line.is_empty() || line.starts_with(b"#") && !line.starts_with(b"# Disk DescriptorFile")
    });
    let first = lines.next().unwrap_or_default();
    [&b"# Disk DescriptorFile"[..], b"version=1", b"version=2", b"version=3"]
        .iter()
        .any(|words| first.starts_with(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::disk::tests::open;

    /// A file of 1 MiB with these bytes at this offset.
    fn image(offset: u64, bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        file.as_file().write_all_at(bytes, offset).unwrap();
        file
    }

    /// Each of these can be had on purpose.
    #[test]
    fn containers_are_refused_and_named() {
        let last = (1 << 20) - 512;
        for (offset, magic, expected) in [
            (0, &b"QFI\xfb\0\0\0\x01"[..], "in qcow format"),
            (0, b"QFI\xfb\0\0\0\x02", "in qcow2 format"),
            (0, b"QFI\xfb\0\0\0\x03", "in qcow2 format"),
            (0, b"QED\0", "in QED format"),
            (0, b"vhdxfile", "in VHDX format"),
            (0, b"KDMV\x01\0\0\0", "in VMDK format"),
            (0, b"COWD", "in VMDK format"),
            (0, b"# Disk DescriptorFile\nversion=1\n", "in VMDK format"),
            (0, b"\n# Disk DescriptorFile\nversion=1\n", "in VMDK format"),
            (0, b"  \r\n\r\n# a disk of mine\r\n# Disk DescriptorFile\r\n", "in VMDK format"),
            (0, b"# a disk of mine\n\nversion=1\nCID=fffffffe\n", "in VMDK format"),
            (0, b"conectix", "in VHD format"),
            (last, b"conectix", "in VHD format"),
            (last + 1, b"conectix", "in VHD format"),
            (64, b"\x7f\x10\xda\xbe", "in VDI format"),
            (0, b"WithoutFreeSpace", "in Parallels format"),
            (0, b"WithouFreSpacExt", "in Parallels format"),
            (last, b"koly\0\0\0\x04\0\0\x02\0", "in DMG format"),
            (0, b"EVF\x09\x0d\x0a\xff\0\x01", "in EWF format"),
            (0, b"Bochs Virtual HD Image\0\0\0", "in Bochs format"),
            (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0", "in cloop format"),
        ] {
            let image = image(offset, magic);
            for read_only in [false, true] {
                let error = open(image.path(), read_only, false).unwrap_err();
                assert!(error.contains(expected) && error.contains("qemu-img convert -O raw"), "{error}");
                assert!(error.contains("format=raw"), "{error}");
                assert!(open(image.path(), read_only, true).is_ok(), "{expected}");
            }
        }
        for (offset, magic, expected) in [
            (0, &b"\x1f\x8b\x08"[..], "in gzip format"),
            (0, b"\xfd7zXZ\0", "in xz format"),
            (0, b"\x28\xb5\x2f\xfd", "in zstd format"),
            (0, b"BZh91AY&SY", "in bzip2 format"),
            (0, b"\x04\x22\x4d\x18", "in lz4 format"),
            (0, b"PK\x03\x04", "in zip format"),
            (0, b"7z\xbc\xaf\x27\x1c", "in 7z format"),
            (0, b"\x3a\xff\x26\xed", "in Android sparse format"),
            (0, b"\x50\x2a\x4d\x18", "in zstd format"),
            (0, b"\x5d\0\0\x80\0", "in lzma format"),
            (0, b"\x1f\x9d\x90", "in compress format"),
            (257, b"ustar\x0000", "in tar format"),
            (0, b"LZIP\x01\x0c", "in lzip format"),
            (0, b"partclone-image\x000.3.", "in partclone format"),
            (0, b"MComprHD\0\0\0\x7c", "in CHD format"),
            (0, b"sprs\0\0\0\x03", "in sparse DMG format"),
            (0, b"encrcdsa\0\0\0\x02", "in encrypted DMG format"),
            ((1 << 20) - 8, b"cdsaencr", "in encrypted DMG format"),
        ] {
            let error = open(image(offset, magic).path(), false, false).unwrap_err();
            assert!(error.contains(expected) && error.contains("unpack it first"), "{error}");
        }
    }

    /// A file of a format is seldom a whole number of sectors: what it is, is told first.
    #[test]
    fn a_short_file_is_named_by_its_format() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for contents in [&b"# Disk DescriptorFile\nversion=1\n"[..], b"QFI\xfb"] {
            file.as_file().set_len(0).unwrap();
            file.as_file().write_all_at(contents, 0).unwrap();
            let error = open(file.path(), false, false).unwrap_err();
            assert!(error.contains("qemu-img"), "{error}");
        }
    }

    /// They are what guests have: boot sectors, a GPT, file systems, LUKS, an ISO.
    #[test]
    fn raw_contents_are_taken() {
        let last = (1 << 20) - 512;
        for (offset, magic) in [
            (510, &b"\x55\xaa"[..]),
            (512, b"EFI PART"),
            (last, b"EFI PART"),
            (0, b"LUKS\xba\xbe\0\x02"),
            (0, b"XFSB"),
            (0x438, b"\x53\xef"),
            (0x8001, b"CD001"),
            // The formats' own bytes in a place where they mean nothing.
            (512, b"QFI\xfb"),
            (1, b"QFI\xfb"),
            (last, b"QFI\xfb"),
            (last - 512, b"conectix"),
            // Text of another kind, or none.
            (0, b"#!/bin/sh\n\necho version=1\n"),
            (0, b"# Disk\nDescriptorFile\nversion=1\n"),
            (0, b"\n\n\n"),
        ] {
            let opened = open(image(offset, magic).path(), false, false);
            assert!(opened.is_ok(), "{offset}: {magic:?}: {opened:?}");
        }
    }
}
