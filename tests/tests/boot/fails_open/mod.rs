// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ways in which Linux fails open, each with the stock kernel and with the one that has our patches. The stock kernel
//! goes on with other memory, and cvmm refuses it; the patched one does not drive the device at all, and says why.
//!
//! | way | stock | patched |
//! |---|---|---|
//! | a kernel without restricted pools, imitated by pools of a kind that neither knows | [`device_tree`] | [`device_tree`] |
//! | a pool that the kernel rejects | [`device_tree`], and `grid`: `plan` | [`device_tree`] |
//! | VIRTIO_F_ACCESS_PLATFORM is not there | [`device_tree`] | [`device_tree`] |
//! | no pool in ACPI | `grid`: ACPI | [`acpi`]: pools that can't be used |
//! | a pool on x86 that nothing reserves | [`device_tree`] | [`device_tree`], [`acpi`] |
//! | the pool of another device | [`device_tree`] | [`device_tree`], [`acpi`] |
//! | two pools in one place | [`device_tree`] | [`device_tree`] |
//! | no reference to a pool | `unaware` | `unaware` |

mod acpi;
mod device_tree;

use std::ops::Range;

use cvmm_tests::host::Host;
use cvmm_tests::{pattern, reach};

use crate::disk::Images;
use crate::guest::{Ended, Guest};
use crate::{dsdt, dtb};

/// Devices name their pools, and drivers that know nothing of that are served as far as they stay in them.
const PLAN: [&str; 2] = ["--spec=plan", "--unaware=allow"];

/// How far a driver comes that finds its device unfit while it negotiates features.
const FAILED: [&str; 3] = ["ACKNOWLEDGE", "DRIVER", "FAILED"];
/// A device that no driver is given.
const NOT_PROBED: [&str; 0] = [];

/// What the guest is told.
enum Told<'t> {
    /// What is so.
    Truth,
    /// A device tree that was changed.
    Tree(&'t dyn Fn(&mut [u8])),
    /// A DSDT that was changed, in source.
    Dsdt(&'t dyn Fn(&str) -> String),
}

/// A guest with a disk that is bound to the first pool.
#[derive(Clone, Copy)]
struct Machine<'m> {
    host: &'m Host,
    transport: &'m str,
    /// More of it.
    more: fn(Guest<'m>) -> Guest<'m>,
}

impl<'m> Machine<'m> {
    fn stock(&self, told: &Told<'_>) -> Ended<'m> {
        self.run(&|guest| guest, told)
    }

    fn patched(&self, told: &Told<'_>) -> Ended<'m> {
        self.run(&Guest::patched, told)
    }

    fn run(&self, kernel: &dyn Fn(Guest<'m>) -> Guest<'m>, told: &Told<'_>) -> Ended<'m> {
        let images = Images::new();
        let image = images.pattern("disk", pattern::SEED, reach::PATTERN);
        let transport = self.transport;
        let guest = |word: &str| {
            let guest = Guest::new(self.host, "reach").word(word).word(format!("cvmm.reach={transport}"));
            let guest = guest.disk(&image, "disk", &format!(",pool=pool,transport={transport}"));
            kernel((self.more)(guest))
        };
        let guest = match told {
            Told::Truth => guest("cvmm.end=poweroff"),
            Told::Tree(edit) => dtb::edited(self.host, guest, edit),
            Told::Dsdt(edit) => dsdt::edited(self.host, guest, edit),
        };
        guest.run(0, "powered-off")
    }
}

fn with<'h>(guest: Guest<'h>, options: &[&str]) -> Guest<'h> {
    options.iter().fold(guest, |guest, option| guest.option(*option))
}

/// What the guest saw of its disk.
fn seen(ended: &Ended<'_>) -> String {
    ended.seen(&format!("reach-{}", ended.report.device("blk0").transport))
}

fn assert_nothing_moved(ended: &Ended<'_>) {
    let disk = ended.report.device("blk0");
    let moved = disk.dma.read.bytes + disk.dma.written.bytes + disk.dma.rings.bytes;
    assert_eq!((moved, disk.queues.len()), (0, 0), "{disk:#?}");
    let seen = seen(ended);
    ended.ensure(seen != "works", || format!("the guest saw '{seen}'"));
}

/// The disk was driven, and refused to take its queue from these guest-physical addresses.
fn assert_refused_in(ended: &Ended<'_>, range: Range<u64>) {
    let disk = ended.report.device("blk0");
    let first = disk.refusals.first().unwrap_or_else(|| panic!("{disk:#?}"));
    assert_eq!((&*first.structure, &*first.reason), ("descriptor-table", "outside the pool"));
    assert!(range.contains(&first.address), "{first:x?} is not in {range:x?}");
    assert_nothing_moved(ended);
}

/// ... wherever in memory that was.
fn assert_refused(ended: &Ended<'_>) {
    assert_refused_in(ended, 0..ended.report.memory.total);
}

/// No address was ever written, so none had to be refused: the kernel has this line, and the report says how far its driver
/// came.
fn assert_not_driven(ended: &Ended<'_>, line: &str, status: &[&str]) {
    assert_nothing_moved(ended);
    let disk = ended.report.device("blk0");
    assert!(disk.refused == 0 && disk.status == status, "not {status:?}: {disk:#?}");
    assert_eq!(seen(ended), "no disk");
    assert_log(ended, line);
}

/// The kernel's log has a line with this.
fn assert_log(ended: &Ended<'_>, line: &str) {
    ended.ensure(ended.process.stdout().contains(line), || format!("did not say '{line}'"));
}
