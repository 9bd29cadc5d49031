// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel that is told of no pool: its devices' nodes in the device tree name none, so it puts rings and buffers wherever
//! it likes, the one with our patches, too. No device moves a byte.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::disk::Images;
use crate::dtb::{edited, forget_the_pool};
use crate::guest::{Ended, Guest};

#[test]
fn rings_outside_the_pool_are_refused() {
    let host = Host::shared();
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    for patched in [false, true] {
        let guest = |word: &str| {
            let guest = Guest::new(&host, "none").word(word);
            let guest = guest.option(format!("--net=tap={}", tap.name())).option("--rng");
            if patched { guest.patched() } else { guest }
        };
        let ended = edited(&host, guest, forget_the_pool).run(0, "powered-off");
        assert_nothing_moved(&ended, &[("net0", 2), ("rng0", 1)]);
    }
}

/// The same for a disk, seen from outside: the guest is stopped as soon as its disk was refused.
#[test]
fn a_disk_stays_unread() {
    let (host, images) = (Host::shared(), Images::new());
    let image = images.pattern("disk", pattern::SEED, 1 << 20);
    let mut run = {
        let guest = |word: &str| Guest::new(&host, "none").word(word).disk(&image, "disk", "");
        edited(&host, guest, forget_the_pool).start()
    };
    run.wait_for("blk0: stopped until the driver resets it, after a refusal");
    let ended = run.stop(libc::SIGTERM);
    assert_nothing_moved(&ended, &[("blk0", 1)]);
}

/// Each queue of each device was refused because of where its descriptor table is, and no byte was moved.
pub fn assert_nothing_moved(ended: &Ended<'_>, devices: &[(&str, usize)]) {
    let report = &ended.report;
    assert_eq!(report.devices.len(), devices.len());
    for (name, queues) in devices {
        let device = report.device(name);
        for amount in [&device.dma.read, &device.dma.written, &device.dma.rings] {
            assert_eq!((amount.accesses, amount.bytes), (0, 0), "{device:#?}");
        }
        assert!(device.queues.is_empty(), "{device:#?}");
        let refused: Vec<_> = device.refusals.iter().map(|refusal| usize::from(refusal.queue)).collect();
        assert_eq!(refused, (0..*queues).collect::<Vec<_>>(), "{device:#?}");
        assert_eq!(device.refused, device.refusals.iter().map(|refusal| refusal.count).sum::<u64>());
        for refusal in &device.refusals {
            assert_eq!((&*refusal.structure, &*refusal.reason), ("descriptor-table", "outside the pool"));
            assert!(refusal.length >= 16 && refusal.length % 16 == 0, "{refusal:?}");
            let (pool, end) = (report.pool(), refusal.address + refusal.length);
            assert!(end <= pool.start || pool.end <= refusal.address, "{refusal:x?}, pool {pool:x?}");
            assert!(refusal.address > 0 && end <= report.memory.total, "{refusal:x?} is no memory");
        }
    }
}
