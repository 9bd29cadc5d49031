// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks: a file or a block device, locked while the guest runs.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::Path;

use cvmm_devices::blk::{Disk, SECTOR};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use vm_memory::VolatileSlice;

use super::iovec::{count, transfer_all};

/// A disk image that this process holds the lock of.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
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
        let mut file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(|error| {
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
        let mut disk = Self { file, size, read_only, can_punch: false };
        // A hole past the end changes nothing, and tells whether the file system can make one.
        let past_end = disk.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, size, 4096);
        disk.can_punch = is_file && !read_only && past_end.is_ok();
        Ok(disk)
    }

    fn fallocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
        let position = |bytes| libc::off_t::try_from(bytes).map_err(|_| Errno::EINVAL);
        fallocate(&self.file, mode | FallocateFlags::FALLOC_FL_KEEP_SIZE, position(offset)?, position(len)?)
    }

    /// Another handle of the same file, to flush it at the end.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Writes go on after a signal.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(n) => return Ok(n),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
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
        let fd = self.file.as_raw_fd();
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
        let fd = self.file.as_raw_fd();
        transfer_all(from, |vectors, done| {
            let at = position(offset + done)?;
            // SAFETY: as in `read_at`; the kernel only reads the memory.
            retry(|| unsafe { libc::pwritev(fd, vectors.as_ptr(), count(vectors), at) })
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        Ok(self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)?)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if unmap {
            return self.discard(offset, len);
        }
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
    }

    /// A pipe can't be flushed, so a flush that says it was has not asked.
    #[test]
    fn a_flush_reaches_the_file() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut pipe = FileDisk { file, size: 512, read_only: false, can_punch: false };
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
