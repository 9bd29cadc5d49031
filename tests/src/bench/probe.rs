// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One start of a VMM, measured on the KVM host itself, so that no channel adds to the times. A program of its own
//! (`host-agent measure entry|line=TEXT|io PROGRAM ARGUMENTS...`): it can then wait for all its children.
#![allow(unsafe_code)]

use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::resident::Resident;
use super::{io as disk, tracer};

/// The word that makes the agent's program this one.
pub const WORD: &str = "measure";

/// What ends a measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// The first KVM_RUN, stopped before it is carried out.
    Entry,
    /// A line with this text on the console.
    Line(String),
}

impl Until {
    /// As an argument.
    pub fn word(&self) -> String {
        match self {
            Self::Entry => "entry".to_owned(),
            Self::Line(text) => format!("line={text}"),
        }
    }

    /// As progress is told.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Entry => "to the first guest instruction",
            Self::Line(_) => "to the guest's init",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word.split_once('=') {
            None if word == "entry" => Some(Self::Entry),
            Some(("line", text)) => Some(Self::Line(text.to_owned())),
            _ => None,
        }
    }
}

/// One start.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// From immediately before exec.
    pub time: Duration,
    /// The process's resident memory at that time.
    pub resident: Resident,
    /// Bytes on the console before that.
    pub console: usize,
}

/// Measures what the arguments after [`WORD`] say, and prints the sample as JSON.
pub fn main(arguments: &[String]) -> Result<()> {
    let (what, program, arguments) = match arguments {
        [what, program, arguments @ ..] => (what, program, arguments),
        _ => bail!("usage: {WORD} entry|line=TEXT|io PROGRAM ARGUMENTS..."),
    };
    let sample = if what == disk::probe::WORD {
        serde_json::to_string(&disk::probe::measure(program, arguments)?)
    } else {
        let until = Until::parse(what).context("the first argument must be entry, line=TEXT or io")?;
        serde_json::to_string(&measure(&until, program, arguments)?)
    };
    println!("{}", sample?);
    Ok(())
}

/// A command whose console goes to standard output, and that dies with us.
pub(super) fn command(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let die = || Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?);
    // SAFETY: the closure makes one system call, and that is allowed between fork and exec.
    unsafe { command.pre_exec(die) };
    command
}

fn measure(until: &Until, program: &str, arguments: &[String]) -> Result<Sample> {
    // The same in both cases: the start must be the same.
    let mut command = command(program, arguments);
    if *until == Until::Entry {
        tracer::stop_at_entry(&mut command)?;
    }
    let started = note_start(&mut command)?;
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    // Closes our copy of the pipe's other end.
    drop(command);
    let result = match until {
        Until::Entry => tracer::wait_for_entry(&child).map(|()| 0),
        Until::Line(text) => wait_for_line(&mut child, text),
    };
    let sample = result.and_then(|console| {
        let time = now()?.saturating_sub(read_start(started)?);
        Ok(Sample { time, resident: Resident::of(child.id())?, console })
    });
    // It may have ended by itself.
    let _ = child.kill();
    sample
}

/// Returns how many bytes came before the line.
fn wait_for_line(child: &mut Child, text: &str) -> Result<usize> {
    let output = child.stdout.take().context("the console is piped")?;
    let mut seen = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        if line.contains(text) {
            return Ok(seen.len());
        }
        seen = seen + "\n  | " + &line;
    }
    bail!("it ended ({}) without a line with '{text}':{seen}", child.wait()?)
}

fn now() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from)
}

/// Lets the child write the time into a pipe as the last thing before exec.
fn note_start(command: &mut Command) -> Result<PipeReader> {
    let (reader, mut writer): (PipeReader, PipeWriter) = io::pipe()?;
    let note = move || writer.write_all(&now()?.as_nanos().to_le_bytes());
    // SAFETY: the closure makes two system calls, and those are allowed between fork and exec.
    unsafe { command.pre_exec(note) };
    Ok(reader)
}

fn read_start(mut from: PipeReader) -> Result<Duration> {
    let mut bytes = [0; 16];
    from.read_exact(&mut bytes).context("the child did not note its start")?;
    Ok(Duration::from_nanos(u64::try_from(u128::from_le_bytes(bytes))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_words() {
        for until in [Until::Entry, Until::Line("guest-init: started=1".into())] {
            assert_eq!(Until::parse(&until.word()), Some(until));
        }
        assert_eq!(Until::parse("line"), None);
    }

    fn shell(until: &Until, script: &str) -> Result<Sample> {
        measure(until, "/bin/sh", &["-c".to_owned(), script.to_owned()])
    }

    #[test]
    fn a_line_ends_a_measurement() {
        // A shell has no guest memory: the sample fails there, and only there.
        let error = shell(&Until::Line("two".into()), "echo one; echo two; sleep 100").unwrap_err();
        assert!(error.to_string().contains("guest memory"), "{error}");
        let error = shell(&Until::Line("three".into()), "echo one; exit 3").unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("| one"), "{error}");
    }

    #[test]
    fn a_program_that_enters_no_guest_is_an_error() {
        let error = shell(&Until::Entry, "(exit 0) & wait; exit 4").unwrap_err().to_string();
        assert!(error.contains("never entered a guest"), "{error}");
    }
}
