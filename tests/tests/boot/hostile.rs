// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver that breaks the rules, in ways that no kernel of ours would. The guest sees that nothing moves, that the device
//! says so, and that a reset brings it back; the report has each refusal.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::disk::{self, Images};
use crate::guest::{Guest, MIB};
use crate::names;
use crate::report::Device;

/// What the report says of [`names::QUEUES`], one after the other.
const QUEUE_REFUSALS: [(&str, &str); names::QUEUES.len()] = [
    ("descriptor-table", "outside the pool"),
    ("available-ring", "outside the pool"),
    ("used-ring", "outside the pool"),
    ("descriptor-table", "crosses the end of the pool"),
    ("descriptor-table", "crosses the start of the pool"),
    ("available-ring", "crosses the end of the pool"),
    ("used-ring", "crosses the end of the pool"),
    ("descriptor-table", "wraps around the address space"),
    ("used-ring", "wraps around the address space"),
    ("descriptor-table", "misaligned"),
    ("descriptor-table", SIZE),
    ("descriptor-table", SIZE),
    ("descriptor-table", SIZE),
];
const SIZE: &str = "the queue size is not a power of two, or larger than offered";

#[test]
fn a_hostile_driver_gets_nothing_and_the_machine_goes_on() {
    let (host, images) = (Host::shared(), Images::new());
    let read_only = images.pattern("ro", pattern::SEED, 1 << 20);
    let other = images.ext4("rw", 32 * MIB);
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    let peer = host.peer(5000).unwrap();
    let ended = Guest::new(&host, "hostile,blk,net,rng,pool")
        .word("cvmm.hostile=vda,net,rng")
        .word("cvmm.blk=vda:ro,vdb:rw")
        .word(format!("cvmm.net=192.168.90.2/24,peer=192.168.90.1,port=5000,bytes={MIB}"))
        .disk(&read_only, "ro", ",ro")
        .disk(&other, "rw", "")
        .option(format!("--net=tap={}", tap.name()))
        .option("--rng")
        .run(0, "powered-off");
    let hostile = names::hostile(&["vda", "net", "rng"]);
    let after = [names::blk(&["vda:ro", "vdb:rw"]), names::net(), names::rng(), names::pool()].concat();
    ended.passed(hostile.into_iter().chain(after));

    // The drivers that came back have their queues where they belong, and the devices served them.
    let report = &ended.report;
    report.assert_rings(&[("blk0", 1), ("blk1", 1), ("net0", 2), ("rng0", 1)]);
    let received = peer.received(crate::guest::LIMIT).unwrap();
    assert_eq!(received.sha256, pattern::sha256(&pattern::bytes(pattern::SEED, 1 << 20)));
    ended.get("rw", &other);
    disk::assert_guest_files(&other, pattern::SEED);
    assert!(std::fs::read(&read_only).unwrap() == pattern::bytes(pattern::SEED, 1 << 20));

    // Each wrong queue, each wrong request, and one more before the device was asked again without a reset.
    let queues = names::QUEUES.len() as u64;
    assert_eq!(report.device("blk0").refused, queues + names::REQUESTS.len() as u64 + 1);
    assert_eq!(report.device("blk1").refused, 0);
    for (name, queue) in [("net0", 1), ("rng0", 0)] {
        let device = report.device(name);
        assert_eq!(device.refused, queues + names::BUFFERS.len() as u64, "{device:#?}");
        assert_buffers(device, queue, report.pool().end);
    }
    for name in ["blk0", "net0", "rng0"] {
        let refusals = &report.device(name).refusals;
        let kinds: Vec<_> = refusals.iter().map(|refusal| (&*refusal.structure, &*refusal.reason)).collect();
        assert_eq!(kinds[..QUEUE_REFUSALS.len()], QUEUE_REFUSALS, "{refusals:#x?}");
    }
}

/// The record of wrong buffers: as far as there is room for it after the queues.
fn assert_buffers(device: &Device, queue: u16, pool_end: u64) {
    let refusals = &device.refusals[QUEUE_REFUSALS.len()..];
    let reasons: Vec<_> = refusals.iter().map(|refusal| &*refusal.reason).collect();
    assert_eq!(
        reasons[..3],
        ["outside the pool", "crosses the end of the pool", "wraps around the address space"]
    );
    assert!(refusals.iter().all(|refusal| refusal.queue == queue && refusal.structure.ends_with("-buffer")));
    assert_eq!(refusals[1].address, pool_end - 32);
    assert_eq!(refusals[2].address, u64::MAX - 31);
}
