// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The network: `cvmm.net=192.168.77.2/24,peer=192.168.77.1,port=5000,bytes=16777216`.
//!
//! The peer answers pings and runs [`peer::serve`] on the port. `mac=TEXT` is the address the device must have, `if=NAME`
//! chooses an interface (else the first with a driver). `mtu=N` is the MTU the interface must have from the start; then
//! packets of that size must go both ways, too. Without `peer` only the interface is looked at, without `port`
//! there is no transfer.

mod interface;
mod ping;
mod reach;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::machine;
use super::options::{self, Options};
use super::report::Report;
use crate::pattern;
use crate::peer::{self, Plan};
use interface::Interface;

/// Generous: on an emulated host a second of ours may be a tenth of one.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(options: &Options, report: &Report) {
    let mut found = None;
    report.check("net-interface", || {
        let interface = find(options)?;
        let mac = machine::text(format!("/sys/class/net/{}/address", interface.name()))?;
        if let Some(wanted) = options.part("net", "mac") {
            ensure!(mac.eq_ignore_ascii_case(wanted), "address {mac}, but it should be {wanted}");
        }
        let seen = format!("{}, address {mac}", interface.name());
        found = Some(interface);
        Ok(seen)
    });
    let Some(interface) = found else { return };
    report.check("net-offloads", || offloads(&interface));
    let mtu = options.part("net", "mtu");
    if let Some(mtu) = mtu {
        report.check("net-mtu", || {
            let seen = machine::number(format!("/sys/class/net/{}/mtu", interface.name()))?;
            ensure!(seen == options::number(mtu)?, "MTU {seen}, but it should be {mtu}");
            Ok(format!("{seen} bytes"))
        });
    }
    let Some(own) = options.list("net").into_iter().find(|part| part.contains('/')) else { return };
    if !report.check("net-up", || {
        up(&interface, address(own)?)?;
        Ok(format!("{} is {own}", interface.name()))
    }) {
        return;
    }
    let Some(peer) = options.part("net", "peer") else { return };
    report.check("net-ping", || ping::run(peer.parse().context("peer")?, ping::PATIENCE));
    if let Some(mtu) = mtu {
        report.check("net-ping-mtu", || {
            ping::run_whole(peer.parse().context("peer")?, usize::try_from(options::number(mtu)?)?)
        });
    }
    if let Some(port) = options.part("net", "port") {
        transfer(&interface, peer, port, options, report);
    }
}

fn find(options: &Options) -> Result<Interface> {
    let name = match options.part("net", "if") {
        Some(name) => name.to_owned(),
        None => machine::names("/sys/class/net")
            .into_iter()
            .find(|name| std::fs::exists(format!("/sys/class/net/{name}/device")).unwrap_or(false))
            .context("no network interface with a driver")?,
    };
    Interface::new(&name)
}

fn offloads(interface: &Interface) -> Result<String> {
    let (checksum, segmentation) = (interface.transmit_checksum()?, interface.segmentation()?);
    let receive = interface.receive_checksum()?;
    ensure!(checksum, "transmit checksums are off");
    ensure!(segmentation, "TCP segmentation offload is off");
    ensure!(receive, "receive checksums are off");
    Ok("transmit and receive checksums, TCP segmentation".into())
}

fn address(own: &str) -> Result<(Ipv4Addr, u32)> {
    let (address, bits) = own.split_once('/').context("ADDRESS/BITS")?;
    let address = address.parse().with_context(|| format!("'{address}' is no address"))?;
    let bits =
        bits.parse().ok().filter(|bits| *bits <= 32).with_context(|| format!("'/{bits}' is no mask"))?;
    Ok((address, bits))
}

/// `cvmm.reach-net=mmio,pci`: what comes of a network device on each.
pub(super) fn run_reach(options: &Options, report: &Report) {
    for transport in options.list("reach-net") {
        report.check(&format!("reach-net-{transport}"), || reach::reach(transport));
    }
}

/// Brings the first interface up, with this address and mask.
pub(super) fn bring_up(options: &Options, own: (Ipv4Addr, u32)) -> Result<()> {
    up(&find(options)?, own)
}

fn up(interface: &Interface, (address, bits): (Ipv4Addr, u32)) -> Result<()> {
    interface.set_address(address, bits)?;
    interface.set_up()
}

fn transfer(interface: &Interface, peer: &str, port: &str, options: &Options, report: &Report) {
    let mut done = None;
    report.check("net-transfer", || {
        let address = SocketAddrV4::new(peer.parse().context("peer")?, port.parse().context("port")?);
        let bytes = options.part("net", "bytes").map_or(Ok(16 << 20), options::number)?;
        let seed = options.number("seed")?.unwrap_or(pattern::SEED);
        let plan = Plan { seed_up: seed, bytes_up: bytes, seed_down: seed + 1, bytes_down: bytes };
        let packets = || anyhow::Ok([interface.packets("tx")?, interface.packets("rx")?]);
        let before = packets()?;
        let mut turned = None;
        let stream = connect(address.into())?;
        let transfer = peer::transfer(stream, &plan, || turned = Some(packets())).context("transfer")?;
        let turned = turned.context("it ended before it turned")??;
        done = Some((transfer, [before, turned, packets()?]));
        Ok(format!("{bytes} bytes up and {bytes} down"))
    });
    let Some((transfer, [before, turned, after])) = done else { return };
    report.check("net-sent", || {
        ensure!(
            transfer.sent == transfer.peer_received,
            "sent {}, but the peer got {}",
            show(&transfer.sent),
            show(&transfer.peer_received)
        );
        Ok(format!("{}, {}", show(&transfer.sent), speed(transfer.sent.bytes, transfer.time_up)))
    });
    report.check("net-received", || {
        ensure!(
            transfer.received == transfer.expected,
            "got {}, but the peer sent {}",
            show(&transfer.received),
            show(&transfer.expected)
        );
        Ok(format!("{}, {}", show(&transfer.received), speed(transfer.received.bytes, transfer.time_down)))
    });
    // Each way while it carries the data: the acknowledgements of the other way are small.
    for (name, before, after) in
        [("net-large-sent", before[0], turned[0]), ("net-large-received", turned[1], after[1])]
    {
        report.check(name, || {
            let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
            let average = bytes.checked_div(packets).context("there was no packet")?;
            let seen = format!("{packets} packets of {average} bytes on average");
            ensure!(average > 1514, "{seen}: each was segmented in software");
            Ok(format!("{seen}: larger than on a wire"))
        });
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|error| anyhow!("connect to {address}: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn show(summary: &peer::Summary) -> String {
    format!("{} bytes, sha256 {}", summary.bytes, pattern::hex(&summary.sha256))
}

fn speed(bytes: u64, time: Duration) -> String {
    let per_second = u128::from(bytes) * 1000 / time.as_millis().max(1);
    format!("{} KiB/s", per_second / 1024)
}
