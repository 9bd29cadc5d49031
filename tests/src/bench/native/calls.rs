// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! System calls of some threads, counted by the kernel's tracepoint raw_syscalls:sys_enter. Each call is then a little slower, so
//! the round in which they are counted is not one in which time is measured.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::Read;
use std::mem::size_of;
use std::os::fd::FromRawFd;

use anyhow::{Context, Result};

/// Where the tracepoint's number is, if tracefs is mounted; and where older kernels have it.
const IDS: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];
/// PERF_TYPE_TRACEPOINT, PERF_FLAG_FD_CLOEXEC, and the bit `inherit` (linux/perf_event.h).
const TRACEPOINT: u32 = 2;
const CLOSE_ON_EXEC: libc::c_ulong = 8;
const INHERIT: u64 = 2;

/// The first version of `struct perf_event_attr` (linux/perf_event.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

/// Counts from when it is made on.
#[derive(Debug)]
pub struct Calls(Vec<File>);

impl Calls {
    /// Of these threads, and of those that they start.
    pub fn of(threads: &[i32]) -> Result<Self> {
        let id = IDS.iter().find_map(|path| fs::read_to_string(path).ok());
        let id = id.context("no tracepoint for system calls: tracefs is not mounted, or this is not root")?;
        let config = id.trim().parse()?;
        let size = u32::try_from(size_of::<Attributes>())?;
        let attributes =
            Attributes { kind: TRACEPOINT, size, config, flags: INHERIT, ..Attributes::default() };
        let open = |thread: &i32| {
            // SAFETY: the call reads the attributes, which have the size that they say.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_perf_event_open,
                    &raw const attributes,
                    *thread,
                    -1,
                    -1,
                    CLOSE_ON_EXEC,
                )
            };
            let fd = i32::try_from(result)?;
            match std::io::Error::last_os_error() {
                // The thread has ended meanwhile.
                error if fd < 0 && error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
                error if fd < 0 => Err(error).context("system calls can't be counted"),
                // SAFETY: the call has made this descriptor, and nobody else has it.
                _ => Ok(Some(unsafe { File::from_raw_fd(fd) })),
            }
        };
        let files = threads.iter().filter_map(|thread| open(thread).transpose());
        Ok(Self(files.collect::<Result<_>>()?))
    }

    /// How many so far.
    pub fn count(&mut self) -> Result<u64> {
        let mut sum = 0;
        for file in &mut self.0 {
            let mut count = [0; 8];
            file.read_exact(&mut count).context("cannot read how many system calls there were")?;
            sum += u64::from_ne_bytes(count);
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of this thread; counting itself makes a call or two.
    #[test]
    fn calls_of_a_thread_are_counted() {
        let mut calls = match Calls::of(&[0]) {
            Ok(calls) => calls,
            Err(error) => {
                eprintln!("NOT TESTED: {error:#}");
                return;
            }
        };
        let before = calls.count().unwrap();
        for _ in 0..100 {
            // SAFETY: the call has no arguments.
            let _ = unsafe { libc::syscall(libc::SYS_getppid) };
        }
        let counted = calls.count().unwrap() - before;
        assert!((100..110).contains(&counted), "{counted}");
    }
}
