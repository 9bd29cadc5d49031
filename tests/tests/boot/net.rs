// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The network, through a tap of the host.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::guest::{Guest, LIMIT, MIB};
use crate::names;

/// Ping, and 16 MiB each way with checksums and segmentation left to the device.
#[test]
fn ping_and_a_transfer_both_ways_with_offloads() {
    const BYTES: u64 = 16 * MIB;
    const SEED: u64 = 9000;
    let host = Host::shared();
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    let peer = host.peer(5000).unwrap();
    let mac = "02:00:00:12:ab:cd";
    let ended = Guest::new(&host, "net")
        .word(format!("cvmm.net=192.168.90.2/24,peer=192.168.90.1,port=5000,bytes={BYTES},mac={mac}"))
        .word(format!("cvmm.seed={SEED}"))
        .option(format!("--net=tap={},mac={mac}", tap.name()))
        .run(0, "powered-off");
    ended.passed(names::net());
    let received = peer.received(LIMIT).unwrap();
    let (up, down) = (sha256(SEED, BYTES), sha256(SEED + 1, BYTES));
    assert_eq!((received.bytes, &received.sha256), (BYTES, &up));
    let of = |hash| format!("{BYTES} bytes, sha256 {hash}, ");
    assert!(ended.seen("net-sent").starts_with(&of(up)), "{}", ended.seen("net-sent"));
    assert!(ended.seen("net-received").starts_with(&of(down)), "{}", ended.seen("net-received"));

    ended.report.assert_honest(&[("net0", 2)]);
    let net = ended.report.device("net0");
    for name in ["CSUM", "GUEST_CSUM", "HOST_TSO4", "GUEST_TSO4", "MRG_RXBUF", "MAC"] {
        assert!(net.features.accepted_names.iter().any(|accepted| accepted == name), "{name}: {net:?}");
    }
    assert!(net.dma.read.bytes > BYTES && net.dma.written.bytes > BYTES, "{:?}", net.dma);
}

/// The guest's Linux takes over the MTU of the tap; packets of that size go both ways whole, and so does a transfer.
#[test]
fn the_guest_has_the_mtu_of_the_tap() {
    const BYTES: u64 = 4 * MIB;
    const MTU: u16 = 9000;
    let host = Host::shared();
    let tap = host.tap_with_mtu("cvmm-t0", "192.168.90.1/24", MTU).unwrap();
    let peer = host.peer(5000).unwrap();
    let ended = Guest::new(&host, "net")
        .word(format!("cvmm.net=192.168.90.2/24,peer=192.168.90.1,port=5000,bytes={BYTES},mtu={MTU}"))
        .option(format!("--net=tap={}", tap.name()))
        .run(0, "powered-off");
    let more = ["net-mtu", "net-ping-mtu"].map(str::to_owned);
    ended.passed(names::net().into_iter().chain(more));
    assert_eq!(peer.received(LIMIT).unwrap().bytes, BYTES);
    ended.report.assert_honest(&[("net0", 2)]);
    let accepted = &ended.report.device("net0").features.accepted_names;
    assert!(accepted.iter().any(|name| name == "MTU"), "{accepted:?}");
}

/// The hash of the first bytes of a stream, computed here and not by either end.
fn sha256(seed: u64, bytes: u64) -> String {
    pattern::sha256(&pattern::bytes(seed, usize::try_from(bytes).unwrap()))
}
