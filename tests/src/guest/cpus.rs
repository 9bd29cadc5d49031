// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The right number of CPUs is online, and each really runs a thread.

use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::machine;
use super::options::Options;
use super::report::Report;

/// A thread of the calling process is 0 for the scheduler's calls.
const SELF: Pid = Pid::from_raw(0);

pub(super) fn run(options: &Options, report: &Report) {
    report.check("cpus-online", || online(options));
    report.check("cpus-run", run_on_each);
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
