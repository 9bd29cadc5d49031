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
use super::turns::{Competitor, Outcome, Vmms};
use super::vmm::{Guest, Vmm};
use super::{choose, installed, start, text, versions, write_json};
use crate::host::{Folder, Host, Kind, SAFE_CPUS};
use comparison::{Comparison, TAP};
use load::{DISK_SIZE, GUEST, HOST};
use probe::Sample;
use setup::Setup;
use summary::Report;

/// Generous: under emulation on a busy machine it takes minutes.
const LIMIT: Duration = Duration::from_secs(600);
/// Several times what a guest takes under emulation.
const LOST_AFTER: Duration = Duration::from_secs(120);

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
    let load_before = load_now()?;
    let bench = Bench { comparison, kind, order, installed: &installed };
    let emulated = kind == Kind::Emulated;
    let (results, mut place, lost) = if emulated && comparison.emulated_cpus() > SAFE_CPUS {
        bench.each_on_a_host_of_its_own(&setups)?
    } else {
        let (results, place) = bench.on_a_host(|vmms, guest| {
            let arguments = |setup: Setup| setup.arguments(guest);
            vmms.by_turns(&setups, order.rounds, "loads", probe::WORD, LIMIT, arguments)
        })?;
        (results, place, 0)
    };
    // It takes minutes, and one number would hide what was before.
    place.load = format!("{load_before} before, {} after", place.load);
    let versions = versions(&installed);
    let report = Report { comparison, rounds: order.rounds, versions, place, emulated, lost, results };
    print!("{}", report.table());
    write_json(order.json.as_deref(), &report.json())?;
    Ok(0)
}

type Results = Vec<(Setup, Outcome<Sample>)>;

struct Bench<'a> {
    comparison: Comparison,
    kind: Kind,
    order: &'a Order,
    installed: &'a [(Vmm, PathBuf)],
}

impl Bench<'_> {
    /// Starts a host, has `work` measure there, and tells of the host.
    fn on_a_host<T>(&self, work: impl FnOnce(&Vmms<'_>, &Guest) -> Result<T>) -> Result<(T, Place)> {
        let setups = self.comparison.setups();
        let disks = setups.iter().map(|setup| setup.disks).max().unwrap_or(1);
        let host =
            start(self.kind, self.comparison.emulated_cpus(), self.installed, DISK_SIZE * disks as u64)?;
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
        let kernel = match &self.order.kernel {
            None => tools.patched_kernel.clone(),
            Some(kernel) => carried(&host, &files, kernel)?,
        };
        let guest = Guest { kernel, initrd: tools.initrd.clone(), disk };
        let done = work(&Vmms::bring(&host, self.installed)?, &guest)?;
        Ok((done, Place::of(&host)?))
    }

    /// For an emulated host of several CPUs, on which a guest may be lost: then only that guest is. Returns how many were,
    /// too. Their rounds are not made up for.
    fn each_on_a_host_of_its_own(&self, setups: &[Setup]) -> Result<(Results, Place, u32)> {
        let mut samples = vec![vec![]; setups.len()];
        let (mut place, mut lost) = (None, 0);
        for round in 1..=self.order.rounds {
            eprintln!("lab: loads, round {round} of {}", self.order.rounds);
            for (setup, samples) in setups.iter().zip(&mut samples) {
                let once = |vmms: &Vmms<'_>, guest: &Guest| {
                    vmms.once(*setup, probe::WORD, LOST_AFTER, setup.arguments(guest))
                };
                match self.on_a_host(once) {
                    Ok((sample, at)) => {
                        samples.push(sample);
                        place = Some(at);
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        eprintln!(
                            "lab: {}: lost: {}",
                            setup.name(),
                            error.lines().next().unwrap_or_default()
                        );
                        lost += 1;
                    }
                }
            }
        }
        let outcome =
            |samples: Vec<_>| if samples.is_empty() { Err("all were lost".into()) } else { Ok(samples) };
        let results = setups.iter().copied().zip(samples.into_iter().map(outcome)).collect();
        Ok((results, place.context("all guests were lost")?, lost))
    }
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
