// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lab's end of the channel to an agent.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::protocol::{self, Answer, Event, Greeting, JobId, Message, Request};

/// How long the agent may take to answer one request.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

type AnswerSender = Sender<(Result<Answer, String>, Vec<u8>)>;
type EventSender = Sender<(Event, Vec<u8>)>;

/// Sends requests and hands each answer and event to whoever waits for it.
#[derive(Debug)]
pub struct Client {
    sending: Mutex<Sending>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug)]
struct Sending {
    to: UnixStream,
    next_job: JobId,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The agent answers in the order of the requests.
    answers: VecDeque<AnswerSender>,
    events: HashMap<JobId, EventSender>,
    closed: bool,
}

impl Client {
    /// Waits at most `limit` for the agent's greeting.
    pub fn connect(channel: UnixStream, limit: Duration) -> Result<(Self, Greeting)> {
        let from = channel.try_clone()?;
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (greeted, greeting) = mpsc::channel();
        let shared = waiting.clone();
        std::thread::spawn(move || receive_all(from, &greeted, &shared));
        let greeting = greeting.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("the agent did not answer within {} s", limit.as_secs()),
            RecvTimeoutError::Disconnected => anyhow!("the KVM host ended before its agent answered"),
        })?;
        Ok((Self { sending: Mutex::new(Sending { to: channel, next_job: 1 }), waiting }, greeting))
    }

    /// Sends a request with its bytes, and waits for the answer with its bytes.
    pub fn request(&self, request: &Request, bytes: &[u8]) -> Result<(Answer, Vec<u8>)> {
        let (sender, receiver) = mpsc::channel();
        {
            // Held over both steps: the answers come in the order of the sending.
            let mut sending = lock(&self.sending);
            let mut waiting = lock(&self.waiting);
            if waiting.closed {
                bail!("the KVM host has ended");
            }
            waiting.answers.push_back(sender);
            drop(waiting);
            protocol::send(&mut sending.to, request, bytes).context("the KVM host has ended")?;
        }
        match receiver.recv_timeout(ANSWER_LIMIT) {
            Ok((answer, bytes)) => Ok((answer.map_err(|error| anyhow!(error))?, bytes)),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the agent did not answer within {} s", ANSWER_LIMIT.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the KVM host has ended"),
        }
    }

    /// Sends a request that has no interesting answer.
    pub fn order(&self, request: &Request, bytes: &[u8]) -> Result<()> {
        self.request(request, bytes).map(drop)
    }

    /// A new job, and where its events arrive.
    pub fn new_job(&self) -> (JobId, Receiver<(Event, Vec<u8>)>) {
        let mut sending = lock(&self.sending);
        let job = sending.next_job;
        sending.next_job += 1;
        let (sender, receiver) = mpsc::channel();
        let mut waiting = lock(&self.waiting);
        // Without a sender the receiver reports at once that the host has ended.
        if !waiting.closed {
            waiting.events.insert(job, sender);
        }
        (job, receiver)
    }

    /// Closes the channel: the agent then ends.
    pub fn close(&self) {
        // It fails only where the other side was faster.
        let _ = lock(&self.sending).to.shutdown(std::net::Shutdown::Both);
    }
}

fn receive_all(mut from: UnixStream, greeted: &Sender<Greeting>, waiting: &Mutex<Waiting>) {
    while let Ok(Some((message, bytes))) = protocol::receive(&mut from) {
        let mut waiting = lock(waiting);
        // Whoever stopped waiting for an answer or event does not want it any more.
        match message {
            Message::Ready(greeting) => drop(greeted.send(greeting)),
            Message::Answer(answer) => {
                if let Some(sender) = waiting.answers.pop_front() {
                    let _ = sender.send((answer, bytes));
                }
            }
            Message::Event { job, event } => {
                let last = !matches!(event, Event::Output { .. });
                if let Some(sender) = waiting.events.get(&job) {
                    let _ = sender.send((event, bytes));
                }
                if last {
                    waiting.events.remove(&job);
                }
            }
        }
    }
    // Dropping the senders wakes everybody who waits.
    *lock(waiting) = Waiting { closed: true, ..Waiting::default() };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
