// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lab's hand on a KVM host: runs programs, keeps files, makes interfaces. It runs as /init of an emulated host, and as a
//! thread of the lab where this machine is the host.

mod files;
mod pid1;
mod processes;
mod tap;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};

use super::protocol::{self, Answer, Event, Greeting, JobId, Message, Received, Request, Time};
use crate::pattern;

pub use pid1::{be_init, power_off};
pub use tap::exists as tap_exists;

/// Serves one lab until it closes the channel.
pub fn serve(mut from: impl Read, to: impl Write + Send + 'static) -> Result<()> {
    let outbox = Outbox { to: Arc::new(Mutex::new(Box::new(to))), started: Instant::now() };
    outbox.send(&Message::Ready(greeting()), &[])?;
    let mut agent = Agent { outbox, processes: HashMap::new() };
    while let Some((request, bytes)) = protocol::receive(&mut from)? {
        let (answer, content) = match agent.handle(request, bytes) {
            Ok((answer, content)) => (Ok(answer), content),
            Err(error) => (Err(format!("{error:#}")), Vec::new()),
        };
        agent.outbox.send(&Message::Answer(answer), &content)?;
    }
    Ok(())
}

fn greeting() -> Greeting {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    Greeting { kernel, kvm_error: kvm.err().map(|error| error.to_string()) }
}

/// The channel's sending half: answers and events go through it, whole frames at a time.
#[derive(Clone)]
struct Outbox {
    to: Arc<Mutex<Box<dyn Write + Send>>>,
    started: Instant,
}

impl Outbox {
    fn send(&self, message: &Message, bytes: &[u8]) -> Result<()> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        protocol::send(&mut *to, message, bytes).context("the lab is gone")
    }

    fn event(&self, job: JobId, event: Event, bytes: &[u8]) {
        // Nobody is left to tell when this fails; the receiving half then ends, too.
        let _ = self.send(&Message::Event { job, event }, bytes);
    }

    fn now(&self) -> Time {
        Time::try_from(self.started.elapsed().as_micros()).unwrap_or(Time::MAX)
    }
}

struct Agent {
    outbox: Outbox,
    processes: HashMap<JobId, processes::Process>,
}

impl Agent {
    fn handle(&mut self, request: Request, bytes: Vec<u8>) -> Result<(Answer, Vec<u8>)> {
        match request {
            Request::Write { path, offset, mode } => files::write(&path, offset, mode, &bytes)?,
            Request::Read { path, offset, length } => {
                return Ok((Answer::Done, files::read(&path, offset, length)?));
            }
            Request::Resize { path, size } => files::resize(&path, size)?,
            Request::Layout { path } => return Ok((files::layout(&path)?, Vec::new())),
            Request::MakeFolder { path } => files::make_folder(&path)?,
            Request::Remove { path } => files::remove(&path)?,
            Request::Spawn { job, command } => {
                let (process, answer) = processes::Process::spawn(job, &command, &self.outbox)?;
                self.processes.insert(job, process);
                return Ok((answer, Vec::new()));
            }
            Request::Input { job, end } => self.process(job)?.input(bytes, end),
            Request::Signal { job, signal, children } => self.process(job)?.signal(signal, children)?,
            Request::MakeTap { name, address, multi_queue, mtu } => {
                tap::make(&name, address.as_deref(), multi_queue, mtu)?;
            }
            Request::RemoveTap { name } => tap::remove(&name)?,
            Request::Transfer { job, port } => return Ok((self.transfer(job, port)?, Vec::new())),
        }
        Ok((Answer::Done, Vec::new()))
    }

    fn process(&mut self, job: JobId) -> Result<&mut processes::Process> {
        self.processes.get_mut(&job).with_context(|| format!("there is no process {job}"))
    }

    fn transfer(&self, job: JobId, port: u16) -> Result<Answer> {
        let listener = TcpListener::bind(("0.0.0.0", port))
            .with_context(|| format!("cannot listen on TCP port {port}"))?;
        let port = listener.local_addr()?.port();
        let outbox = self.outbox.clone();
        std::thread::spawn(move || {
            let accepted = listener.accept();
            // Whoever is told of the end may listen there at once.
            drop(listener);
            let summary = accepted.and_then(|(stream, _)| crate::peer::serve(stream));
            let received = summary
                .map(|summary| Received { bytes: summary.bytes, sha256: pattern::hex(&summary.sha256) })
                .map_err(|error| error.to_string());
            outbox.event(job, Event::Transferred(received), &[]);
        });
        Ok(Answer::Listening { port })
    }
}
