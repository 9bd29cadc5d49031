// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory, CPUs, entropy.

use cvmm_tests::host::{Host, Kind};
use cvmm_tests::pattern;

use crate::disk::Images;
use crate::guest::{GIB, Guest, MIB};
use crate::names;

#[test]
fn rng_gives_bytes() {
    let host = Host::shared();
    let ended = Guest::new(&host, "rng").option("--rng").run(0, "powered-off");
    ended.passed(names::rng());
    ended.report.assert_honest(&[("rng0", 1)]);
    let dma = &ended.report.device("rng0").dma;
    // Two reads of 64 bytes. The device has nothing to read but rings.
    assert!(dma.written.bytes >= 128, "{dma:?}");
    assert_eq!((dma.read.accesses, dma.read.bytes), (0, 0));
}

#[test]
fn two_cpus_come_up() {
    let host = Host::shared();
    let ended =
        Guest::new(&host, "cpus,pool").cpus(2).word("cvmm.cpus=2").option("--rng").run(0, "powered-off");
    ended.passed(names::cpus().into_iter().chain(names::pool()));
    assert_eq!(ended.seen("cpus-online"), "2");
    ended.report.assert_honest(&[("rng0", 1)]);
}

/// One package, with a core for each CPU; more than the host has, and not a power of two.
#[test]
fn cpus_are_the_cores_of_one_package() {
    let host = Host::shared();
    for cpus in [1, 3, 8] {
        let online = format!("cvmm.cpus={cpus}");
        let ended = Guest::new(&host, "cpus").cpus(cpus).word(online).option("--rng").run(0, "powered-off");
        ended.passed(names::cpus());
        let caches = ended.seen("cpus-caches");
        match host.kind() {
            // The host's KVM (Linux 6.1) does not report the first level, and then Linux shows no cache.
            Kind::Emulated => assert_eq!(caches, "the kernel shows none"),
            Kind::Kvm => assert!(caches.starts_with("L1 of a core"), "{caches}"),
        }
    }
}

/// Memory on both sides of the hole below 4 GiB, the pool below.
#[test]
fn a_guest_of_5_gib_has_memory_above_4_gib() {
    let ended_pool = large_guest(5 * GIB, None);
    assert!(ended_pool < 4 * GIB, "{ended_pool:#x}");
}

/// A device reaches a pool above 4 GiB as well as one below.
#[test]
fn a_pool_may_lie_above_4_gib() {
    let base = 4 * GIB + 64 * MIB;
    assert_eq!(large_guest(4 * GIB, Some(base)), base);
}

/// Boots a guest with that much memory and a disk, and returns where its pool was.
fn large_guest(mem: u64, base: Option<u64>) -> u64 {
    let (host, images) = (Host::shared(), Images::new());
    let ended = Guest::new(&host, "mem,pool,blk")
        .mem(mem)
        .pool(8 * MIB, base)
        .word(format!("cvmm.mem={mem}"))
        .word("cvmm.blk=vda:ro")
        .disk(&images.pattern("disk", pattern::SEED, 1 << 20), "disk", ",ro")
        .run(0, "powered-off");
    let blk = names::blk(&["vda:ro"]);
    ended.passed([names::mem(), names::pool(), blk].concat());
    ended.report.assert_honest(&[("blk0", 1)]);
    ended.report.pool().start
}
