// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One guest that runs all loads, with KVM's counters of it read between them. Runs on the KVM host itself
//! (`host-agent measure io PROGRAM ARGUMENTS...`).
//!
//! The counters are those that KVM keeps for each VM in debugfs (/sys/kernel/debug/kvm/PID-FD/, needs root). They are
//! read while the guest waits for a line. What the lines themselves cost is in every difference; the load that is
//! nothing has that alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::load::{Done, END, HOST, Line};
use super::stream;
use crate::bench::probe;

/// What is measured, as the probe's argument.
pub const WORD: &str = "io";

const COUNTERS: &str = "/sys/kernel/debug/kvm";
/// All exits.
pub const EXITS: &str = "exits";
/// Of them, those by which the guest asked the VMM for an access to MMIO or a port.
pub const ACCESSES: [&str; 2] = ["mmio_exits", "io_exits"];
const OTHERS: [&str; 4] = ["halt_exits", "irq_exits", "irq_injections", "insn_emulation"];

/// KVM's counters of a VM, or how much they grew.
pub type Counters = BTreeMap<String, u64>;

/// One guest's loads, in their order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Each load's time and requests.
    pub loads: Vec<Measured>,
    /// Why there are no counters, if so.
    pub no_counters: Option<String>,
}

/// One load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// What the guest says.
    pub done: Done,
    /// How much KVM's counters grew, with what the lines cost; empty if there are none.
    pub counters: Counters,
}

/// Starts the VMM, and ends it after the last load.
pub fn measure(program: &str, arguments: &[String]) -> Result<Sample> {
    let mut command = probe::command(program, arguments);
    let mut child =
        command.stdin(Stdio::piped()).spawn().with_context(|| format!("cannot start {program}"))?;
    let sample = run(&mut child);
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    sample
}

fn run(child: &mut Child) -> Result<Sample> {
    // Without a tap nobody has the address, and the guest needs no port.
    let port = match TcpListener::bind((HOST, 0)) {
        Ok(listener) => {
            let port = listener.local_addr()?.port();
            std::thread::spawn(move || stream::serve(&listener));
            port
        }
        Err(_) => 0,
    };
    let mut input = child.stdin.take().context("the input is piped")?;
    let output = BufReader::new(child.stdout.take().context("the console is piped")?);
    let pid = child.id();
    let mut conversation = Conversation::default();
    let mut seen = String::new();
    for line in output.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        seen = seen + "\n  | " + &line;
        match Line::parse(&line) {
            Some(Line::Ready(load)) => {
                let counters = counters(Path::new(COUNTERS), pid);
                if conversation.ready(&load, counters)? {
                    return Ok(conversation.sample);
                }
                input.write_all(format!("{port}\n").as_bytes()).context("the console takes no line")?;
            }
            Some(Line::Done(done)) => conversation.done(done)?,
            None => {}
        }
    }
    bail!("it ended ({}) before the last load:{seen}", child.wait()?)
}

/// What the guest said so far.
#[derive(Debug)]
struct Conversation {
    sample: Sample,
    /// The load that was begun, and the counters then.
    begun: Option<(String, Counters)>,
    finished: Option<Done>,
}

impl Default for Conversation {
    fn default() -> Self {
        let sample = Sample { loads: Vec::new(), no_counters: None };
        Self { sample, begun: None, finished: None }
    }
}

impl Conversation {
    /// The guest is ready for `load`; whether that is the end.
    fn ready(&mut self, load: &str, counters: Result<Counters>) -> Result<bool> {
        let now = counters.unwrap_or_else(|error| {
            self.sample.no_counters = Some(format!("{error:#}"));
            Counters::new()
        });
        if let Some((begun, before)) = self.begun.take() {
            let done = self.finished.take().with_context(|| format!("{begun} has no result"))?;
            let growth = now
                .iter()
                .filter_map(|(name, now)| Some((name.clone(), now.checked_sub(*before.get(name)?)?)));
            self.sample.loads.push(Measured { done, counters: growth.collect() });
        }
        self.begun = Some((load.to_owned(), now));
        Ok(load == END)
    }

