// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transfers past the page cache (O_DIRECT), of whole blocks between aligned memory and an aligned place.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use cvmm_devices::blk::Blocks;

/// Where the kernel does not tell what is aligned (before Linux 6.1): enough for all.
const PAGE: u64 = 4096;

/// An image that is open without the page cache.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    /// What addresses in memory are multiples of.
    memory: u64,
    /// What lengths, and places in the image, are multiples of.
    block: u64,
}

impl Direct {
    /// The same image as `file`, without the page cache.
    ///
    /// # Errors
    /// Why that is not possible, for a message that names the option.
    pub(super) fn open(file: &File, read_only: bool) -> Result<Self, String> {
        let why = |error: &dyn std::fmt::Display| format!("it can't be opened with ,direct: {error}");
        let none = "its file system always uses the page cache";
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let open = File::options().read(true).write(!read_only).custom_flags(libc::O_DIRECT).open(path);
        let file = open.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => why(&none),
            _ => why(&error),
        })?;
        match alignment(&file).map_err(|error| why(&error))? {
            Some((0, _) | (_, 0)) => Err(why(&none)),
            Some((memory, block)) => Ok(Self { file, memory, block }),
            None => Ok(Self { file, memory: PAGE, block: PAGE }),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether this transfer is of whole blocks. Others take the page cache: a driver need not respect the size of blocks
    /// (virtio 1.3, 5.2.5).
    pub(super) fn takes(&self, vectors: &[libc::iovec], offset: u64) -> bool {
        let aligned = |vector: &libc::iovec| {
            (vector.iov_base as u64).is_multiple_of(self.memory)
                && (vector.iov_len as u64).is_multiple_of(self.block)
        };
        offset.is_multiple_of(self.block) && vectors.iter().all(aligned)
    }

    /// `blocks`, of which the driver is to respect what a direct transfer needs.
    pub(super) fn blocks(&self, blocks: Blocks) -> Blocks {
        let block = u32::try_from(self.block).unwrap_or(blocks.logical);
        let logical = blocks.logical.max(block);
        Blocks { logical, physical: blocks.physical.max(logical), ..blocks }
    }
}

/// What memory, and what places in the file, must be aligned to: statx(2), STATX_DIOALIGN. None: the kernel does not tell.
fn alignment(file: &File) -> io::Result<Option<(u64, u64)>> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    let (fd, flags) = (file.as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is empty and ends with a zero byte; the kernel writes one `statx`.
    let result = unsafe { libc::statx(fd, c"".as_ptr(), flags, libc::STATX_DIOALIGN, status.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros are a valid `statx`, and so is what the kernel wrote.
    let status = unsafe { status.assume_init() };
    let told = status.stx_mask & libc::STATX_DIOALIGN != 0;
    Ok(told.then(|| (status.stx_dio_mem_align.into(), status.stx_dio_offset_align.into())))
}
