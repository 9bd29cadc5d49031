// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a lab borrows from a KVM host and gives back when it drops it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::client::Client;
use super::protocol::{Answer, Event, Received, Request};

/// A folder on the host.
#[derive(Debug)]
pub struct Folder {
    client: Arc<Client>,
    path: PathBuf,
}

impl Folder {
    pub(super) fn make(client: Arc<Client>, path: PathBuf) -> Result<Self> {
        client.order(&Request::MakeFolder { path: path.clone() }, &[])?;
        Ok(Self { client, path })
    }

    /// Its path on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, as text for a command line.
    pub fn file(&self, name: &str) -> String {
        self.path.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The host may have ended, and its files with it.
        let _ = self.client.order(&Request::Remove { path: self.path.clone() }, &[]);
    }
}

/// A tap interface on the host.
#[derive(Debug)]
pub struct Tap {
    client: Arc<Client>,
    name: String,
}

impl Tap {
    pub(super) fn make(
        client: Arc<Client>,
        name: &str,
        address: Option<&str>,
        multi_queue: bool,
        mtu: Option<u16>,
    ) -> Result<Self> {
        let address = address.map(str::to_owned);
        let request = Request::MakeTap { name: name.to_owned(), address, multi_queue, mtu };
        client.order(&request, &[])?;
        Ok(Self { client, name: name.to_owned() })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // The host may have ended, and its interfaces with it.
        let _ = self.client.order(&Request::RemoveTap { name: self.name.clone() }, &[]);
    }
}

/// The host's end of one TCP transfer (see [`crate::peer`]).
#[derive(Debug)]
pub struct Peer {
    port: u16,
    events: Receiver<(Event, Vec<u8>)>,
}

impl Peer {
    pub(super) fn listen(client: Arc<Client>, port: u16) -> Result<Self> {
        let (job, events) = client.new_job();
        match client.request(&Request::Transfer { job, port }, &[])? {
            (Answer::Listening { port }, _) => Ok(Self { port, events }),
            (other, _) => bail!("the agent answered {other:?} to a transfer"),
        }
    }

    /// The TCP port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the transfer's end: what came from the guest.
    pub fn received(&self, limit: Duration) -> Result<Received> {
        match self.events.recv_timeout(limit) {
            Ok((Event::Transferred(result), _)) => {
                result.map_err(|error| anyhow!("the host's end of the transfer failed: {error}"))
            }
            Ok((other, _)) => bail!("a transfer reported {other:?}"),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the guest did not finish a transfer within {} s", limit.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the KVM host has ended"),
        }
    }
}
