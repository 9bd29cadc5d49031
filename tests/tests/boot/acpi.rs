// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that is told of its machine by ACPI tables alone.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::disk::Images;
use crate::guest::{Guest, MIB};
use crate::names;

/// LNRO0005 devices get the pool that their _DSD names; power off goes through the sleep registers.
#[test]
fn mmio_devices_are_found_and_confined() {
    let (host, images) = (Host::shared(), Images::new());
    let (base, size) = (64 * MIB, 8 * MIB);
    let ended = Guest::new(&host, "acpi,pool,cpus,blk,rng")
        .patched()
        .firmware("acpi")
        .cpus(2)
        .pool(size, Some(base))
        .word(format!("cvmm.cpus=2 cvmm.pool={base:#x},{size} cvmm.blk=vda:ro"))
        .disk(&images.pattern("disk", pattern::SEED, 1 << 20), "disk", ",ro")
        .option("--rng")
        .run(0, "powered-off");
    let own = [names::acpi(), names::pool(), names::cpus(), names::blk(&["vda:ro"]), names::rng()];
    ended.passed(own.concat());
    ended.report.assert_honest(&[("blk0", 1), ("rng0", 1)]);
    let ids = ended.seen("acpi-devices");
    let count = |id| ids.split(' ').filter(|word| *word == id).count();
    // Two virtio-mmio devices, one pool, two processors, a UART, pvpanic.
    let there = ["LNRO0005", "PRP0001", "ACPI0007", "PNP0501", "QEMU0001"].map(count);
    assert_eq!(there, [2, 1, 2, 1, 1], "{ids}");
    assert_eq!(ended.report.outcome.detail, "the guest powered itself off (ACPI)");
}

/// A stock kernel finds the devices and not the pool: it is refused, and the machine goes on.
#[test]
fn a_stock_kernel_finds_mmio_devices_and_is_refused() {
    let (host, images) = (Host::shared(), Images::new());
    let ended = Guest::new(&host, "acpi")
        .firmware("acpi")
        .disk(&images.pattern("disk", pattern::SEED, 1 << 20), "disk", ",ro")
        .option("--rng")
        .run(0, "powered-off");
    ended.passed(names::acpi());
    for device in &ended.report.devices {
        assert!(device.queues.is_empty() && device.refused > 0, "{device:#?}");
        assert_eq!((device.dma.read.bytes, device.dma.written.bytes), (0, 0), "{device:#?}");
    }
}

/// The reset register of the FADT, which Linux takes where the command line asks for it.
#[test]
fn reset_is_exit_code_5() {
    let host = Host::shared();
    let guest = Guest::new(&host, "none").firmware("acpi");
    let ended = guest.word("cvmm.end=reset reboot=a").run(5, "reset");
    ended.passed([]);
    assert_eq!(ended.report.outcome.detail, "the guest asked for a reset (ACPI)");
}

/// pvpanic as QEMU0001.
#[test]
fn panic_is_exit_code_4() {
    let host = Host::shared();
    let ended = Guest::new(&host, "none").firmware("acpi").word("cvmm.end=panic").run(4, "guest-crashed");
    assert!(ended.report.outcome.detail.contains("panicked"), "{:?}", ended.report.outcome);
}
