// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ELF kernels (System V gABI, chapters 4 and 5): what linux-loader does not look at before it copies segments.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use cvmm_firmware::Range;
use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, EM_X86_64, Elf64_Ehdr, Elf64_Phdr, PT_LOAD,
};
use vm_memory::ByteValued;

use super::LOWEST_LOAD;
use crate::x86_64::boot::{Error, Result};

/// Bytes of a header and of a program header of 64 bits.
const EHDR_SIZE: u64 = 64;
const PHDR_SIZE: u16 = 56;

/// The addresses that the segments of `image`, a file of `len` bytes, take, also those that only have room in memory; the
/// entry is among them.
pub(super) fn extent(image: &mut File, len: u64) -> Result<Range> {
    image.rewind().map_err(Error::KernelRead)?;
    let mut header = Elf64_Ehdr::default();
    read(image, header.as_mut_slice())?;
    let [class, data] = [EI_CLASS, EI_DATA].map(|at| u16::from(header.e_ident[at]));
    for (field, is, needed) in [
        ("EI_CLASS", class, u16::from(ELFCLASS64)),
        ("EI_DATA", data, u16::from(ELFDATA2LSB)),
        ("e_machine", header.e_machine, EM_X86_64),
        ("e_phentsize", header.e_phentsize, PHDR_SIZE),
    ] {
        if is != needed {
            return Err(Error::ElfHeader { field, is, needed });
        }
    }
    if header.e_phoff < EHDR_SIZE {
        return Err(Error::ElfProgramHeaders { offset: header.e_phoff });
    }
    image.seek(SeekFrom::Start(header.e_phoff)).map_err(|_| Error::ElfTruncated)?;
    let (mut base, mut end) = (u64::MAX, 0);
    let mut sum = 0u64;
    for _ in 0..header.e_phnum {
        let mut segment = Elf64_Phdr::default();
        read(image, segment.as_mut_slice())?;
        let Elf64_Phdr { p_type, p_offset, p_paddr, p_filesz, p_memsz, .. } = segment;
        if p_type != PT_LOAD {
            continue;
        }
        sum = sum.saturating_add(p_memsz);
        if p_filesz > p_memsz {
            return Err(Error::ElfSegment { address: p_paddr, file: p_filesz, memory: p_memsz });
        }
        let file_end = p_offset.saturating_add(p_filesz);
        if p_filesz > 0 && file_end > len {
            return Err(Error::Truncated { len, expected: file_end });
        }
        if p_memsz > 0 {
            let past = Error::ElfSegmentEnd { address: p_paddr, memory: p_memsz };
            (base, end) = (base.min(p_paddr), end.max(p_paddr.checked_add(p_memsz).ok_or(past)?));
        }
    }
    if base < LOWEST_LOAD {
        return Err(Error::Place { address: base });
    }
    let entry = header.e_entry;
    let extent = Range::from_bounds(base, end).ok_or(Error::ElfEmpty)?;
    // If none overlap they fit between the lowest and the highest.
    if sum > extent.size() {
        return Err(Error::ElfOverlap { sum, extent });
    }
    match (extent.base()..extent.end()).contains(&entry) {
        true => Ok(extent),
        false => Err(Error::ElfEntry { entry, extent }),
    }
}

fn read(image: &mut File, to: &mut [u8]) -> Result<()> {
    image.read_exact(to).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::ElfTruncated,
        _ => Error::KernelRead(error),
    })
}
