// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lock on a disk (flock): one user that writes, or several that read.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

/// How long somebody else may hold the locks of a run's disks: udev does while it looks at a block device, for some
/// milliseconds. The signals that end a run wait as long.
pub const PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);

/// Takes the lock, shared by all who only read. It is waited for until `deadline`.
///
/// # Errors
/// Who has it, for a message that names the option.
pub(super) fn lock(file: &File, read_only: bool, deadline: Instant) -> Result<(), String> {
    loop {
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(STEP),
            Err(TryLockError::WouldBlock) => {
                let holder = holder(file).unwrap_or_else(|| "another program".into());
                return Err(format!(
                    "it is locked by {holder}; a disk has one user, or several that all only read it (,ro)"
                ));
            }
            Err(TryLockError::Error(error)) => return Err(format!("it can't be locked: {error}")),
        }
    }
}

/// Who holds a lock on `file`, if the host tells: not every file system, nor every container.
fn holder(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let process = process(&locks, metadata.dev(), metadata.ino())?;
    let name = std::fs::read(format!("/proc/{process}/comm")).ok()?;
    Some(format!("process {process} ({})", String::from_utf8_lossy(&name).trim_end()))
}

/// The process that holds a lock of our kind on this file (proc_locks(5)): `1: FLOCK  ADVISORY  WRITE 472 fe:00:1234 0 EOF`.
/// A line with `->` is of one that waits.
fn process(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let place = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, process, there, ..] if there == place => process.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opened anew: the lock is not that of the first.
    fn again(file: &tempfile::NamedTempFile) -> File {
        File::options().read(true).write(true).open(file.path()).unwrap()
    }

    #[test]
    fn a_lock_that_is_held_for_a_moment_is_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = again(&file);
        other.lock().unwrap();
        let free = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            other.unlock().unwrap();
        });
        assert_eq!(lock(file.as_file(), false, Instant::now() + PATIENCE), Ok(()));
        free.join().unwrap();
    }

    /// Here it is this process, and the message says so: nothing is known of what the program is.
    #[test]
    fn the_holder_of_a_lock_is_named_after_a_second() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = again(&file);
        other.lock().unwrap();
        let since = Instant::now();
        let error = lock(file.as_file(), true, since + PATIENCE).unwrap_err();
        assert!((PATIENCE..PATIENCE * 20).contains(&since.elapsed()), "{:?}", since.elapsed());
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        let us = format!("it is locked by process {} ({}); ", std::process::id(), comm.trim_end());
        // A file system with numbers of its own for its files' devices tells nobody.
        assert!(error.starts_with(&us) || error.starts_with("it is locked by another program; "), "{error}");
    }

    #[test]
    fn the_list_of_locks_is_read_by_its_columns() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:1234 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:12345 0 EOF\n\
                     3: FLOCK  ADVISORY  READ  13 fe:01:1234 0 EOF\n\
                     4: FLOCK  ADVISORY  READ  14 fe:00:1234 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 15 fe:00:1234 0 EOF\n\
                     garbage\n";
        let device = |major, minor| libc::makedev(major, minor);
        assert_eq!(process(locks, device(0xfe, 0), 1234), Some(14));
        assert_eq!(process(locks, device(0xfe, 1), 1234), Some(13));
        assert_eq!(process(locks, device(0xfe, 1), 12345), None);
        assert_eq!(process("", device(0, 0), 0), None);
    }
}
