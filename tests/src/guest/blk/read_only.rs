// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A read-only disk: the kernel knows it, refuses writes, and reads what the host put there.

use anyhow::{Result, bail, ensure};

use super::disk::{Disk, holds_pattern};
use crate::guest::report::Report;

pub(super) fn run(disk: &Disk, seed: u64, report: &Report) {
    let name = &disk.name;
    report.check(&format!("blk-{name}-is-read-only"), || {
        ensure!(disk.attribute("ro")? == "1", "the kernel takes it for writable");
        Ok("yes".into())
    });
    report.check(&format!("blk-{name}-refuses-writes"), || refuses_writes(disk));
    report.check(&format!("blk-{name}-pattern"), || {
        let size = usize::try_from(disk.size()?)?;
        let first = size.min(1 << 20);
        holds_pattern(name, seed, 0, first)?;
        // the last sectors too: an error in the size shows there
        let last = size.min(8192);
        holds_pattern(name, seed, (size - last) as u64, last)?;
        Ok(format!("the first {first} and the last {last} bytes are the host's"))
    });
}

fn refuses_writes(disk: &Disk) -> Result<String> {
    match disk.write(0, &[0; 4096]) {
        Ok(()) => bail!("a write was accepted"),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::EROFS) => Ok(error.to_string()),
            _ => bail!("a write ended with '{error}', not with a refusal"),
        },
    }
}
