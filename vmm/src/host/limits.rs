// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host allows this process.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, RawFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Makes sure that this process can open `count` files more, by opening as many and closing them: any of a hundred places
/// could be the one that finds no more, and each would say something else.
///
/// # Errors
/// It can't, although its limit was raised as far as this user may.
pub fn need_open_files(count: usize) -> Result<(), String> {
    raise_open_files();
    let one = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let all = one.and_then(|one| (1..count).map(|_| one.try_clone()).collect::<io::Result<Vec<_>>>());
    match all.map(drop) {
        // EINVAL: the limit is below the least number of a copy.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::EINVAL)) => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            Err(format!(
                "Too many open files: this needs {count} more than are open, and the limit of this process is {limit}; \
                 ulimit -n {} or more is enough",
                enough_for(count)
            ))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENFILE) => {
            Err(format!("{error}: this needs {count} more (see sysctl fs.file-max)"))
        }
        // Standard error may be closed; whatever can't be opened then says so.
        _ => Ok(()),
    }
}

/// The least number of a copy, as the standard library makes it: the streams' own are not for files.
const LEAST_COPY: RawFd = 3;

/// The limit below which there are numbers for `count` files more.
fn enough_for(count: usize) -> RawFd {
    // SAFETY: the call takes and returns numbers.
    let is_free = |fd: &RawFd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } == -1;
    let last = count.checked_sub(1).and_then(|before| (LEAST_COPY..RawFd::MAX).filter(is_free).nth(before));
    last.map_or(LEAST_COPY, |last| last + 1)
}

/// Why this process can't have or write all of a file of `size` bytes, a memfd included, if its limit is the reason.
pub fn file_size(size: u64) -> Option<String> {
    let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE).ok()?;
    (size > limit).then(|| {
        format!("it has {size} bytes, and {limit} are the limit of this process for a file (see ulimit -f)")
    })
}

/// Lets this process open as many files as it may: a machine with many devices needs more than the 1024 that shells allow by
/// habit (for programs that use select).
fn raise_open_files() {
    // If it does not work, whatever can't be opened says so.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
