// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Told by a device tree.

use cvmm_tests::host::Host;

use super::{
    FAILED, Machine, NOT_PROBED, PLAN, Told, assert_log, assert_not_driven, assert_refused,
    assert_refused_in, seen, with,
};
use crate::dtb::{bind_elsewhere, move_pool, reject_the_default_pool, unknown_pools};
use crate::guest::{Guest, MIB};

/// Phandles of the first two pools.
const FIRST: u32 = 16;
const SECOND: u32 = 17;

/// To a kernel without CONFIG_DMA_RESTRICTED_POOL all pools are of an unknown kind.
#[test]
fn a_pool_of_an_unknown_kind() {
    let host = Host::shared();
    let machine = Machine { host: &host, transport: "mmio", more: |guest| with(guest, &PLAN) };
    let told = Told::Tree(&unknown_pools);
    assert_refused(&machine.stock(&told));
    assert_not_driven(&machine.patched(&told), "device needs a restricted DMA pool", &FAILED);
}

/// Its properties say two things at once. The stock kernel then gives its memory to the page allocator.
#[test]
fn a_pool_that_is_rejected() {
    let host = Host::shared();
    let machine = Machine {
        host: &host,
        transport: "mmio",
        more: |guest| with(guest, &PLAN).word("cvmm.test=reach,pool"),
    };
    let told = Told::Tree(&reject_the_default_pool);
    let stock = machine.stock(&told);
    assert_refused(&stock);
    assert_log(&stock, "FAIL pool-is-reserved: ");
    let patched = machine.patched(&told);
    assert_not_driven(&patched, "can't be a restricted DMA pool with its properties", &NOT_PROBED);
    assert_log(&patched, "ok pool-is-reserved: ");
}

/// The description binds the device to one pool, and the device reaches another: that is what the reference by the device
/// itself is for (four-step plan, 4).
#[test]
fn the_wrong_pool() {
    let host = Host::shared();
    for transport in ["mmio", "pci"] {
        let machine = Machine {
            host: &host,
            transport,
            more: |guest| with(guest, &PLAN).more_pool("other", 2 * MIB, None),
        };
        let told = Told::Tree(&|blob: &mut [u8]| bind_elsewhere(blob, FIRST, SECOND));
        let stock = machine.stock(&told);
        let disk = stock.report.device("blk0");
        let other = stock.report.memory.pools.iter().find(|pool| pool.name != disk.pool).unwrap();
        // On PCI it looks for no pool.
        let all = 0..stock.report.memory.total;
        assert_refused_in(
            &stock,
            if transport == "mmio" { other.base..other.base + other.size } else { all },
        );
        assert_not_driven(&machine.patched(&told), "device names restricted DMA pool", &FAILED);
    }
}

/// The pool is memory that nothing reserves, as on x86 without SETUP_INDIRECT. A stock kernel clears it, in use or not, and
/// gives its devices what it goes on to use otherwise. (Here it is where, so early, nothing is in use: elsewhere such a kernel
/// was seen to die of it.)
#[test]
fn a_pool_that_nothing_reserves() {
    const RESERVED: u64 = 64 * MIB;
    const UNRESERVED: u64 = 80 * MIB;
    const SIZE: u64 = 8 * MIB;
    let host = Host::shared();
    // Without the plan's text: with it, a stock kernel looks at no pool that has linux,dma-default. The kernel itself is at
    // the beginning, and what it takes first.
    fn more(guest: Guest<'_>) -> Guest<'_> {
        guest.pool(SIZE, Some(RESERVED)).word("nokaslr")
    }
    let machine = Machine { host: &host, transport: "mmio", more };
    let told = Told::Tree(&|blob: &mut [u8]| move_pool(blob, SIZE, RESERVED, UNRESERVED));
    assert_refused_in(&machine.stock(&told), UNRESERVED..UNRESERVED + SIZE);
    assert_not_driven(&machine.patched(&told), "isn't RAM that is reserved", &NOT_PROBED);
}

/// Two pools in one place would be one for two devices, each of which is to have its own. The first that a device needs is
/// made, the other not.
#[test]
fn pools_that_overlap() {
    const FIRST: u64 = 64 * MIB;
    const SECOND: u64 = 80 * MIB;
    const SIZE: u64 = 2 * MIB;
    let host = Host::shared();
    fn more(guest: Guest<'_>) -> Guest<'_> {
        let guest = guest.pool(4 * MIB, Some(FIRST)).more_pool("other", SIZE, Some(SECOND));
        guest.option("--rng=pool=other")
    }
    let machine = Machine { host: &host, transport: "mmio", more };
    let told = Told::Tree(&|blob: &mut [u8]| move_pool(blob, SIZE, SECOND, FIRST + SIZE));
    let stock = machine.stock(&told);
    let first = stock.report.device("rng0").refusals.first().expect("it is not in its pool");
    assert!((FIRST + SIZE..FIRST + 2 * SIZE).contains(&first.address), "{first:x?}");
    let patched = machine.patched(&told);
    let entropy = patched.report.device("rng0");
    assert!(entropy.refused == 0 && entropy.status == NOT_PROBED, "{entropy:#?}");
    assert_log(&patched, "overlaps with the one from");
    for ended in [stock, patched] {
        assert_eq!(seen(&ended), "works");
        ended.report.assert_rings_of(ended.report.device("blk0"));
    }
}

/// Linux' drivers ask the DMA API, and so the pool, only with this bit.
#[test]
fn no_access_platform() {
    let host = Host::shared();
    let machine = Machine {
        host: &host,
        transport: "mmio",
        more: |guest| with(guest, &["--withhold-access-platform"]),
    };
    assert_refused(&machine.stock(&Told::Truth));
    assert_not_driven(
        &machine.patched(&Told::Truth),
        "device must provide VIRTIO_F_ACCESS_PLATFORM",
        &FAILED,
    );
    let machine = Machine {
        host: &host,
        transport: "pci",
        more: |guest| with(with(guest, &PLAN), &["--withhold-access-platform"]),
    };
    assert_refused(&machine.stock(&Told::Truth));
    let line = "VIRTIO_F_RESTRICTED_DMA without VIRTIO_F_ACCESS_PLATFORM";
    assert_not_driven(&machine.patched(&Told::Truth), line, &FAILED);
}
