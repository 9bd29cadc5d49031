// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab bench`: what starting a guest costs, in time and memory, side by side with other VMMs; with `--io`, what its
//! disk does (see [`io`]); with `--native`, what devices do at full speed (see [`native`]).

mod carry;
pub mod io;
pub mod native;
pub mod probe;
mod resident;
mod summary;
mod tracer;
mod turns;
mod vmm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::host::{self, Host, Kind, SAFE_CPUS};
use crate::packages;
use probe::Until;
use summary::{Measured, Place, Report};
use turns::Vmms;
use vmm::{Guest, Log, Vmm};

/// The guest's init program writes it first of all.
const INIT_LINE: &str = "guest-init: started";
const DISK_SIZE: u64 = 16 << 20;
/// Generous: a guest under emulation takes seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures `rounds` rounds on the `chosen` kind of host, prints the table, and writes the samples to `json`.
pub fn bench(chosen: Option<Kind>, rounds: u32, json: Option<&Path>) -> Result<i32> {
    let kind = choose(chosen)?;
    let installed = installed();
    let versions = versions(&installed);
    let init_host = start(kind, SAFE_CPUS, &installed, DISK_SIZE)?;
    // The first instruction needs no KVM that can run Linux, and without emulation the times are those of real use.
    let here = if kind == Kind::Kvm { None } else { Host::kvm().ok() };
    let entry_host = here.as_ref().unwrap_or(&init_host);
    let init = Until::Line(INIT_LINE.to_owned());
    let report = Report {
        rounds,
        versions,
        at_entry: measure(entry_host, &installed, &Until::Entry, Log::Quiet, rounds)?,
        at_init: measure(&init_host, &installed, &init, Log::Quiet, rounds)?,
        with_log: measure(&init_host, &installed, &init, Log::All, rounds)?,
    };
    print!("{}", report.table());
    write_json(json, &report.json())?;
    Ok(0)
}

/// Which kind of host, said on standard error.
fn choose(chosen: Option<Kind>) -> Result<Kind> {
    packages::require(&[packages::QEMU])?;
    let (kind, why) = host::best_kind(chosen)?;
    eprintln!("lab: {why}; using {kind}");
    Ok(kind)
}

/// The VMMs on this machine; cvmm is built.
fn installed() -> Vec<(Vmm, PathBuf)> {
    vmm::ALL.iter().filter_map(|&vmm| Some((vmm, vmm.installed()?))).collect()
}

fn versions(installed: &[(Vmm, PathBuf)]) -> Vec<String> {
    installed.iter().filter_map(|(vmm, program)| vmm.version(program)).collect()
}

/// A host for `disk_size` bytes of disk and all VMMs. An emulated one has `cpus` CPUs.
fn start(kind: Kind, cpus: u32, installed: &[(Vmm, PathBuf)], disk_size: u64) -> Result<Host> {
    match kind {
        Kind::Kvm => Host::kvm(),
        Kind::Emulated => {
            let mut bytes = disk_size;
            for (vmm, program) in installed {
                for file in carry::files(*vmm, program)? {
                    bytes += file.metadata()?.len();
                }
            }
            Host::emulated(cpus, bytes)
        }
    }
}

fn measure(
    host: &Host,
    installed: &[(Vmm, PathBuf)],
    until: &Until,
    log: Log,
    rounds: u32,
) -> Result<Measured> {
    let folder = host.folder()?;
    let disk = folder.file("disk");
    host.resize(&disk, DISK_SIZE)?;
    let tools = host.tools()?;
    let guest = Guest { kernel: tools.kernel.clone(), initrd: tools.initrd.clone(), disk };
    let vmms = Vmms::bring(host, installed)?;
    let results = vmms.by_turns(&vmm::ALL, rounds, until.what(), &until.word(), LIMIT, |vmm: Vmm| {
        vmm.arguments(&guest, log)
    })?;
    Ok(Measured { place: Place::of(host)?, results })
}

fn write_json(path: Option<&Path>, json: &Value) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(json)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
