// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks: a file or a block device, locked while the guest runs.

#![allow(unsafe_code)]

mod block;
mod direct;
mod format;
mod lock;
mod ring;
mod writable;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use cvmm_devices::blk::{Blocks, Disk, Ring, SECTOR};
use cvmm_devices::pool::Pool;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use vm_memory::VolatileSlice;

pub use block::discard_request;

/// The one thing that a disk registers with its ring while its guest runs.
pub const REGISTER_BUFFERS: u64 = ring::REGISTER_BUFFERS as u64;
pub use lock::PATIENCE as LOCK_PATIENCE;

use super::iovec::{Batch, count, retry, transfer_all, transfer_batch};
use direct::Direct;

/// An open image.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    /// The error of the first flush that failed.
    lost: OnceLock<i32>,
}

impl Image {
    fn new(file: File, path: &Path) -> Arc<Self> {
        Arc::new(Self { file, path: path.into(), lost: OnceLock::new() })
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when everything written is on stable storage. Linux tells of data that it could not write back once, and
    /// then takes it for written: fdatasync would succeed the next time (fsync(2), EIO). So a flush that has failed fails
    /// from then on, as with QEMU's raw images.
    ///
    /// # Errors
    /// The first that came of a flush of this image.
    pub fn flush(&self) -> io::Result<()> {
        if let Some(code) = self.lost.get() {
            return Err(io::Error::from_raw_os_error(*code));
        }
        self.file.sync_data().inspect_err(|error| {
            let _ = self.lost.set(error.raw_os_error().unwrap_or(libc::EIO));
        })
    }
}

/// A disk image that this process holds the lock of. Clones share it.
#[derive(Clone, Debug)]
pub struct FileDisk {
    image: Arc<Image>,
    /// The way past the page cache, if it is to be taken.
    direct: Option<Arc<Direct>>,
    size: u64,
    read_only: bool,
    can_punch: bool,
    /// Of a block device, which discards and zeroes whole ones only.
    blocks: Option<Blocks>,
}

impl FileDisk {
    /// Opens and locks the image at `path`; somebody else may hold the lock until `deadline`. Unless it is said to be `raw`, it
    /// must not look like another format.
    ///
    /// # Errors
    /// What is wrong with it, for a message that names the option.
    pub fn open(path: &Path, read_only: bool, raw: bool, deadline: Instant) -> Result<Self, String> {
        let mut file = writable::open(path, read_only)?;
        lock::lock(&file, read_only, deadline)?;
        // Seeking tells the size of a block device, too, which its metadata do not.
        let size = file.seek(SeekFrom::End(0)).map_err(|error| format!("its size can't be read: {error}"))?;
        if size == 0 {
            return Err("it is empty".into());
        }
        if !raw {
            format::refuse(&file, size)?;
        }
        if !size.is_multiple_of(SECTOR) {
            return Err(format!("its size, {size} bytes, is not a multiple of {SECTOR}"));
        }
        let blocks = writable::is_block(&file).then(|| block::blocks(&file));
        let image = Image::new(file, path);
        let mut disk = Self { image, direct: None, size, read_only, can_punch: false, blocks };
        disk.can_punch = !read_only && disk.tries_to_punch();
        Ok(disk)
    }

    /// Whether holes can be made, found out without making one.
    fn tries_to_punch(&self) -> bool {
        match self.blocks {
            Some(_) => block::can_discard(&self.image.file),
            // A hole past the end changes nothing but the time, which is set back: a run that is refused leaves no trace.
            None => {
                let file = &self.image.file;
                let before = file.metadata().and_then(|metadata| metadata.modified());
                let can = self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, self.size, 4096).is_ok();
                // Only its owner may.
                let _ = before.and_then(|before| file.set_modified(before));
                can
            }
        }
    }

