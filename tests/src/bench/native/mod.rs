// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab bench --native`: devices as fast as they go, driven by a bare-metal guest that any /dev/kvm runs at full speed,
//! beside the host by itself and other VMMs.

mod calls;
mod case;
mod clock;
mod disk;
mod fio;
mod guest;
mod net;
mod peer;
mod sample;
mod summary;
mod threads;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cvmm_hostile::speed::{Load, Order};
use tempfile::TempDir;

use super::summary::{Place, load_now};
use super::{vmm, write_json};
use crate::host::Host;
use crate::{build, packages, workspace};
use case::{Cache, Case};
use clock::Clock;
use disk::Disk;
use guest::Run;
use net::Net;
use peer::{Peer, Program, Start};
use sample::Sample;
use summary::{Report, Results, Turns};

pub use peer::Given;

/// The disk that is in the page cache, and the one that is not: there the requests of a measurement must seldom meet a page
/// that an earlier one brought.
const WARM_MIB: usize = 64;
const COLD_MIB: usize = 1536;

/// What to measure.
#[derive(Debug)]
pub struct Plan {
    /// Words of the cases' names.
    pub filter: String,
    /// How long each measurement takes.
    pub seconds: f64,
    /// How often.
    pub rounds: u32,
    /// Other programs.
    pub peers: Vec<Given>,
    /// Measure none but cvmm and those.
    pub alone: bool,
    /// More options of cvmm's disk.
    pub disk_options: Option<String>,
    /// Where to write all samples.
    pub json: Option<PathBuf>,
}

/// Measures, prints the table, and writes the samples.
pub fn bench(plan: &Plan) -> Result<i32> {
    let cases: Vec<_> = Case::all().into_iter().filter(|case| case.is_chosen(&plan.filter)).collect();
    if cases.is_empty() {
        bail!("no case has all the words '{}'; a name is like '{}'", plan.filter, Case::all()[0].name());
    }
    let kvm = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    kvm.context("the bare-metal guest needs a /dev/kvm, be it a software one")?;
    let host = Host::kvm()?;
    let report = Bench::new(plan, &host, &cases)?.measure(&host, &cases)?;
    print!("{}", report.table());
    write_json(plan.json.as_deref(), &report.json())?;
    // Another's failure is its own.
    Ok(i32::from(report.failed("cvmm")))
}

/// Everything that is needed for a measurement.
struct Bench<'a> {
    plan: &'a Plan,
    peers: Vec<Peer>,
    /// Who is not there, and why.
    missing: Vec<String>,
    guest: PathBuf,
    clock: Clock,
    warm: Disk,
    cold: Disk,
    net: Option<Net>,
    folder: TempDir,
}

impl<'a> Bench<'a> {
    fn new(plan: &'a Plan, host: &Host, cases: &[Case]) -> Result<Self> {
        let cvmm = host.cvmm();
        let (peers, mut missing) = peers(plan, cvmm);
        let net = cases.iter().any(Case::is_net).then(|| Net::new(host));
        let net = net.and_then(|net| net.inspect_err(|error| missing.push(format!("net: {error:#}"))).ok());
        // On a real disk: a tmpfs is always in memory.
        fs::create_dir_all(workspace::lab_dir())?;
        let folder = tempfile::Builder::new().prefix("native-").tempdir_in(workspace::lab_dir())?;
        let disk = |name, mebibytes| Disk::new(folder.path().join(name), mebibytes);
        Ok(Self {
            plan,
            peers,
            missing,
            guest: build::bare_metal_guest()?,
            clock: Clock::look(),
            warm: disk("warm", WARM_MIB),
            cold: disk("cold", COLD_MIB),
            net,
            folder,
        })
    }

    fn measure(self, host: &Host, cases: &[Case]) -> Result<Report> {
        let load_before = load_now()?;
        let mut results = Vec::new();
        for (number, case) in (1..).zip(cases) {
            if case.is_net() && self.net.is_none() {
                continue;
            }
            eprintln!("lab: {number} of {}: {}", cases.len(), case.name());
            results.push(self.by_turns(case));
        }
        let mut place = Place::of(host)?;
        // It takes minutes, and one number would hide what was before.
        place.load = format!("{load_before} before, {} after", place.load);
        let Plan { rounds, seconds, .. } = *self.plan;
        Ok(Report { rounds, seconds, clock: self.clock, place, missing: self.missing, results })
    }

