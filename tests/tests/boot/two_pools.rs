// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several pools: each device stays in its own. And one that is too small for what is asked of it.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::disk::Images;
use crate::guest::{Ended, Guest, LIMIT, MIB};
use crate::names;

/// A stock kernel, by explicit references, virtio-mmio.
#[test]
fn two_pools_by_reference() {
    let host = Host::shared();
    let ended = two_disks(Guest::new(&host, "blk,pool"), "").run(0, "powered-off");
    assert_pools(&ended, [false, false]);
}

/// The plan: one disk names its pool, the other uses the default one.
#[test]
fn the_catch_all_and_another_by_device_tree() {
    catch_all("dt");
}

#[test]
fn the_catch_all_and_another_by_acpi() {
    catch_all("acpi");
}

fn catch_all(firmware: &str) {
    let host = Host::shared();
    let guest = Guest::new(&host, "blk,pool").patched().firmware(firmware).option("--spec=plan");
    let ended = two_disks(guest, ",transport=pci").run(0, "powered-off");
    assert_pools(&ended, [true, false]);
    for device in &ended.report.devices {
        assert!(device.features.accepted_names.iter().any(|name| name == "RESTRICTED_DMA"), "{device:#?}");
    }
}

fn two_disks<'h>(guest: Guest<'h>, rest: &str) -> Guest<'h> {
    let images = Images::new();
    let image = images.pattern("disk", pattern::SEED, 1 << 20);
    guest
        .more_pool("disk", 4 * MIB, None)
        .word("cvmm.blk=vda:ro,vdb:ro")
        .disk(&image, "disk0", &format!(",ro,pool=disk{rest}"))
        .disk(&image, "disk1", &format!(",ro{rest}"))
}

fn assert_pools(ended: &Ended<'_>, dma_default: [bool; 2]) {
    ended.passed(names::blk(&["vda:ro", "vdb:ro"]).into_iter().chain(names::pool()));
    let report = &ended.report;
    let pools: Vec<_> = report.memory.pools.iter().map(|pool| (&*pool.name, pool.dma_default)).collect();
    assert_eq!(pools, [("pool", dma_default[0]), ("disk", dma_default[1])]);
    assert_eq!(["blk0", "blk1"].map(|name| &*report.device(name).pool), ["disk", "pool"]);
    // Each ring in the device's own pool.
    report.assert_honest(&[("blk0", 1), ("blk1", 1)]);
}

/// Three disks with 4 MiB of requests each want six times the pool: Linux makes them wait, all data is right, and nothing
/// is refused; the network that they share it with works afterwards. That the pool is small for them, with the queues that they
/// have, is told.
#[test]
fn a_pool_that_is_too_small_slows_its_devices_down() {
    let (host, images) = (Host::shared(), Images::new());
    let raw = images.empty("raw", 16 * MIB);
    let disks = ["vda:raw", "vdb:raw", "vdc:raw"];
    let guest =
        Guest::new(&host, "blk,full,net").pool(2 * MIB, None).word(format!("cvmm.blk={}", disks.join(",")));
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    let peer = host.peer(5000).unwrap();
    let guest = guest
        .word(format!("cvmm.net=192.168.90.2/24,peer=192.168.90.1,port=5000,bytes={}", MIB))
        .option(format!("--net=tap={}", tap.name()));
    let guest = (0..3).fold(guest, |guest, index| guest.disk(&raw, &format!("disk{index}"), ",queues=4"));
    let ended = guest.run(0, "powered-off");
    let own = [names::blk(&disks), names::net()].concat();
    ended.passed(own.into_iter().chain(["pool-was-full".to_owned()]));
    assert_eq!(peer.received(LIMIT).unwrap().bytes, MIB);
    ended.report.assert_honest(&[("blk0", 1), ("blk1", 1), ("blk2", 1), ("net0", 2)]);
    let [warning] = &ended.report.warnings[..] else { panic!("{:?}", ended.report.warnings) };
    let expected = "pool 'pool' may be too small: it has 2M, and its devices may need 4M at once ";
    assert!(warning.starts_with(expected), "{warning}");
}