    fn fallocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
        let position = |bytes| libc::off_t::try_from(bytes).map_err(|_| Errno::EINVAL);
        let (mode, offset, len) =
            (mode | FallocateFlags::FALLOC_FL_KEEP_SIZE, position(offset)?, position(len)?);
        loop {
            match fallocate(&self.image.file, mode, offset, len) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// Zeros in a part of a file.
    fn zero_file(&self, offset: u64, len: u64, unmap: bool) -> Result<(), Errno> {
        if unmap {
            return self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len);
        }
        match self.fallocate(FallocateFlags::FALLOC_FL_ZERO_RANGE, offset, len) {
            // Not every file system that makes holes can zero in place: make a hole, and fill it.
            Err(Errno::EOPNOTSUPP) => {
                self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)?;
                self.fallocate(FallocateFlags::empty(), offset, len)
            }
            result => result,
        }
    }

    /// Zeros in a part of a block device. Blocks that the part has not all of are written.
    fn zero_device(&self, blocks: Blocks, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let end = offset + len;
        let Some((start, whole)) = whole_blocks(blocks, offset, len) else {
            return self.write_zeros(offset, len);
        };
        // It frees the blocks where the device's freed blocks are zeros (Linux, block/fops.c).
        let hole = unmap.then(|| self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, start, whole));
        match hole {
            Some(Ok(())) => {}
            // Linux writes zeros where the device has no faster way.
            None | Some(Err(Errno::EOPNOTSUPP)) => {
                self.fallocate(FallocateFlags::FALLOC_FL_ZERO_RANGE, start, whole)?;
            }
            Some(Err(error)) => return Err(error.into()),
        }
        self.write_zeros(offset, start - offset)?;
        self.write_zeros(start + whole, end - (start + whole))
    }

    /// Writes zeros, for a part of some block.
    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut zeros = [0; 512];
        let mut done = 0;
        while done < len {
            let piece = usize::try_from(len - done).unwrap_or(usize::MAX).min(zeros.len());
            let mut from = std::iter::once(VolatileSlice::from(&mut zeros[..piece]));
            if self.write_at(offset + done, &mut from)? != piece as u64 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += piece as u64;
        }
        Ok(())
    }

    /// The same disk, which does not use the page cache.
    ///
    /// # Errors
    /// Why that is not possible, for a message that names the option.
    pub fn into_direct(self) -> Result<Self, String> {
        let direct = Direct::open(&self.image.file, self.read_only)?;
        Ok(Self { direct: Some(Arc::new(direct)), ..self })
    }

    /// Whether the page cache is not to be used.
    fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether this transfer goes past the page cache: it is to, and it has whole blocks.
    fn bypasses_cache(&self, vectors: &[libc::iovec], offset: u64) -> bool {
        self.direct.as_ref().is_some_and(|direct| direct.takes(vectors, offset))
    }

    /// The file for transfers that bypass the page cache, if there are any, or else for all.
    fn transfers(&self) -> &File {
        self.direct.as_ref().map_or(&self.image.file, |direct| direct.file())
    }

    /// The same, opened once more. The kernel takes a ring down some time after it was closed, and its files with it; the lock
    /// goes with the first one, and so at once.
    fn opened_again(&self) -> io::Result<File> {
        let (file, flags) = (self.transfers(), if self.is_direct() { libc::O_DIRECT } else { 0 });
        let mut options = File::options();
        options.read(true).write(!self.read_only).custom_flags(flags);
        options.open(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// The file for this transfer. The kernel keeps what is cached, and what is not, the same.
    fn file(&self, vectors: &[libc::iovec], offset: u64) -> RawFd {
        let file = if self.bypasses_cache(vectors, offset) { self.transfers() } else { &self.image.file };
        file.as_raw_fd()
    }

    fn read_batch(&self, batch: Batch, offset: u64) -> io::Result<u64> {
        transfer_batch(batch, |vectors, done| self.read_vectors(vectors, offset + done))
    }

    fn read_vectors(&self, vectors: &[libc::iovec], offset: u64) -> io::Result<usize> {
        let (fd, at) = (self.file(vectors, offset), position(offset)?);
        // SAFETY: the vectors are slices of pool memory, which is mapped for as long as the slices live; a guest that changes
        // it meanwhile changes bytes that nobody in this process interprets.
        retry(|| unsafe { libc::preadv(fd, vectors.as_ptr(), count(vectors), at) })
    }

    fn write_batch(&self, batch: Batch, offset: u64) -> io::Result<u64> {
        transfer_batch(batch, |vectors, done| self.write_vectors(vectors, offset + done))
    }

    fn write_vectors(&self, vectors: &[libc::iovec], offset: u64) -> io::Result<usize> {
        let (fd, at) = (self.file(vectors, offset), position(offset)?);
        let len: usize = vectors.iter().map(|vector| vector.iov_len).sum();
        self.ensure_long(offset + len as u64)?;
        // SAFETY: as in `read_vectors`; the kernel only reads the memory.
        retry(|| unsafe { libc::pwritev(fd, vectors.as_ptr(), count(vectors), at) })
    }

    /// The image, to flush it at the end.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Whether the image still reaches to `end`. A write behind the end of a file makes it longer: after a truncation,
    /// sectors that are gone would read as zeros, as if they had never held anything else.
    fn ensure_long(&self, end: u64) -> io::Result<()> {
        let size = (&self.image.file).seek(SeekFrom::End(0))?;
        if end <= size {
            return Ok(());
        }
        let what = format!("the image ends at {size}: it was truncated while the guest ran");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
    }
}

fn position(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn can_punch(&self) -> bool {
        self.can_punch
    }

    fn read_at(&self, offset: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        transfer_all(to, |vectors, done| self.read_vectors(vectors, offset + done))
    }

    fn write_at(&self, offset: u64, from: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        transfer_all(from, |vectors, done| self.write_vectors(vectors, offset + done))
    }

    fn flush(&self) -> io::Result<()> {
        self.image.flush()
    }

    fn blocks(&self) -> Blocks {
        let blocks = self.blocks.unwrap_or_default();
        match &self.direct {
            Some(direct) => direct.blocks(blocks),
            None => blocks,
        }
    }

    fn ring(&self, pool: &Pool) -> Option<Box<dyn Ring>> {
        ring::open(self, pool)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.ensure_long(offset + len)?;
        let Some(blocks) = self.blocks else {
            return Ok(self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)?);
        };
        // The rest stays as it is: a discard is a hint.
        match whole_blocks(blocks, offset, len) {
            Some((start, whole)) => block::discard(&self.image.file, start, whole),
            None => Ok(()),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.ensure_long(offset + len)?;
        match self.blocks {
            Some(blocks) => self.zero_device(blocks, offset, len, unmap),
            None => Ok(self.zero_file(offset, len, unmap)?),
        }
    }
}

/// Start and length of the logical blocks that are inside this part as a whole, if there are any.
fn whole_blocks(blocks: Blocks, offset: u64, len: u64) -> Option<(u64, u64)> {
    let unit = u64::from(blocks.logical);
    let start = offset.checked_next_multiple_of(unit)?;
    let end = offset.checked_add(len)? / unit * unit;
    (start < end).then(|| (start, end - start))
}

#[cfg(test)]
mod tests;
