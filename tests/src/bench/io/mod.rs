// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab bench --io`: what a disk does on each transport, and how many exits of the guest a request costs, side by
//! side with other VMMs. `--bounce`: what the copy through the pool costs. `--contend`: what it costs to share a pool.

pub mod comparison;
pub mod load;
pub mod probe;
mod setup;
pub mod stream;
mod summary;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::summary::{Place, load_now};
use super::turns::Vmms;
use super::vmm::Guest;
use super::{choose, installed, start, text, versions, write_json};
use crate::host::{Folder, Host, Kind};
use comparison::{Comparison, TAP};
use load::{DISK_SIZE, GUEST, HOST};
use setup::Setup;
use summary::Report;

/// Generous: under emulation on a busy machine it takes minutes.
const LIMIT: Duration = Duration::from_secs(600);

/// What to measure, and where.
#[derive(Debug)]
pub struct Order {
    /// On which kind of host.
    pub host: Option<Kind>,
    /// How often.
    pub rounds: u32,
    /// The guest's kernel, if not the project's patched one.
    pub kernel: Option<PathBuf>,
    /// Where to write the samples.
    pub json: Option<PathBuf>,
}

/// Measures, prints the table, and writes the samples.
pub fn bench(comparison: Comparison, order: &Order) -> Result<i32> {
    let kind = choose(order.host)?;
    let mut installed = installed();
    let setups = comparison.setups();
    installed.retain(|(vmm, _)| setups.iter().any(|setup| setup.vmm == *vmm));
    let versions = versions(&installed);
    let disks = setups.iter().map(|setup| setup.disks).max().unwrap_or(1);
    let host = start(kind, comparison.emulated_cpus(), &installed, DISK_SIZE * disks as u64)?;
    let folder = DiskFolder::on(&host)?;
    let disk = folder.disk();
    for index in 0..disks {
        let path = if index == 0 { disk.clone() } else { format!("{disk}{index}") };
        host.resize(&path, DISK_SIZE)?;
    }
    let has_net = setups.iter().any(|setup| setup.tap.is_some());
    let _tap = has_net.then(|| host.tap(TAP, &format!("{HOST}/{}", GUEST.1))).transpose()?;
    let tools = host.tools()?;
    let files = host.folder()?;
    let kernel = match &order.kernel {
        None => tools.patched_kernel.clone(),
        Some(kernel) => carried(&host, &files, kernel)?,
    };
    let guest = Guest { kernel, initrd: tools.initrd.clone(), disk };
    let vmms = Vmms::bring(&host, &installed)?;
    let arguments = |setup: Setup| setup.arguments(&guest);
    let load_before = load_now()?;
    let results = vmms.by_turns(&setups, order.rounds, "loads", probe::WORD, LIMIT, arguments)?;
    let mut place = Place::of(&host)?;
    // It takes minutes, and one number would hide what was before.
    place.load = format!("{load_before} before, {} after", place.load);
    let emulated = kind == Kind::Emulated;
    let report = Report { comparison, rounds: order.rounds, versions, place, emulated, results };
    print!("{}", report.table());
    write_json(order.json.as_deref(), &report.json())?;
    Ok(0)
}

fn carried(host: &Host, folder: &Folder, kernel: &Path) -> Result<PathBuf> {
    if !kernel.is_file() {
        bail!("there is no kernel {}", kernel.display());
    }
    let there = folder.file("kernel");
    host.put(kernel, &there)?;
    Ok(there.into())
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
