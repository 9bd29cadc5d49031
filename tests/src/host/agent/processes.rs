// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs on the KVM host: their output goes out as events, their input comes in.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::Outbox;
use crate::host::child;
use crate::host::protocol::{Answer, CommandLine, Event, Exit, JobId, Stream};

/// A started program.
pub struct Process {
    pid: Pid,
    /// Set once the program was waited for: its number may then belong to another.
    ended: Arc<Mutex<bool>>,
    input: Option<Sender<Vec<u8>>>,
}

impl Process {
    pub fn spawn(job: JobId, line: &CommandLine, outbox: &Outbox) -> Result<(Self, Answer)> {
        let mut command = Command::new(&line.program);
        command.args(&line.arguments).envs(line.environment.iter().cloned()).stderr(Stdio::piped());
        if let Some(folder) = &line.folder {
            command.current_dir(folder);
        }
        let terminal = if line.terminal { Some(attach_terminal(&mut command)?) } else { None };
        if terminal.is_none() {
            // A group of its own, as with a terminal: its children can then be reached with it.
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        }
        // A program must not outlive the lab, however that ends.
        child::die_with_parent(&mut command);

        let at = outbox.now();
        let mut running =
            command.spawn().with_context(|| format!("cannot start {}", line.program.display()))?;
        // The command holds the terminal's other end, which would keep it open after the program's end.
        drop(command);
        let pid = Pid::from_raw(i32::try_from(running.id()).context("a process number out of range")?);

        let (input, output): (Box<dyn Write + Send>, Option<Box<dyn Read + Send>>) = match terminal {
            Some(terminal) => (Box::new(terminal.try_clone()?), Some(Box::new(terminal))),
            None => match running.stdin.take() {
                Some(stdin) => (Box::new(stdin), running.stdout.take().map(|stdout| Box::new(stdout) as _)),
                None => (Box::new(io::sink()), None),
            },
        };
        let mut readers = Vec::new();
        readers.extend(output.map(|output| forward(output, job, Stream::Stdout, outbox)));
        readers.extend(running.stderr.take().map(|stderr| forward(stderr, job, Stream::Stderr, outbox)));
        let ended = Arc::new(Mutex::new(false));
        wait(running, pid, job, readers, ended.clone(), outbox.clone());

        let process = Self { pid, ended, input: Some(feed(input)) };
        Ok((process, Answer::Spawned { pid: pid.as_raw(), at }))
    }

    pub fn input(&mut self, bytes: Vec<u8>, end: bool) {
        if let Some(input) = &self.input {
            // A program that closed its input does not want it: no error.
            let _ = input.send(bytes);
        }
        if end {
            self.input = None;
        }
    }

    pub fn signal(&self, signal: i32, children: bool) -> Result<()> {
        let signal = Signal::try_from(signal).with_context(|| format!("there is no signal {signal}"))?;
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !*ended {
            let to = if children { Pid::from_raw(-self.pid.as_raw()) } else { self.pid };
            nix::sys::signal::kill(to, signal).context("cannot send the signal")?;
        }
        Ok(())
    }
}

/// A thread per program writes its input: a program that does not read must not stop the agent.
fn feed(mut to: impl Write + Send + 'static) -> Sender<Vec<u8>> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        for bytes in receiver {
            if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
                return;
            }
        }
    });
    sender
}

fn forward(
    mut from: impl Read + Send + 'static,
    job: JobId,
    stream: Stream,
    outbox: &Outbox,
) -> JoinHandle<()> {
    let outbox = outbox.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        // A terminal reports the end of its program as an error (EIO).
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            outbox.event(job, Event::Output { stream, at: outbox.now() }, &buffer[..length]);
        }
    })
}

fn wait(
    mut child: Child,
    pid: Pid,
    job: JobId,
    readers: Vec<JoinHandle<()>>,
    ended: Arc<Mutex<bool>>,
    outbox: Outbox,
) {
    thread::spawn(move || {
        // First only look, then reap under the lock, so that a signal cannot meet a stranger of the same number.
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let exit = {
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            *ended = true;
            child.wait().map_or(Exit::Code(-1), exit_of)
        };
        let at = outbox.now();
        for reader in readers {
            let _ = reader.join();
        }
        outbox.event(job, Event::Exited { exit, at }, &[]);
    });
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

/// Gives the program a terminal of its own, and returns the other end of it.
fn attach_terminal(command: &mut Command) -> Result<File> {
    let pair = nix::pty::openpty(None, None).context("cannot make a terminal")?;
    command.stdin(pair.slave.try_clone()?).stdout(pair.slave);
    let lead_session = || {
        nix::unistd::setsid()?;
        // SAFETY: the request takes an integer; standard input is the terminal.
        match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes two system calls, and those are allowed between fork and exec.
    unsafe { command.pre_exec(lead_session) };
    Ok(pair.master.into())
}
