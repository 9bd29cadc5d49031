// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where Linux fails open, and what our patches make of it: a pool that it does not understand, or the wrong one. The
//! stock kernel goes on with other memory, and cvmm refuses it; the patched one does not drive the device at all.
//!
//! The other ways are elsewhere: a pool that is rejected (`grid`, stock with `plan`), no pool in ACPI (`grid`, stock with
//! ACPI), no reference (`unaware`), ACCESS_PLATFORM not accepted (`hostile`).

use std::ops::Range;

use cvmm_tests::host::Host;
use cvmm_tests::{pattern, reach};

use crate::disk::Images;
use crate::dtb::{bind_elsewhere, edited, move_pool, unknown_pools};
use crate::guest::{Ended, Guest, MIB};
use crate::report::Device;

const PLAN: [&str; 2] = ["--spec=plan", "--unaware=allow"];

/// Phandles of the first two pools.
const FIRST: u32 = 16;
const SECOND: u32 = 17;

/// Where a pool is, and where the description says that it is.
const RESERVED: u64 = 64 * MIB;
const UNRESERVED: u64 = 80 * MIB;
const SIZE: u64 = 8 * MIB;

#[test]
fn a_pool_of_an_unknown_kind() {
    let host = Host::shared();
    let stock = unknown(&host, false);
    assert_refused_in(stock.report.device("blk0"), 0..stock.report.memory.total);
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
    let other = stock.report.memory.pools.iter().find(|pool| pool.name != disk.pool).unwrap();
    assert_refused_in(disk, other.base..other.base + other.size);
    assert_nothing_moved(&stock);

    let patched = wrong(&host, true);
    assert_not_driven(&patched);
}

/// The pool is memory that nothing reserves, as on x86 without SETUP_INDIRECT. A stock kernel clears it, in use or not, and
/// gives its devices what it goes on to use otherwise. (Here it is where, so early, nothing is in use: elsewhere such a kernel
/// was seen to die of it.)
#[test]
fn a_pool_that_nothing_reserves() {
    let host = Host::shared();
    let stock = unreserved(&host, false);
    assert_refused_in(stock.report.device("blk0"), UNRESERVED..UNRESERVED + SIZE);
    assert_nothing_moved(&stock);

    let patched = unreserved(&host, true);
    assert_not_driven(&patched);
}

fn unknown(host: &Host, patched: bool) -> Ended<'_> {
    run(host, patched, &|guest| with(guest, &PLAN), unknown_pools)
}

fn wrong(host: &Host, patched: bool) -> Ended<'_> {
    // Explicit references, which a stock kernel understands.
    run(host, patched, &|guest| with(guest, &PLAN).more_pool("other", 2 * MIB), |blob| {
        bind_elsewhere(blob, FIRST, SECOND);
    })
}

fn unreserved(host: &Host, patched: bool) -> Ended<'_> {
    // Without the plan's text: with it, a stock kernel looks at no pool that has linux,dma-default.
    // The kernel itself is at the beginning, and what it takes first.
    run(host, patched, &|guest| guest.pool(SIZE, Some(RESERVED)).word("nokaslr"), |blob| {
        move_pool(blob, SIZE, RESERVED, UNRESERVED);
    })
}

fn with<'h>(guest: Guest<'h>, options: &[&str]) -> Guest<'h> {
    options.iter().fold(guest, |guest, option| guest.option(*option))
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
        let guest = more(guest.disk(&image, "disk", ",pool=pool"));
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

/// The device refused to take its queue from these guest-physical addresses.
fn assert_refused_in(device: &Device, range: Range<u64>) {
    let first = device.refusals.first().unwrap_or_else(|| panic!("{device:#?}"));
    assert_eq!((&*first.structure, &*first.reason), ("descriptor-table", "outside the pool"));
    assert!(range.contains(&first.address), "{first:x?} is not in {range:x?}");
}

/// No address was ever written, so none had to be refused.
fn assert_not_driven(ended: &Ended<'_>) {
    assert_nothing_moved(ended);
    assert_eq!(ended.report.device("blk0").refused, 0, "{:#?}", ended.report);
    assert_eq!(ended.seen("reach-mmio"), "no disk");
}