    fn done(&mut self, done: Done) -> Result<()> {
        let begun = self.begun.as_ref().map(|(load, _)| load.as_str());
        ensure!(begun == Some(&done.load), "a result of {}, but {begun:?} was begun", done.load);
        self.finished = Some(done);
        Ok(())
    }
}

/// All exits so far of the VM that the process made.
pub fn exits(pid: u32) -> Result<u64> {
    counters(Path::new(COUNTERS), pid)?.get(EXITS).copied().context("KVM counts no exits")
}

/// The counters of the VM that the process made. KVM names its folder by the thread that made it.
fn counters(folder: &Path, pid: u32) -> Result<Counters> {
    let threads = names(Path::new(&format!("/proc/{pid}/task")))?;
    let of_process = |name: &String| {
        name.split_once('-').is_some_and(|(thread, _)| threads.iter().any(|one| one == thread))
    };
    let vms: Vec<_> = names(folder)?.into_iter().filter(of_process).collect();
    let [vm] = &vms[..] else { bail!("{} has {} VMs of process {pid}", folder.display(), vms.len()) };
    let vm = folder.join(vm);
    let known = [EXITS].into_iter().chain(ACCESSES).chain(OTHERS);
    let counters: Counters =
        known.filter_map(|name| Some((name.to_owned(), number(vm.join(name))?))).collect();
    ensure!(counters.contains_key(EXITS), "{} counts no exits", vm.display());
    Ok(counters)
}

fn number(path: PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn done(load: &str, requests: u64) -> Done {
        Done { load: load.into(), requests, time: Duration::from_millis(1), pool: None, lock: None }
    }

    fn exits(exits: u64) -> Result<Counters> {
        Ok([(EXITS.to_owned(), exits)].into())
    }

    #[test]
    fn a_load_has_what_the_counters_grew_over_it() {
        let mut conversation = Conversation::default();
        assert!(!conversation.ready("nothing", exits(1000)).unwrap());
        conversation.done(done("nothing", 0)).unwrap();
        assert!(!conversation.ready("random-read", exits(1100)).unwrap());
        conversation.done(done("random-read", 10)).unwrap();
        assert!(conversation.ready(END, exits(1700)).unwrap());
        let loads = conversation.sample.loads;
        assert_eq!(loads.iter().map(|load| load.counters[EXITS]).collect::<Vec<_>>(), [100, 600]);
        assert_eq!(loads[1].done, done("random-read", 10));
    }

    #[test]
    fn a_result_out_of_turn_is_an_error() {
        let mut conversation = Conversation::default();
        assert!(conversation.done(done("random-read", 1)).is_err());
        conversation.ready("nothing", exits(0)).unwrap();
        let error = conversation.ready("random-read", exits(0)).unwrap_err().to_string();
        assert!(error.contains("nothing has no result"), "{error}");
    }

    #[test]
    fn without_counters_there_are_times() {
        let mut conversation = Conversation::default();
        conversation.ready("nothing", exits(0)).unwrap();
        conversation.done(done("nothing", 0)).unwrap();
        conversation.ready(END, Err(anyhow::anyhow!("no debugfs"))).unwrap();
        assert!(conversation.sample.loads[0].counters.is_empty());
        assert_eq!(conversation.sample.no_counters.as_deref(), Some("no debugfs"));
    }

    #[test]
    fn counters_are_those_of_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let error = counters(folder.path(), pid).unwrap_err().to_string();
        assert!(error.contains("0 VMs"), "{error}");
        for (vm, exits) in [(format!("{pid}-12"), "77\n"), ("1-12".into(), "5\n")] {
            let vm = folder.path().join(vm);
            fs::create_dir(&vm).unwrap();
            fs::write(vm.join("exits"), exits).unwrap();
        }
        assert_eq!(counters(folder.path(), pid).unwrap(), exits(77).unwrap());
    }
}
