// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab bench --io`: what a disk does on each transport, and how many exits of the guest a request costs, side by
//! side with other VMMs.

pub mod load;
pub mod probe;
mod setup;
mod summary;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::summary::{Place, load_now};
use super::turns::Vmms;
use super::vmm::Guest;
use super::{choose, installed, start, text, versions, write_json};
use crate::host::{Folder, Host, Kind};
use load::DISK_SIZE;
use setup::Setup;
use summary::Report;

/// Generous: under emulation on a busy machine it takes minutes.
const LIMIT: Duration = Duration::from_secs(600);

/// Measures `rounds` rounds on the `chosen` kind of host, prints the table, and writes the samples to `json`.
pub fn bench(chosen: Option<Kind>, rounds: u32, json: Option<&Path>) -> Result<i32> {
    let kind = choose(chosen)?;
    let installed = installed();
    let versions = versions(&installed);
    let host = start(kind, &installed, DISK_SIZE)?;
    let folder = DiskFolder::on(&host)?;
    let disk = folder.disk();
    host.resize(&disk, DISK_SIZE)?;
    let tools = host.tools()?;
    let guest = Guest { kernel: tools.patched_kernel.clone(), initrd: tools.initrd.clone(), disk };
    let vmms = Vmms::bring(&host, &installed)?;
    let arguments = |setup: Setup| setup.arguments(&guest);
    let load_before = load_now()?;
    let results = vmms.by_turns(&setup::ALL, rounds, "disk loads", probe::WORD, LIMIT, arguments)?;
    let mut place = Place::of(&host)?;
    // It takes minutes, and one number would hide what was before.
    place.load = format!("{load_before} before, {} after", place.load);
    let emulated = kind == Kind::Emulated;
    let report = Report { rounds, versions, place, emulated, results };
    print!("{}", report.table());
    write_json(json, &report.json())?;
    Ok(0)
}

/// The disk is a file in the host's memory: its own storage is not what is measured.
enum DiskFolder {
    Here(tempfile::TempDir),
    There(Folder),
}

impl DiskFolder {
    fn on(host: &Host) -> Result<Self> {
        match host.kind() {
            Kind::Kvm => {
                let folder = tempfile::Builder::new().prefix("cvmm-lab-").tempdir_in("/dev/shm");
                Ok(Self::Here(folder.context("the disk must be on a tmpfs")?))
            }
            // All its files are in memory.
            Kind::Emulated => Ok(Self::There(host.folder()?)),
        }
    }

    fn disk(&self) -> String {
        match self {
            Self::Here(folder) => text(&folder.path().join("disk")),
            Self::There(folder) => folder.file("disk"),
        }
    }
}
