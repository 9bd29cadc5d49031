// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks: a file or a block device, locked while the guest runs.

#![allow(unsafe_code)]

use std::fs::{File, FileType, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cvmm_devices::blk::{Disk, SECTOR};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use vm_memory::VolatileSlice;

use super::files;
use super::iovec::{count, retry, transfer_all};

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

/// A disk image that this process holds the lock of.
#[derive(Debug)]
pub struct FileDisk {
    image: Arc<Image>,
    size: u64,
    read_only: bool,
    can_punch: bool,
}

impl FileDisk {
    /// Opens and locks the image at `path`.
    ///
    /// # Errors
    /// What is wrong with it, for a message that names the option.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, String> {
        let fits = |kind: FileType| kind.is_file() || kind.is_block_device();
        let mut options = File::options();
        let file =
            files::open(options.read(true).write(!read_only), path, fits, "a regular file or block device");
        let mut file = file.map_err(|error| {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied && !read_only {
                "; with ,ro it would only be read"
            } else {
                ""
            };
            format!("it can't be opened: {error}{hint}")
        })?;
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err("it is locked: another cvmm uses it, or another option of this one, and one of the two writes".into());
            }
            Err(TryLockError::Error(error)) => return Err(format!("it can't be locked: {error}")),
        }
        // Seeking tells the size of a block device, too, which its metadata do not.
        let size = file.seek(SeekFrom::End(0)).map_err(|error| format!("its size is not known: {error}"))?;
        if size == 0 {
            return Err("it is empty".into());
        }
        if !size.is_multiple_of(SECTOR) {
            return Err(format!("its size, {size} bytes, is not a multiple of {SECTOR}"));
        }
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let mut disk = Self { image: Image::new(file, path), size, read_only, can_punch: false };
        // A hole past the end changes nothing, and tells whether the file system can make one.
        let past_end = disk.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, size, 4096);
        disk.can_punch = is_file && !read_only && past_end.is_ok();
        Ok(disk)
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
        let what = format!("the image ends at {size}: it was truncated");
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

    fn read_at(&mut self, offset: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        let fd = self.image.file.as_raw_fd();
        transfer_all(to, |vectors, done| {
            let at = position(offset + done)?;
            // SAFETY: the vectors are slices of pool memory, which is mapped for as long as the slices live; a guest
            // that changes it meanwhile changes bytes that nobody in this process interprets.
            retry(|| unsafe { libc::preadv(fd, vectors.as_ptr(), count(vectors), at) })
        })
    }

    fn write_at(
        &mut self,
        offset: u64,
        from: &mut dyn Iterator<Item = VolatileSlice<'_>>,
    ) -> io::Result<u64> {
        let fd = self.image.file.as_raw_fd();
        transfer_all(from, |vectors, done| {
            let at = position(offset + done)?;
            let len: usize = vectors.iter().map(|vector| vector.iov_len).sum();
            self.ensure_long(offset + done + len as u64)?;
            // SAFETY: as in `read_at`; the kernel only reads the memory.
            retry(|| unsafe { libc::pwritev(fd, vectors.as_ptr(), count(vectors), at) })
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.image.flush()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.ensure_long(offset + len)?;
        Ok(self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)?)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if unmap {
            return self.discard(offset, len);
        }
        self.ensure_long(offset + len)?;
        match self.fallocate(FallocateFlags::FALLOC_FL_ZERO_RANGE, offset, len) {
            // Not every file system that makes holes can zero in place: make a hole, and fill it.
            Err(Errno::EOPNOTSUPP) => {
                self.discard(offset, len)?;
                Ok(self.fallocate(FallocateFlags::empty(), offset, len)?)
            }
            result => Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn image(len: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; len]).unwrap();
        file
    }

    #[test]
    fn a_disk_is_locked_against_a_second_writer() {
        let image = image(1024);
        let first = FileDisk::open(image.path(), false).unwrap();
        assert!(FileDisk::open(image.path(), true).unwrap_err().contains("locked"));
        drop(first);
        let _reader = FileDisk::open(image.path(), true).unwrap();
        let _other = FileDisk::open(image.path(), true).unwrap();
        assert!(FileDisk::open(image.path(), false).unwrap_err().contains("locked"));
    }

    #[test]
    fn only_whole_sectors_make_a_disk() {
        assert!(FileDisk::open(image(513).path(), false).unwrap_err().contains("multiple of 512"));
        assert!(FileDisk::open(image(0).path(), false).unwrap_err().contains("empty"));
        assert!(FileDisk::open(Path::new("/nonexistent"), false).unwrap_err().contains("can't be opened"));
    }

    #[test]
    fn data_written_is_read_back_and_a_truncated_disk_is_short() {
        let image = image(4096);
        let mut disk = FileDisk::open(image.path(), false).unwrap();
        let (mut a, mut b) = ([1u8; 600], [2u8; 424]);
        let mut from = [VolatileSlice::from(&mut a[..]), VolatileSlice::from(&mut b[..])].into_iter();
        assert_eq!(disk.write_at(512, &mut from).unwrap(), 1024);
        let read = |disk: &mut FileDisk| {
            let mut back = [0u8; 2048];
            let done = disk.read_at(0, &mut [VolatileSlice::from(&mut back[..])].into_iter()).unwrap();
            (done, back)
        };
        let (done, back) = read(&mut disk);
        assert_eq!(done, 2048);
        assert_eq!(
            (back[511], back[512], back[1111], back[1112], back[1535], back[1536]),
            (7, 1, 1, 2, 2, 7)
        );
        image.as_file().set_len(1000).unwrap();
        assert_eq!(read(&mut disk).0, 1000);
        let mut write = |offset| {
            let mut bytes = [3u8; 512];
            disk.write_at(offset, &mut [VolatileSlice::from(&mut bytes[..])].into_iter())
        };
        for gone in [512, 1024, 3584] {
            assert_eq!(write(gone).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{gone}");
        }
        assert_eq!(write(0).unwrap(), 512);
        for gone in [(0, 1024), (2048, 512)] {
            assert!(disk.discard(gone.0, gone.1).is_err(), "{gone:?}");
            assert!(disk.write_zeroes(gone.0, gone.1, false).is_err(), "{gone:?}");
        }
        assert_eq!(image.as_file().metadata().unwrap().len(), 1000, "it became longer again");
    }

    /// A pipe can't be flushed, so a flush that says it was has not asked.
    #[test]
    fn a_flush_reaches_the_file() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let unflushable = Image::new(file, Path::new("pipe"));
        let mut pipe = FileDisk { image: unflushable, size: 512, read_only: false, can_punch: false };
        assert!(pipe.flush().is_err());
        assert!(FileDisk::open(image(512).path(), false).unwrap().flush().is_ok());
    }

    #[test]
    fn zeroes_and_holes_read_as_zeros() {
        let image = image(3 * 4096);
        let mut disk = FileDisk::open(image.path(), false).unwrap();
        assert!(disk.can_punch(), "the temporary directory's file system makes holes");
        disk.write_zeroes(0, 4096, false).unwrap();
        disk.write_zeroes(4096, 4096, true).unwrap();
        let bytes = std::fs::read(image.path()).unwrap();
        assert!(bytes[..8192].iter().all(|b| *b == 0) && bytes[8192..].iter().all(|b| *b == 7));
        assert_eq!(bytes.len(), 3 * 4096);
    }
}
