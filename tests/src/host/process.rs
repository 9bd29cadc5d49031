// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A program that runs on a KVM host, seen from the lab.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use super::client::Client;
use super::console::ConsoleLog;
use super::protocol::{Event, Exit, JobId, Request, Stream, Time};

/// How many of the last lines an error shows.
const TAIL: usize = 40;

/// A line that a program wrote.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where to.
    pub stream: Stream,
    /// When its first byte was seen, since the program's start.
    pub at: Duration,
    /// The line without its end.
    pub text: String,
}

/// What came of waiting for a program's next event.
enum Progress {
    Output(Stream, Vec<u8>),
    Ended,
    TimedOut,
}

/// A running or ended program. Dropping it kills the program.
#[derive(Debug)]
pub struct Process {
    client: Arc<Client>,
    host_console: ConsoleLog,
    name: String,
    job: JobId,
    pid: i32,
    started: Time,
    events: Receiver<(Event, Vec<u8>)>,
    lines: Vec<Line>,
    /// The unfinished last lines of standard output and error.
    partial: [Option<(Time, Vec<u8>)>; 2],
    exit: Option<(Exit, Time)>,
}

impl Process {
    pub(super) fn new(
        client: Arc<Client>,
        host_console: ConsoleLog,
        name: String,
        (job, events): (JobId, Receiver<(Event, Vec<u8>)>),
        (pid, started): (i32, Time),
    ) -> Self {
        let (lines, partial) = (Vec::new(), [None, None]);
        Self { client, host_console, name, job, pid, started, events, lines, partial, exit: None }
    }

    /// The process number on the KVM host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Feeds and signals the program, from another thread too.
    pub fn control(&self) -> Control {
        Control { client: self.client.clone(), job: self.job }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.control().signal(signal)
    }

    /// Waits until the program ends.
    pub fn wait(&mut self, limit: Duration) -> Result<Exit> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some((exit, _)) = self.exit {
                return Ok(exit);
            }
            if matches!(self.next_event(deadline)?, Progress::TimedOut) {
                return Err(self.failure(&format!("did not end within {} s", limit.as_secs())));
            }
        }
    }

    /// Waits until the program ends, as long as it is never silent for longer than `limit`.
    pub fn wait_while_it_writes(&mut self, limit: Duration) -> Result<Exit> {
        loop {
            if let Some((exit, _)) = self.exit {
                return Ok(exit);
            }
            if matches!(self.next_event(Instant::now() + limit)?, Progress::TimedOut) {
                return Err(self.failure(&format!("wrote nothing for {} s", limit.as_secs())));
            }
        }
    }

    /// Waits for a line that contains `text`; lines that came before count, too.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<Line> {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        loop {
            if let Some(line) = self.lines[seen..].iter().find(|line| line.text.contains(text)) {
                return Ok(line.clone());
            }
            seen = self.lines.len();
            if let Some((exit, _)) = self.exit {
                return Err(self.failure(&format!("ended ({exit:?}) without a line with '{text}'")));
            }
            if matches!(self.next_event(deadline)?, Progress::TimedOut) {
                return Err(self.failure(&format!("wrote no line with '{text}' in {} s", limit.as_secs())));
            }
        }
    }

    /// Hands the program's output to `show` as it comes, until the program ends.
    pub fn stream(&mut self, mut show: impl FnMut(Stream, &[u8])) -> Result<Exit> {
        loop {
            if let Some((exit, _)) = self.exit {
                return Ok(exit);
            }
            let deadline = Instant::now() + Duration::from_secs(3600);
            if let Progress::Output(stream, bytes) = self.next_event(deadline)? {
                show(stream, &bytes);
            }
        }
    }

    /// The lines so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Standard output so far, in lines.
    pub fn stdout(&self) -> String {
        self.text(Stream::Stdout)
    }

    /// Standard error so far, in lines.
    pub fn stderr(&self) -> String {
        self.text(Stream::Stderr)
    }

    /// How long the program ran, once it has ended.
    pub fn elapsed(&self) -> Option<Duration> {
        self.exit.map(|(_, at)| self.since_start(at))
    }

    /// An error about this program that shows its last lines, and those of the KVM host's own console.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        let lines = &self.lines[self.lines.len().saturating_sub(TAIL)..];
        let mut text = format!("{} {what}", self.name);
        if lines.is_empty() {
            text += "; it wrote nothing";
        } else {
            text += "; its last lines:";
        }
        for line in lines {
            text += &format!("\n  | {}", line.text);
        }
        anyhow!(self.host_console.explain(text))
    }

    fn text(&self, stream: Stream) -> String {
        let of_stream = self.lines.iter().filter(|line| line.stream == stream);
        of_stream.map(|line| line.text.clone() + "\n").collect()
    }

    fn next_event(&mut self, deadline: Instant) -> Result<Progress> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(left) {
            Ok((Event::Output { stream, at }, bytes)) => {
                self.add_output(stream, at, &bytes);
                Ok(Progress::Output(stream, bytes))
            }
            Ok((Event::Exited { exit, at }, _)) => {
                self.finish_lines();
                self.exit = Some((exit, at));
                Ok(Progress::Ended)
            }
            Ok((Event::Transferred(_), _)) => bail!(self.failure("is no transfer, but reported one")),
            Err(RecvTimeoutError::Timeout) => Ok(Progress::TimedOut),
            Err(RecvTimeoutError::Disconnected) => bail!(self.failure("was lost: the KVM host has ended")),
        }
    }

    fn add_output(&mut self, stream: Stream, at: Time, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (first, partial) = self.partial[stream as usize].get_or_insert((at, Vec::new()));
            let first = *first;
            partial.extend(piece);
            if piece.ends_with(b"\n") {
                let text = String::from_utf8_lossy(partial).trim_end_matches(['\r', '\n']).to_owned();
                self.partial[stream as usize] = None;
                self.lines.push(Line { stream, at: self.since_start(first), text });
            }
        }
    }

    fn finish_lines(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some((at, _)) = self.partial[stream as usize] {
                self.add_output(stream, at, b"\n");
            }
        }
    }

    fn since_start(&self, at: Time) -> Duration {
        Duration::from_micros(at.saturating_sub(self.started))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // It may have ended by itself, and the host with it.
            let kill = Request::Signal { job: self.job, signal: libc::SIGKILL, children: true };
            let _ = self.client.order(&kill, &[]);
            let _ = self.wait(Duration::from_secs(5));
        }
    }
}

/// Feeds and signals a program.
#[derive(Debug, Clone)]
pub struct Control {
    client: Arc<Client>,
    job: JobId,
}

impl Control {
    /// Writes to standard input.
    pub fn input(&self, bytes: &[u8]) -> Result<()> {
        self.client.order(&Request::Input { job: self.job, end: false }, bytes)
    }

    /// Closes standard input.
    pub fn end_input(&self) -> Result<()> {
        self.client.order(&Request::Input { job: self.job, end: true }, &[])
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.client.order(&Request::Signal { job: self.job, signal, children: false }, &[])
    }
}
