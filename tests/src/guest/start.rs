// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What /init finds missing: file systems, and a quiet console.
#![allow(unsafe_code)]

use std::fs;
use std::io;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::report::say;

/// Mounts what the assertions read. What is mounted already is left as it is: the kernel mounts devtmpfs itself when it
/// was built to.
pub(super) fn file_systems() -> Result<()> {
    let all = [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("debugfs", "/sys/kernel/debug"),
        ("tmpfs", "/tmp"),
    ];
    for (kind, place) in all {
        fs::create_dir_all(place).with_context(|| place.to_owned())?;
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>) {
            Ok(()) | Err(nix::Error::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("mount {kind} on {place}")),
        }
    }
    Ok(())
}

/// From here on only errors of the kernel come to the console: its messages would fall into the middle of our lines. After a
/// failed assertion the end of its log is shown.
pub(super) fn quieten_kernel() {
    const SET_CONSOLE_LEVEL: libc::c_int = 8;
    const ERRORS: libc::c_int = 4;
    // SAFETY: this action takes a number and no buffer.
    let result = unsafe { libc::klogctl(SET_CONSOLE_LEVEL, std::ptr::null_mut(), ERRORS) };
    if result < 0 {
        say(&format!("guest-init: the kernel stays talkative: {}", io::Error::last_os_error()));
    }
}
