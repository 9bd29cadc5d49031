// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several queues of one device: two CPUs use two of them.

use cvmm_tests::host::Host;

use crate::disk::Images;
use crate::guest::{Guest, LIMIT, MIB};
use crate::names;

const BYTES: u64 = 4 * MIB;

#[test]
fn two_cpus_use_two_queues() {
    let (host, images) = (Host::shared(), Images::new());
    let raw = images.empty("raw", 16 * MIB);
    let tap = host.multi_queue_tap("cvmm-t0", "192.168.90.1/24").unwrap();
    let peer = host.peer(5000).unwrap();
    let ended = Guest::new(&host, "cpus,pool,blk,net,queues,pci,msix")
        .patched()
        .cpus(2)
        .word("cvmm.cpus=2 cvmm.blk=vda:raw cvmm.queues=2")
        .word(format!("cvmm.net=192.168.90.2/24,peer=192.168.90.1,port=5000,bytes={BYTES}"))
        .disk(&raw, "raw", ",transport=pci,queues=2")
        .option(format!("--net=tap={},transport=pci,queues=2", tap.name()))
        .run(0, "powered-off");
    let own = [names::cpus(), names::pool(), names::blk(&["vda:raw"]), names::net(), names::pci()].concat();
    let more = ["queues-vda", "queues-eth0", "msix-vectors"].map(str::to_owned);
    ended.passed(own.into_iter().chain(more));
    assert_eq!(peer.received(LIMIT).unwrap().bytes, BYTES);
    // Two pairs and the control queue.
    ended.report.assert_honest(&[("blk0", 2), ("net0", 5)]);
    for (device, feature) in [("blk0", "MQ"), ("net0", "MQ"), ("net0", "CTRL_VQ")] {
        let names = &ended.report.device(device).features.accepted_names;
        assert!(names.iter().any(|name| name == feature), "{device}: {names:?}");
    }
}
