// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which network devices can be used at all, by their transport. Nothing fails here: what it comes to is for the host to
//! judge.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::interface::Interface;
use super::{ping, up};
use crate::guest::machine;
use crate::reach::network;

/// A working device answers in milliseconds, under emulation too; one that needs a reset never does.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bringing up an interface may wait for its device.
const LIMIT: Duration = Duration::from_secs(30);

/// What came of the network device on `transport` (`mmio` or `pci`).
pub(super) fn reach(transport: &str) -> Result<String> {
    let Some(name) = interface_on(transport) else { return Ok("no interface".into()) };
    let (host, guest, bits) = network(transport);
    let (send, result) = mpsc::channel();
    thread::spawn(move || {
        let answered = Interface::new(&name)
            .and_then(|interface| up(&interface, (guest.into(), bits)))
            .and_then(|()| ping::run(host.into(), PATIENCE));
        send.send(answered.map(drop))
    });
    Ok(match result.recv_timeout(LIMIT) {
        Ok(Ok(())) => "works".into(),
        Ok(Err(error)) => format!("no answer: {error:#}"),
        Err(_) => "no answer".into(),
    })
}

/// The interface whose device is on the PCI bus, or is not.
fn interface_on(transport: &str) -> Option<String> {
    machine::names("/sys/class/net").into_iter().find(|name| {
        let Ok(place) = fs::canonicalize(format!("/sys/class/net/{name}/device")) else { return false };
        place.to_string_lossy().contains("/pci0000:00/") == (transport == "pci")
    })
}
