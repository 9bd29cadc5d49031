// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which disks can be used at all, by their transport. Nothing fails here: what it comes to is for the host to judge.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::disk::{Disk, holds_pattern, same};
use crate::guest::machine;
use crate::pattern;
use crate::reach::{AT, LENGTH, PATTERN, WRITTEN};

/// A request to a device that needs a reset is never answered: virtio-blk has no time-out.
const LIMIT: Duration = Duration::from_secs(30);

/// What came of the disk on `transport` (`mmio` or `pci`).
pub(super) fn reach(transport: &str, seed: u64) -> Result<String> {
    let Some(name) = disk_on(transport) else { return Ok("no disk".into()) };
    let disk = Disk::new(&name);
    if disk.size()? == 0 {
        return Ok("no capacity".into());
    }
    let (send, result) = mpsc::channel();
    thread::spawn(move || send.send(use_it(&disk, seed)));
    Ok(match result.recv_timeout(LIMIT) {
        Ok(Ok(())) => "works".into(),
        Ok(Err(error)) => format!("I/O error: {error:#}"),
        Err(_) => "no answer".into(),
    })
}

/// Reads what the host put there, and writes other bytes.
fn use_it(disk: &Disk, seed: u64) -> Result<()> {
    holds_pattern(&disk.name, seed, 0, PATTERN)?;
    let mut data = vec![0; LENGTH];
    pattern::fill(seed + WRITTEN, AT, &mut data);
    disk.write(AT, &data).context("write")?;
    disk.flush().context("flush")?;
    same(&disk.read(AT, LENGTH)?, &data, AT)
}

/// The disk whose device is on the PCI bus, or is not.
fn disk_on(transport: &str) -> Option<String> {
    machine::names("/sys/block").into_iter().filter(|name| name.starts_with("vd")).find(|name| {
        let place = fs::canonicalize(format!("/sys/block/{name}/device")).unwrap_or_default();
        place.to_string_lossy().contains("/pci0000:00/") == (transport == "pci")
    })
}
