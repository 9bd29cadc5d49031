// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The right number of CPUs is online, and each really runs a thread; they are the cores of one package, with one L3.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::machine;
use super::options::Options;
use super::report::Report;

/// A thread of the calling process is 0 for the scheduler's calls.
const SELF: Pid = Pid::from_raw(0);
/// A CPU's folder, without its number.
const CPUS: &str = "/sys/devices/system/cpu/cpu";

pub(super) fn run(options: &Options, report: &Report) {
    report.check("cpus-online", || online(options));
    report.check("cpus-run", run_on_each);
    report.check("cpus-topology", topology);
    report.check("cpus-caches", caches);
}

fn online(options: &Options) -> Result<String> {
    let online = cpus()?.len() as u64;
    if let Some(wanted) = options.number("cpus")? {
        let said = machine::text("/sys/devices/system/cpu/online")?;
        ensure!(online == wanted, "{online} CPUs online ({said}), but there should be {wanted}");
    }
    Ok(format!("{online}"))
}

fn run_on_each() -> Result<String> {
    let cpus = cpus()?;
    for &cpu in &cpus {
        let ran_on = on(cpu, || Ok(sched_getcpu()?))?;
        ensure!(ran_on == cpu, "a thread bound to CPU {cpu} ran on {ran_on}");
    }
    Ok(format!("a thread ran on each of {cpus:?}"))
}

/// Each CPU is a core of its own, all in package 0.
fn topology() -> Result<String> {
    let all = machine::text("/sys/devices/system/cpu/online")?;
    for cpu in cpus()? {
        let folder = format!("{CPUS}{cpu}/topology");
        let own = cpu.to_string();
        let expected = [
            ("physical_package_id", "0"),
            ("core_id", &own),
            ("core_cpus_list", &own),
            ("thread_siblings_list", &own),
            ("core_siblings_list", &all),
            ("package_cpus_list", &all),
        ];
        for (name, wanted) in expected {
            let said = machine::text(format!("{folder}/{name}"))?;
            ensure!(said == wanted, "{folder}/{name} says {said}, but should say {wanted}");
        }
    }
    Ok(format!("CPUs {all} are the cores of package 0"))
}

/// The first two levels belong to a CPU, the third one to all. KVM reports the host's: it may have fewer levels.
fn caches() -> Result<String> {
    let all = machine::text("/sys/devices/system/cpu/online")?;
    let mut seen = BTreeSet::new();
    for cpu in cpus()? {
        let folder = format!("{CPUS}{cpu}/cache");
        for index in machine::names(&folder).iter().filter(|name| name.starts_with("index")) {
            let folder = format!("{folder}/{index}");
            let level = machine::number(format!("{folder}/level"))?;
            let wanted = if level < 3 { cpu.to_string() } else { all.clone() };
            let said = machine::text(format!("{folder}/shared_cpu_list"))?;
            ensure!(said == wanted, "{folder}: L{level} is shared by {said}, but should be by {wanted}");
            seen.insert(format!("L{level} {}", if level < 3 { "of a core" } else { "of the package" }));
        }
    }
    let seen: Vec<_> = seen.into_iter().collect();
    Ok(if seen.is_empty() { "the kernel shows none".to_owned() } else { seen.join(", ") })
}

/// Does `work` on a CPU, and waits for it.
pub(super) fn on<T: Send + 'static>(
    cpu: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let thread = thread::spawn(move || {
        let mut only = CpuSet::new();
        only.set(cpu)?;
        sched_setaffinity(SELF, &only).with_context(|| format!("move a thread to CPU {cpu}"))?;
        work()
    });
    thread.join().map_err(|_| anyhow::anyhow!("the thread for CPU {cpu} panicked"))?
}

/// Init starts with every CPU that is online.
pub(super) fn cpus() -> Result<Vec<usize>> {
    let all = sched_getaffinity(SELF)?;
    Ok((0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false)).collect())
}
