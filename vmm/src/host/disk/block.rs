// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What only a block device tells and does.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use cvmm_devices::blk::Blocks;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::ioctl_io_nr;

// Linux, include/uapi/linux/fs.h. They are older than the numbers that tell of a direction.
ioctl_io_nr!(BLKROGET, 0x12, 94);
ioctl_io_nr!(BLKSSZGET, 0x12, 104);
ioctl_io_nr!(BLKDISCARD, 0x12, 119);
ioctl_io_nr!(BLKIOMIN, 0x12, 120);
ioctl_io_nr!(BLKIOOPT, 0x12, 121);
ioctl_io_nr!(BLKALIGNOFF, 0x12, 122);
ioctl_io_nr!(BLKPBSZGET, 0x12, 123);

/// The one request that a disk makes while its guest runs.
pub fn discard_request() -> libc::c_ulong {
    BLKDISCARD()
}

/// The answer to a request, if it is a number that is not negative.
fn ask(device: &File, request: libc::c_ulong) -> Option<u32> {
    let mut answer: libc::c_int = 0;
    // SAFETY: each request of this module but BLKDISCARD writes one int; `answer` is one.
    let result = unsafe { ioctl_with_mut_ref(device, request, &mut answer) };
    (result == 0).then(|| u32::try_from(answer).ok()).flatten()
}

/// Whether the kernel refuses writes, although the device can be opened for them.
pub(super) fn is_read_only(device: &File) -> bool {
    ask(device, BLKROGET()).is_some_and(|read_only| read_only != 0)
}

/// The sizes of its blocks.
pub(super) fn blocks(device: &File) -> Blocks {
    let size = |request| ask(device, request).filter(|size| size.is_power_of_two());
    let logical = size(BLKSSZGET()).unwrap_or(512);
    Blocks {
        logical,
        physical: size(BLKPBSZGET()).unwrap_or(logical),
        offset: ask(device, BLKALIGNOFF()).unwrap_or(0),
        transfer: [BLKIOMIN(), BLKIOOPT()].map(|request| ask(device, request).unwrap_or(0)),
        discard: granularity(device).unwrap_or(logical),
    }
}

/// What one discard frees at least. It has no ioctl, and /sys need not be there.
fn granularity(device: &File) -> Option<u32> {
    let number = device.metadata().ok()?.rdev();
    let folder = format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number));
    // A partition has the queue of its disk, whose folder it is in.
    let read = |queue| fs::read_to_string(format!("{folder}/{queue}/discard_granularity")).ok();
    let text = read("queue").or_else(|| read("../queue"))?;
    text.trim().parse().ok().filter(|bytes| *bytes != 0)
}

/// Whether it discards. Asked for half a sector, a device that does says EINVAL, and does nothing (Linux, block/ioctl.c).
pub(super) fn can_discard(device: &File) -> bool {
    discard(device, 1, 512).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// Discards bytes that are whole logical blocks. fallocate would have to zero them, and not every device that discards can.
pub(super) fn discard(device: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: BLKDISCARD reads two u64; `range` is that.
    match unsafe { ioctl_with_ref(device, BLKDISCARD(), &range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
