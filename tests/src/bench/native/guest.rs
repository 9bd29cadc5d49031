// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One run of the bare-metal guest: it is told what to do on its console, and the host's counters are read while it waits.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cvmm_hostile::speed::{self, Done, Order};
use serde_json::Value;

use super::calls::Calls;
use super::clock::Clock;
use super::sample::Sample;
use super::threads::{self, Threads};
use crate::bench::{io, probe};

/// Longer than a start takes, under a software KVM too.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than it takes to power off.
const PATIENCE_AT_END: Duration = Duration::from_secs(3);
/// The guest's clock may be ahead of ours by so much, and no more: ours also sees the lines between.
const AHEAD: f64 = 1.05;

/// How a run is started.
#[derive(Debug)]
pub struct Run<'a> {
    /// The VMM.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Has files of the run; cvmm's report too.
    pub folder: &'a Path,
    /// Whether to count system calls, which costs time.
    pub count_calls: bool,
    /// The guest's clock.
    pub clock: Clock,
}

impl Run<'_> {
    /// Has the guest do what is ordered, once.
    pub fn measure(&self, order: &Order) -> Result<Sample> {
        let log = self.folder.join("log");
        let mut command = probe::command(&self.program.to_string_lossy(), self.arguments);
        command.stdin(Stdio::piped()).stderr(File::create(&log)?);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut guest = Guest::new(child)?;
        let sample = self.converse(&mut guest, order);
        guest.end(if sample.is_ok() { PATIENCE_AT_END } else { Duration::ZERO })?;
        let mut sample =
            sample.map_err(|error| match fs::read_to_string(&log).unwrap_or_default().trim() {
                "" => error,
                log => error.context(log.to_owned()),
            })?;
        sample.answered = self.answered();
        Ok(sample)
    }

    fn converse(&self, guest: &mut Guest, order: &Order) -> Result<Sample> {
        let time = Duration::from_secs_f64(self.clock.seconds(order.ticks));
        let patience = time * speed::PATIENCE;
        guest.wait_for("ready", PATIENCE)?;
        guest.tell(&order.to_string())?;
        guest.wait_for("set", PATIENCE + patience * 4)?;
        let pid = guest.child.id();
        let mut calls = self.count_calls.then(|| Calls::of(&threads::of_devices(pid)?)).transpose()?;
        let exits = || io::probe::exits(pid).ok();
        let (before, exits_before, start) = (Threads::of(pid)?, exits(), Instant::now());
        guest.tell("go")?;
        let line = guest.wait_for("done", PATIENCE + patience * 4)?;
        let elapsed = start.elapsed().as_secs_f64();
        let (after, exits_after) = (Threads::of(pid)?, exits());
        let calls = calls.as_mut().map(Calls::count).transpose()?;
        let done = Done::parse(&line).with_context(|| format!("the guest says {line}"))?;
        guest.tell("end")?;
        let seconds = self.clock.seconds(done.ticks);
        if seconds > elapsed * AHEAD {
            bail!("{seconds:.3} s by the guest's clock are {elapsed:.3} s by the host's");
        }
        if done.requests == 0 {
            bail!("no request was completed in {seconds:.3} s");
        }
        Ok(Sample {
            requests: done.requests,
            seconds,
            notifications: Some(done.notifications),
            answered: None,
            exits: exits_after.zip(exits_before).map(|(after, before)| after.saturating_sub(before)),
            calls,
            written: done.written,
            threads: after.since(before),
        })
    }

    /// What cvmm's report says of the device's registers. Others have none.
    fn answered(&self) -> Option<u64> {
        let report: Value = serde_json::from_slice(&fs::read(self.folder.join("report")).ok()?).ok()?;
        let window = report["devices"][0]["window"]["base"].as_u64()?;
        let is_device = |exit: &&Value| exit["base"].as_u64().is_none_or(|base| base == window);
        let exits = report["exits"].as_array()?.iter().filter(is_device);
        let all = exits.flat_map(|exit| ["reads", "writes"].map(|field| exit[field].as_u64().unwrap_or(0)));
        Some(all.sum())
    }
}

/// A VMM, and its guest's console.
struct Guest {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Guest {
    fn new(mut child: Child) -> Result<Self> {
        let input = child.stdin.take().context("the input is piped")?;
        let output = child.stdout.take().context("the console is piped")?;
        let (sender, lines) = channel();
        // On a thread of its own, so that nobody waits for longer than a line should take.
        thread::spawn(move || {
            let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
            for line in lines {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("the console takes no line")
    }

    /// The next answer, which begins with `word`, without the `= ` before it. A VMM may write lines of its own between.
    fn wait_for(&mut self, word: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!("no '{word}' from the guest:{seen}");
            };
            match line.strip_prefix("= ").filter(|answer| answer.starts_with(word)) {
                Some(answer) => return Ok(answer.to_owned()),
                None if line.starts_with("FAILED") => bail!("the guest says {line}"),
                None => seen = seen + "\n  | " + &line,
            }
        }
    }

    /// It ends with its guest, which powers off or crashes; one that does not is ended.
    fn end(mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.child.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait()?;
        Ok(())
    }
}
