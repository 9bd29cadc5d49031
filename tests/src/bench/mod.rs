// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab bench`: what starting a guest costs, in time and memory, side by side with other VMMs.

mod carry;
pub mod probe;
mod resident;
mod summary;
mod tracer;
mod vmm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::{self, CommandLine, Exit, Folder, Host, Kind};
use crate::{build, packages};
use probe::{Sample, Until};
use summary::{Measured, Place, Report};
use vmm::{Guest, Vmm};

/// The guest's init program writes it first of all.
const INIT_LINE: &str = "guest-init: started";
const DISK_SIZE: u64 = 16 << 20;
/// Generous: a guest under emulation takes seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures `rounds` rounds on the `chosen` kind of host, prints the table, and writes the samples to `json`.
pub fn bench(chosen: Option<Kind>, rounds: u32, json: Option<&Path>) -> Result<i32> {
    packages::require(&[packages::QEMU])?;
    let (kind, why) = host::best_kind(chosen)?;
    eprintln!("lab: {why}; using {kind}");
    let installed: Vec<_> = vmm::ALL.iter().filter_map(|&vmm| Some((vmm, vmm.installed()?))).collect();

    let init_host = start(kind, &installed)?;
    // The first instruction needs no KVM that can run Linux, and without emulation the times are those of real use.
    let here = if kind == Kind::Kvm { None } else { Host::kvm().ok() };
    let entry_host = here.as_ref().unwrap_or(&init_host);
    let report = Report {
        rounds,
        versions: installed.iter().filter_map(|(vmm, program)| vmm.version(program)).collect(),
        at_entry: measure(entry_host, &installed, &Until::Entry, rounds)?,
        at_init: measure(&init_host, &installed, &Until::Line(INIT_LINE.to_owned()), rounds)?,
    };
    print!("{}", report.table());
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report.json())? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(0)
}

fn start(kind: Kind, installed: &[(Vmm, PathBuf)]) -> Result<Host> {
    match kind {
        Kind::Kvm => Host::kvm(),
        Kind::Emulated => {
            let mut bytes = DISK_SIZE;
            for (vmm, program) in installed {
                for file in carry::files(*vmm, program)? {
                    bytes += file.metadata()?.len();
                }
            }
            Host::emulated(bytes)
        }
    }
}

/// Measures all VMMs on `host`, by turns: what changes on the machine meanwhile meets all.
fn measure(host: &Host, installed: &[(Vmm, PathBuf)], until: &Until, rounds: u32) -> Result<Measured> {
    let folder = host.folder()?;
    let disk = folder.file("disk");
    host.resize(&disk, DISK_SIZE)?;
    let tools = host.tools()?;
    let guest = Guest { kernel: tools.kernel.clone(), initrd: tools.initrd.clone(), disk };
    let mut contenders =
        vec![Contender { vmm: Vmm::Cvmm, words: vec![text(host.cvmm())], result: Ok(vec![]) }];
    for (vmm, program) in installed {
        let words = words(host, &folder, *vmm, program)?;
        contenders.push(Contender { vmm: *vmm, words, result: Ok(vec![]) });
    }
    let probe = match host.kind() {
        Kind::Kvm => text(&build::static_programs()?.host_agent),
        Kind::Emulated => "/init".to_owned(),
    };
    // The first round brings the files into the page cache, and does not count.
    for round in 0..=rounds {
        eprintln!("lab: {}, round {round} of {rounds}", until.what());
        for contender in &mut contenders {
            let Ok(samples) = &mut contender.result else { continue };
            match once(host, &probe, until, contender.vmm, &contender.words, &guest) {
                Ok(sample) if round > 0 => samples.push(sample),
                Ok(_) => {}
                // Ours must work; another's failure goes into the table.
                Err(error) if contender.vmm != Vmm::Cvmm => {
                    eprintln!("lab: {}: {error:#}", contender.vmm.name());
                    contender.result = Err(format!("{error:#}"));
                }
                Err(error) => return Err(error.context("cvmm could not be measured")),
            }
        }
    }
    let results = contenders.into_iter().map(|contender| (contender.vmm, contender.result)).collect();
    Ok(Measured { place: Place::of(host)?, results })
}

struct Contender {
    vmm: Vmm,
    words: Vec<String>,
    /// The samples, or why there are none.
    result: Result<Vec<Sample>, String>,
}

/// What starts the VMM on the host, carried there if need be.
fn words(host: &Host, folder: &Folder, vmm: Vmm, program: &Path) -> Result<Vec<String>> {
    match host.kind() {
        Kind::Kvm => Ok(vec![text(program)]),
        Kind::Emulated => carry::put(host, folder, vmm, &carry::files(vmm, program)?),
    }
}

fn once(
    host: &Host,
    probe: &str,
    until: &Until,
    vmm: Vmm,
    words: &[String],
    guest: &Guest,
) -> Result<Sample> {
    let mut arguments = vec![probe::WORD.to_owned(), until.word()];
    arguments.extend(words.iter().cloned());
    arguments.extend(vmm.arguments(guest));
    let command = CommandLine { program: probe.into(), arguments, ..CommandLine::default() };
    let mut process = host.spawn(command)?;
    match process.wait(LIMIT)? {
        Exit::Code(0) => Ok(serde_json::from_str(&process.stdout())?),
        exit => Err(process.failure(&format!("{} failed ({exit:?})", vmm.name()))),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
