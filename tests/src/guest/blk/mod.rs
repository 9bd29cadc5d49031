// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks. `cvmm.blk=vda:rw,vdb:ro,vdc:raw` says what to do with each; all are tested at the same time.
//!
//! * `rw`: an ext4 file system that the host made; files are written, read back, and left for the host to compare.
//! * `ro`: a disk that refuses writes and holds [`pattern`] from its first byte on.
//! * `raw`: no file system, at least 16 MiB, all of it may be overwritten.
//! * not mentioned: what the kernel knows about the disk, and one read.

mod disk;
mod files;
mod raw;
mod reach;
mod read_only;

use std::convert::Infallible;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use super::machine;
use super::options::Options;
use super::report::Report;
use crate::pattern;
use disk::Disk;

pub(super) use disk::holds_pattern;

/// A mapping in the pool is at most 128 slots of 2 KiB; Linux must know it, or large requests fail.
const LARGEST_SEGMENT: u64 = 256 * 1024;

pub(super) fn run(options: &Options, report: &Report) {
    let mut disks: Vec<(&str, &str)> =
        options.list("blk").into_iter().map(|part| part.split_once(':').unwrap_or((part, ""))).collect();
    let present: Vec<String> =
        machine::names("/sys/block").into_iter().filter(|name| name.starts_with("vd")).collect();
    if disks.is_empty() {
        disks = present.iter().map(|name| (name.as_str(), "look")).collect();
    }
    report.check("blk-disks", || {
        for (name, _) in &disks {
            ensure!(present.iter().any(|present| present == name), "no disk {name}; there are {present:?}");
        }
        Ok(present.join(", "))
    });
    thread::scope(|scope| {
        for (name, mode) in disks {
            scope.spawn(move || one(&Disk::new(name), mode, options, report));
        }
    });
}

/// `cvmm.reach=mmio,pci`: what comes of a disk on each.
pub(super) fn run_reach(options: &Options, report: &Report) {
    for transport in options.list("reach") {
        report.check(&format!("reach-{transport}"), || reach::reach(transport, seed(options)));
    }
}

fn one(disk: &Disk, mode: &str, options: &Options, report: &Report) {
    let name = &disk.name;
    report.check(&format!("blk-{name}-limits"), || limits(disk));
    if let Some(serial) = options.part("serial", name) {
        report.check(&format!("blk-{name}-serial"), || {
            let seen = disk.attribute("serial")?;
            ensure!(seen == serial, "'{seen}', but it should be '{serial}'");
            Ok(seen)
        });
    }
    match mode {
        "rw" => files::run(disk, seed(options), report),
        "ro" => read_only::run(disk, seed(options), report),
        "raw" => raw::run(disk, seed(options), report),
        "look" => {
            report.check(&format!("blk-{name}-read"), || Ok(format!("{} bytes", disk.read(0, 4096)?.len())));
        }
        other => {
            report.check(&format!("blk-{name}"), || bail!("no such mode: '{other}' (rw, ro or raw)"));
        }
    }
}

fn limits(disk: &Disk) -> Result<String> {
    let segment = disk.attribute_number("queue/max_segment_size")?;
    ensure!(
        segment <= LARGEST_SEGMENT,
        "a segment may be {segment} bytes, but the pool maps at most {LARGEST_SEGMENT}"
    );
    Ok(format!("{} bytes, a segment has at most {segment}", disk.size()?))
}

/// Seed of the bytes on disks.
pub(super) fn seed(options: &Options) -> u64 {
    options.number("seed").ok().flatten().unwrap_or(pattern::SEED)
}

/// Writes and syncs one file after the other to the first `rw` disk, for ever; a line tells when each is safe on the disk.
pub(super) fn write_for_ever(options: &Options) -> Result<Infallible> {
    let name = options
        .list("blk")
        .into_iter()
        .find_map(|part| part.strip_suffix(":rw"))
        .context("cvmm.end=write needs a disk: cvmm.blk=vda:rw")?;
    files::write_for_ever(&Disk::new(name), seed(options))
}
