// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pool, as the guest's kernel sees it and as the report tells.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::disk::Images;
use crate::guest::{Guest, MIB};
use crate::names;
use crate::report::Report;

#[test]
fn the_kernel_makes_our_pool_and_gives_it_to_each_device() {
    let (base, size) = (64 * MIB, 8 * MIB);
    let (host, images) = (Host::shared(), Images::new());
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    let ended = Guest::new(&host, "pool")
        .pool(size, Some(base))
        .word(format!("cvmm.pool={base:#x},{size}"))
        .disk(&images.pattern("disk", pattern::SEED, 1 << 20), "disk", ",ro")
        .option(format!("--net=tap={}", tap.name()))
        .option("--rng")
        .run(0, "powered-off");
    ended.passed(names::pool());
    // What the kernel's own words are, once in full; guest-init compares the numbers.
    assert!(
        ended.seen("pool-created").ends_with("created restricted DMA pool at 0x0000000004000000, size 8 MiB")
    );
    let node = format!("restricted-dma-pool@{base:x}");
    let assigned = ended.seen("pool-assigned");
    for device in &ended.report.devices {
        let address = format!("{:x}", device.window.base());
        let device_and_node = assigned.split(", ").find(|text| text.contains(&address));
        ended.ensure(device_and_node.is_some_and(|text| text.contains(&node)), || {
            format!("{address} has another pool than {node}: {assigned}")
        });
    }
    ended.report.assert_honest(&[("blk0", 1), ("net0", 2), ("rng0", 1)]);
}

/// Two runs of the same guest do the same: same places, same bytes. A disk that is only read, one CPU, and no other device: the
/// kernel asks an entropy device again and again, and how often before it finds the disk depends on time.
#[test]
fn two_runs_have_the_same_numbers() {
    let (host, images) = (Host::shared(), Images::new());
    let image = images.pattern("disk", pattern::SEED, 2 << 20);
    let run = || {
        let ended = Guest::new(&host, "blk")
            .word("cvmm.blk=vda:ro")
            .disk(&image, "disk", ",ro")
            .run(0, "powered-off");
        ended.passed(names::blk(&["vda:ro"]));
        ended.report.assert_honest(&[("blk0", 1)]);
        ended.report
    };
    let (first, second) = (run(), run());
    assert_eq!(first.pool(), second.pool());
    for (first, second) in first.devices.iter().zip(&second.devices) {
        assert_eq!((&first.name, &first.window, first.gsi), (&second.name, &second.window, second.gsi));
        assert_eq!(first.features, second.features);
        assert_eq!(first.queues, second.queues);
    }
    // Into how many requests the guest's kernel cuts its reads depends on time; what it reads does not.
    let data = |report: &Report| {
        let dma = &report.device("blk0").dma;
        // It wrote nothing: what the device read are headers of requests, 16 bytes each.
        let requests = dma.read.accesses;
        assert_eq!(dma.read.bytes, 16 * requests, "{dma:?}");
        // Each request has a status byte.
        dma.written.bytes - requests
    };
    assert_eq!(data(&first), data(&second));
    // The guest read the first MiB and the last 8 KiB around its page cache.
    assert!(data(&first) >= MIB + 8192, "{:?}", first.device("blk0").dma);
}