    /// Rounds in which all take turns. In the first, system calls are counted, and nothing else is of use.
    fn by_turns(&self, case: &Case) -> Results {
        let able = |peer: &&Peer| match peer.program {
            Program::Fio { direct: true } => case.cache == Cache::Cold,
            _ => peer.obstacle(case).is_none(),
        };
        let mut turns: Vec<_> = self.peers.iter().filter(able).map(|peer| (peer, Turns::default())).collect();
        for round in 0..=self.plan.rounds {
            for (peer, turns) in &mut turns {
                if turns.failure.is_some() {
                    continue;
                }
                match self.once(peer, case, round == 0) {
                    Ok(sample) if round == 0 => turns.calls = sample.calls.map(|calls| sample.each(calls)),
                    Ok(sample) => turns.samples.push(sample),
                    // It goes into the table, and the others go on.
                    Err(error) => {
                        eprintln!("lab: {}: {error:#}", peer.name);
                        turns.failure = Some(format!("{error:#}"));
                    }
                }
            }
        }
        let peers = turns.into_iter().map(|(peer, turns)| (peer.name.clone(), turns)).collect();
        Results { case: *case, peers }
    }

    fn once(&self, peer: &Peer, case: &Case, count_calls: bool) -> Result<Sample> {
        let disk = if case.cache == Cache::Cold { &self.cold } else { &self.warm };
        if case.is_disk() {
            disk.prepare(case)?;
        }
        if let Program::Fio { direct } = peer.program {
            return fio::measure(&peer.path, case, disk.path(), self.plan.seconds, direct);
        }
        let disk_options = self.plan.disk_options.as_deref();
        let start = Start { guest: &self.guest, disk: disk.path(), disk_options, folder: &self.folder };
        let (arguments, files) = peer.arguments(case, &start);
        for (name, content) in files {
            fs::write(self.folder.path().join(name), content.to_string())?;
        }
        // An older one is not this run's.
        let _ = fs::remove_file(self.folder.path().join("report"));
        let (program, folder, clock) = (peer.path.as_path(), self.folder.path(), self.clock);
        let count = |count_calls| {
            let order = Order { ticks: clock.ticks(self.plan.seconds), ..case.order };
            Run { program, arguments: &arguments, folder, count_calls, clock }.measure(&order)
        };
        let _frames = match (&self.net, case.order.load) {
            (Some(net), Load::Receive) => Some(net.generate(case.order.bytes)?),
            _ => None,
        };
        let sent = || self.net.as_ref().map_or(Ok(0), Net::sent);
        let sent_before = sent()?;
        // Where they can't be counted, the round is still one to warm up.
        let sample = count(count_calls && calls::Calls::of(&[0]).is_ok())?;
        let sent = sent()? - sent_before;
        if case.order.load == Load::Send && sent < sample.requests {
            bail!("{} frames were sent, and {sent} are there", sample.requests);
        }
        Ok(sample)
    }
}

/// cvmm and all that is there, and a word about what is not.
fn peers(plan: &Plan, cvmm: &Path) -> (Vec<Peer>, Vec<String>) {
    let peer = |name: &str, program, path: PathBuf| Peer { name: name.into(), program, path };
    let (mut peers, mut missing) = (vec![peer("cvmm", Program::Cvmm, cvmm.into())], Vec::new());
    peers.extend(plan.peers.iter().flat_map(Given::peers));
    if let Err(error) = calls::Calls::of(&[0]) {
        missing.push(format!("system calls: {error:#}"));
    }
    if plan.alone {
        return (peers, missing);
    }
    match packages::require(&[packages::FIO]).ok().and_then(|()| packages::find(packages::FIO.program)) {
        Some(fio) => {
            for (name, direct) in [("fio io_uring", false), ("fio io_uring, direct", true)] {
                peers.push(peer(name, Program::Fio { direct }, fio.clone()));
            }
        }
        None => missing.push("fio: not installed (Debian package fio)".into()),
    }
    match vmm::Vmm::QemuMicrovm.installed() {
        Some(qemu) => peers.push(peer("QEMU microvm", Program::Qemu, qemu)),
        None => missing.push("QEMU microvm: not installed (Debian package qemu-system-x86)".into()),
    }
    (peers, missing)
}
