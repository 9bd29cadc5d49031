// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where Linux fails open, and what our patches make of it: a pool that it does not understand, or the wrong one. The
//! stock kernel goes on with other memory, and cvmm refuses it; the patched one does not drive the device at all.
//!
//! The other ways are elsewhere: a pool that is rejected (`grid`, stock with `plan`), no pool in ACPI (`grid`, stock with
//! ACPI), no reference (`unaware`), ACCESS_PLATFORM not accepted (`hostile`). Not tested: a pool on x86 that no boot loader
//! reserved, in which a stock kernel clears memory that it uses; what then happens to it is luck. cvmm reserves its pools
//! (SETUP_INDIRECT), and our patches refuse one that isn't.

use cvmm_tests::host::Host;
use cvmm_tests::{pattern, reach};

use crate::disk::Images;
use crate::dtb::{bind_elsewhere, edited, unknown_pools};
use crate::guest::{Ended, Guest, MIB};

/// Phandles of the first two pools.
const FIRST: u32 = 16;
const SECOND: u32 = 17;

#[test]
fn a_pool_of_an_unknown_kind() {
    let host = Host::shared();
    let stock = unknown(&host, false);
    let disk = stock.report.device("blk0");
    let first = disk.refusals.first().unwrap_or_else(|| panic!("{disk:#?}"));
    assert_eq!((&*first.structure, &*first.reason), ("descriptor-table", "outside the pool"));
    assert_nothing_moved(&stock);

    let patched = unknown(&host, true);
    assert_not_driven(&patched);
}

/// The description binds the device to one pool, and the device reaches another: that is what the reference by the device
/// itself is for (four-step plan, 4).
#[test]
fn the_wrong_pool() {
    let host = Host::shared();
    let stock = wrong(&host, false);
    let disk = stock.report.device("blk0");
    let first = disk.refusals.first().unwrap_or_else(|| panic!("{disk:#?}"));
    let other = stock.report.memory.pools.iter().find(|pool| pool.name != disk.pool).unwrap();
    assert!(
        (other.base..other.base + other.size).contains(&first.address),
        "{first:x?} is not in {other:x?}"
    );
    assert_nothing_moved(&stock);

    let patched = wrong(&host, true);
    assert_not_driven(&patched);
}

fn unknown(host: &Host, patched: bool) -> Ended<'_> {
    run(host, patched, &|guest| guest, unknown_pools)
}

fn wrong(host: &Host, patched: bool) -> Ended<'_> {
    // Explicit references, which a stock kernel understands.
    run(host, patched, &|guest| guest.more_pool("other", 2 * MIB), |blob| bind_elsewhere(blob, FIRST, SECOND))
}

fn run<'h>(
    host: &'h Host,
    patched: bool,
    more: &dyn Fn(Guest<'h>) -> Guest<'h>,
    edit: impl Fn(&mut [u8]),
) -> Ended<'h> {
    let images = Images::new();
    let image = images.pattern("disk", pattern::SEED, reach::PATTERN);
    let guest = |word: &str| {
        let guest = Guest::new(host, "reach").word(word).word("cvmm.reach=mmio");
        let guest = guest.option("--spec=plan").option("--unaware=allow").disk(&image, "disk", ",pool=pool");
        let guest = more(guest);
        if patched { guest.patched() } else { guest }
    };
    edited(host, guest, edit).run(0, "powered-off")
}

fn assert_nothing_moved(ended: &Ended<'_>) {
    let disk = ended.report.device("blk0");
    let moved = disk.dma.read.bytes + disk.dma.written.bytes + disk.dma.rings.bytes;
    assert_eq!((moved, disk.queues.len()), (0, 0), "{disk:#?}");
    let seen = ended.seen("reach-mmio");
    ended.ensure(seen != "works", || format!("the guest saw '{seen}'"));
}

/// No address was ever written, so none had to be refused.
fn assert_not_driven(ended: &Ended<'_>) {
    assert_nothing_moved(ended);
    assert_eq!(ended.report.device("blk0").refused, 0, "{:#?}", ended.report);
    assert_eq!(ended.seen("reach-mmio"), "no disk");
}
