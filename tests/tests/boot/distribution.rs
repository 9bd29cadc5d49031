// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian's stock kernels. They have no device tree, so ACPI describes the machine; they know of no pool there, so their
//! devices are refused. They end in every way, each with its exit code.

use cvmm_tests::build;
use cvmm_tests::host::Host;
use cvmm_tests::initramfs::guest_initramfs_with_modules;
use cvmm_tests::kernel::{DebianKernel, Flavour};
use cvmm_tests::pattern;

use crate::disk::Images;
use crate::guest::{Guest, MIB};
use crate::unaware::assert_nothing_moved;

#[test]
fn debians_cloud_kernel_ends_as_it_should_and_its_devices_are_refused() {
    boots_and_ends(Flavour::Cloud);
}

#[test]
fn debians_generic_kernel_ends_as_it_should_and_its_devices_are_refused() {
    boots_and_ends(Flavour::Generic);
}

fn boots_and_ends(flavour: Flavour) {
    let kernel = DebianKernel::get(flavour).unwrap();
    let init = build::static_programs().unwrap().guest_init;
    let modules = ["virtio_mmio", "virtio_pci", "virtio_blk"];
    let initrd = guest_initramfs_with_modules(&init, &kernel, &modules).unwrap();
    let host = Host::shared();
    let folder = host.folder().unwrap();
    host.put(&kernel.image, folder.file("kernel")).unwrap();
    host.write(folder.file("initrd"), &initrd).unwrap();
    let images = Images::new();
    let image = images.pattern("disk", pattern::SEED, 1 << 20);
    // None of these kernels has a driver for pvpanic in it: a panic is known by the warm reset.
    for (word, exit_code, kind, detail) in [
        ("poweroff", 0, "powered-off", "the guest powered itself off (ACPI)"),
        ("reset", 5, "reset", "the guest asked for a reset (reset control register)"),
        ("panic", 4, "guest-crashed", "the guest asked for a warm reset: its kernel panicked"),
    ] {
        let ended = Guest::new(&host, "none")
            .mem(256 * MIB)
            .kernel(folder.file("kernel"))
            .initrd(folder.file("initrd"))
            .firmware("acpi")
            .disk(&image, "mmio", "")
            .disk(&image, "pci", ",transport=pci")
            .word(format!("quiet cvmm.end={word}"))
            .run(exit_code, kind);
        ended.passed([]);
        let outcome = &ended.report.outcome;
        assert!(outcome.detail.starts_with(detail), "{outcome:?}");
        assert_nothing_moved(&ended, &[("blk0", 1), ("blk1", 1)]);
    }
}
