// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opens disks. What can't be written is found out now, not by the guest's first write.

use std::fs::{File, FileType};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use super::block;
use crate::host::{files, limits};

/// Opens the image at `path`; the guest may write it unless it is `read_only`.
///
/// # Errors
/// What is wrong with it, for a message that names the option.
pub(super) fn open(path: &Path, read_only: bool) -> Result<File, String> {
    let fits = |kind: FileType| kind.is_file() || kind.is_block_device();
    let open = |write| {
        files::open(File::options().read(true).write(write), path, fits, "a regular file or block device")
    };
    let not_written =
        |why: String| format!("it can't be written: {why}; add ,ro to open it for reading only");
    let not_opened = |error| format!("it can't be opened: {error}");
    if read_only {
        return open(false).map_err(not_opened);
    }
    match open(true) {
        Ok(file) => obstacle(&file).map_or(Ok(file), |why| Err(not_written(why))),
        Err(error) => Err(match open(false) {
            Ok(file) => not_written(with_cause(&file, &error)),
            // Of another kind, not there, or closed to us: ,ro would change nothing.
            Err(_) => not_opened(error),
        }),
    }
}

/// Whether it is a block device.
pub(super) fn is_block(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Why a file that was opened to be written can't be.
fn obstacle(file: &File) -> Option<String> {
    if is_block(file) && block::is_read_only(file) {
        return Some("the device is read-only".into());
    }
    // memfd_create(2). A write of nothing does not meet seals.
    let seals = fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    let sealed = SealFlag::F_SEAL_WRITE | SealFlag::from_bits_retain(libc::F_SEAL_FUTURE_WRITE);
    if seals.is_ok_and(|seals| seals.intersects(sealed)) {
        return Some("it is sealed against writes".into());
    }
    // Not for a block device, whose metadata have no size.
    if let Some(why) = file.metadata().ok().and_then(|metadata| limits::file_size(metadata.len())) {
        return Some(why);
    }
    // It changes nothing, and yet the kernel asks the file system or the device whether it may: swap space, a file system
    // that has become read-only after an error, one that has no writes at all.
    // SAFETY: no byte of the buffer is read.
    match unsafe { libc::pwrite(file.as_raw_fd(), std::ptr::null(), 0, 0) } {
        0 => None,
        _ => Some(with_cause(file, &io::Error::last_os_error())),
    }
}

/// The error, and what it comes from where the error alone is a riddle: root is told "not permitted", too.
fn with_cause(file: &File, error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::EPERM) => attribute(file),
        Some(libc::ETXTBSY) => Some("a program runs from it, or it is swap space"),
        _ => None,
    };
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}, since {cause}"))
}

/// The attribute that keeps even root from writing.
fn attribute(file: &File) -> Option<&'static str> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is empty and ends with a zero byte; the kernel writes one `statx`.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_TYPE,
            status.as_mut_ptr(),
        )
    };
    // SAFETY: all zeros are a valid `statx`, and so is what the kernel wrote.
    let attributes = unsafe { status.assume_init() }.stx_attributes;
    let has = |bit: libc::c_int| result == 0 && attributes & u64::from(bit.cast_unsigned()) != 0;
    [
        (libc::STATX_ATTR_IMMUTABLE, "it is immutable (chattr +i)"),
        (libc::STATX_ATTR_APPEND, "it can only be appended to (chattr +a)"),
        (libc::STATX_ATTR_VERITY, "fs-verity protects it"),
    ]
    .into_iter()
    .find_map(|(bit, name)| has(bit).then_some(name))
}
