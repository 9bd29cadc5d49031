// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A block device, without the page cache in between.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{Context, Result, bail};

use crate::guest::machine;
use crate::pattern;

nix::ioctl_write_ptr_bad!(discard, 0x1277, [u64; 2]);
nix::ioctl_write_ptr_bad!(zero_out, 0x127f, [u64; 2]);

/// Direct I/O wants memory aligned like the disk's blocks.
const ALIGNMENT: usize = 4096;

/// A disk by its name, `vda`.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) name: String,
}

impl Disk {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    pub(super) fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    pub(super) fn attribute(&self, attribute: &str) -> Result<String> {
        machine::text(format!("/sys/block/{}/{attribute}", self.name))
    }

    pub(super) fn attribute_number(&self, attribute: &str) -> Result<u64> {
        machine::number(format!("/sys/block/{}/{attribute}", self.name))
    }

    pub(super) fn set_attribute(&self, attribute: &str, value: &str) -> Result<()> {
        let path = format!("/sys/block/{}/{attribute}", self.name);
        fs::write(&path, value).with_context(|| format!("write '{value}' to {path}"))
    }

    /// In bytes; the kernel counts sectors.
    pub(super) fn size(&self) -> Result<u64> {
        Ok(self.attribute_number("size")? * 512)
    }

    /// Opens the disk for direct I/O.
    pub(super) fn open(&self, write: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(write).custom_flags(libc::O_DIRECT).open(self.path())
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let file = self.open(false).with_context(|| self.path())?;
        let mut buffer = Aligned::new(length);
        file.read_exact_at(buffer.bytes(), offset)
            .with_context(|| format!("read {length} bytes at {offset}"))?;
        Ok(buffer.bytes().to_vec())
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut buffer = Aligned::new(data.len());
        buffer.bytes().copy_from_slice(data);
        self.open(true)?.write_all_at(buffer.bytes(), offset)
    }

    /// A flush: what was written before is on the disk after.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.open(true)?.sync_all()
    }

    pub(super) fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let file = self.open(true)?;
        // SAFETY: the kernel reads the two numbers and keeps no pointer.
        unsafe { discard(file.as_raw_fd(), &[offset, length]) }.context("BLKDISCARD")?;
        Ok(())
    }

    pub(super) fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        let file = self.open(true)?;
        // SAFETY: the kernel reads the two numbers and keeps no pointer.
        unsafe { zero_out(file.as_raw_fd(), &[offset, length]) }.context("BLKZEROOUT")?;
        Ok(())
    }
}

/// Whether a range of the disk holds the pattern's bytes for that place.
pub(in crate::guest) fn holds_pattern(name: &str, seed: u64, offset: u64, length: usize) -> Result<()> {
    let mut expected = vec![0; length];
    pattern::fill(seed, offset, &mut expected);
    same(&Disk::new(name).read(offset, length)?, &expected, offset)
}

/// Compares what was read at `offset` with what should be there.
pub(super) fn same(read: &[u8], expected: &[u8], offset: u64) -> Result<()> {
    match read.iter().zip(expected).position(|(is, should)| is != should) {
        None if read.len() == expected.len() => Ok(()),
        None => bail!("{} bytes, but {} were expected", read.len(), expected.len()),
        Some(at) => bail!(
            "byte {} of the disk is {:#04x}, but should be {:#04x}",
            offset + at as u64,
            read[at],
            expected[at]
        ),
    }
}

/// A buffer for direct I/O.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}
