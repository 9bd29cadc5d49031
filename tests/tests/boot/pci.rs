// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices on PCI: found, confined, and interrupting by MSI-X or by their pin, however the guest is told of them.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::disk::{self, Images};
use crate::guest::{Ended, Guest, LIMIT, MIB};
use crate::names;

const SEED: u64 = 60_000;
const BYTES: u64 = 4 * MIB;

/// With the device tree.
#[test]
fn every_device_on_pci_by_device_tree() {
    every_device("dt", "created restricted DMA pool at ");
}

/// With ACPI, which also says where BARs can be.
#[test]
fn every_device_on_pci_by_acpi() {
    let ended = every_device("acpi", "created restricted DMA pool [mem ");
    assert!(
        ended.ends_with("; window 0xc0000000-0xcfffffff"),
        "the kernel does not know the host bridge's window: {ended}"
    );
}

/// Disk, network and entropy do all that they do on mmio. Returns what the guest saw of its functions.
fn every_device(firmware: &str, created: &str) -> String {
    let (host, images) = (Host::shared(), Images::new());
    let image = images.ext4("disk", 32 * MIB);
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    let peer = host.peer(5000).unwrap();
    let (base, size) = (64 * MIB, 8 * MIB);
    let ended = Guest::new(&host, "pool,blk,net,rng,pci,msix")
        .patched()
        .firmware(firmware)
        .pool(size, Some(base))
        .word(format!("cvmm.pool={base:#x},{size}"))
        .word(format!("cvmm.blk=vda:rw cvmm.seed={SEED}"))
        .word(format!("cvmm.net=192.168.90.2/24,peer=192.168.90.1,port=5000,bytes={BYTES}"))
        .disk(&image, "disk", ",transport=pci")
        .option(format!("--net=tap={},transport=pci", tap.name()))
        .option("--rng=transport=pci")
        .run(0, "powered-off");
    let own = [names::pool(), names::blk(&["vda:rw"]), names::net(), names::rng(), names::pci()].concat();
    ended.passed(own.into_iter().chain(["msix-vectors".to_owned()]));
    assert!(ended.seen("pool-created").contains(created), "{}", ended.seen("pool-created"));
    ended.report.assert_honest(&[("blk0", 1), ("net0", 2), ("rng0", 1)]);
    assert_eq!(peer.received(LIMIT).unwrap().bytes, BYTES);
    ended.get("disk", &image);
    disk::assert_guest_files(&image, SEED);
    let functions = ended.seen("pci-functions");
    assert_places(&ended, &functions);
    functions
}

/// Each function's BAR is where the firmware put it: Linux moves it only if it does not like the place.
fn assert_places(ended: &Ended<'_>, functions: &str) {
    for device in &ended.report.devices {
        let address = device.pci_address.as_deref().unwrap();
        let base = device.window.base();
        let place = format!("{address} at {base:#x}-{:#x}", base + 0x7fff);
        assert!(functions.contains(&place), "{place} is not in: {functions}");
    }
}

/// Without MSI-X the devices share level-triggered lines, which ACPI's _PRT routes. By device tree this is not tested:
/// Linux reads `interrupt-map` on one x86 platform only (arch/x86/platform/ce4100).
#[test]
fn interrupt_pins_are_shared_and_level_triggered() {
    let (host, images) = (Host::shared(), Images::new());
    let disk = images.pattern("disk", pattern::SEED, 1 << 20);
    // Functions 1 and 5 have the same line.
    let guest = Guest::new(&host, "blk,rng,intx")
        .patched()
        .firmware("acpi")
        .word("pci=nomsi cvmm.blk=vda:ro,vdb:ro,vdc:ro,vdd:ro");
    let guest =
        (0..4).fold(guest, |guest, index| guest.disk(&disk, &format!("disk{index}"), ",ro,transport=pci"));
    let ended = guest.option("--rng=transport=pci").run(0, "powered-off");
    let disks = names::blk(&["vda:ro", "vdb:ro", "vdc:ro", "vdd:ro"]);
    ended.passed([disks, names::rng(), vec!["intx-lines".to_owned()]].concat());
    let devices = [("blk0", 1), ("blk1", 1), ("blk2", 1), ("blk3", 1), ("rng0", 1)];
    ended.report.assert_honest(&devices);
    let lines: Vec<_> = ended.report.devices.iter().map(|device| device.gsi).collect();
    assert_eq!((lines[0], lines[1] - lines[0]), (lines[4], 1), "{lines:?}");
}

/// Eight devices at once, on both transports.
#[test]
fn eight_devices_on_both_transports() {
    let (host, images) = (Host::shared(), Images::new());
    let disk = images.pattern("disk", pattern::SEED, 1 << 20);
    let raw = images.empty("raw", 16 * MIB);
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    let peer = host.peer(5000).unwrap();
    let ended = Guest::new(&host, "acpi,pool,cpus,blk,net,rng,pci,msix")
        .patched()
        .firmware("acpi")
        .cpus(2)
        .pool(16 * MIB, None)
        .word("cvmm.cpus=2")
        .word(format!("cvmm.net=192.168.90.2/24,peer=192.168.90.1,port=5000,bytes={BYTES}"))
        .disk(&disk, "disk0", ",ro,transport=pci,serial=b0")
        .disk(&disk, "disk1", ",ro,transport=mmio,serial=b1")
        .disk(&raw, "disk2", ",transport=pci,serial=b2")
        .disk(&disk, "disk3", ",ro,transport=mmio,serial=b3")
        .disk(&disk, "disk4", ",ro,transport=pci,serial=b4")
        .option(format!("--net=tap={},transport=pci", tap.name()))
        .option("--rng=transport=pci")
        .option("--rng=transport=mmio")
        .word(format!("cvmm.blk={}", DISKS.join(",")))
        .run(0, "powered-off");
    let own = [names::acpi(), names::pool(), names::cpus(), names::blk(&DISKS), names::net()].concat();
    let more = [names::rng(), names::pci(), vec!["msix-vectors".to_owned()]].concat();
    ended.passed(own.into_iter().chain(more));
    let disks = [("blk0", 1), ("blk1", 1), ("blk2", 1), ("blk3", 1), ("blk4", 1)];
    let others = [("net0", 2), ("rng0", 1)];
    let devices: Vec<_> = disks.into_iter().chain(others).collect();
    // Linux uses one source of entropy at a time, but starts both.
    ended.report.assert_honest(&[devices, vec![("rng1", 1)]].concat());
    assert_eq!(peer.received(LIMIT).unwrap().bytes, BYTES);
}

/// Linux finds the two disks on mmio before the three on PCI, of which the second can be written.
const DISKS: [&str; 5] = ["vda:ro", "vdb:ro", "vdc:ro", "vdd:raw", "vde:ro"];

/// A stock kernel does not look for a pool of a PCI function on x86. It uses any memory, the devices refuse it, and the
/// machine goes on.
#[test]
fn a_stock_kernel_is_refused_and_comes_up() {
    refused("dt");
}

/// The same with ACPI, where no stock kernel knows of pools at all.
#[test]
fn a_stock_kernel_with_acpi_is_refused_and_comes_up() {
    refused("acpi");
}

fn refused(firmware: &str) {
    let (host, images) = (Host::shared(), Images::new());
    let image = images.pattern("disk", pattern::SEED, 1 << 20);
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    // It comes to its prompt: init runs, and says so.
    let ended = Guest::new(&host, "pci")
        .firmware(firmware)
        .disk(&image, "disk", ",transport=pci")
        .option(format!("--net=tap={},transport=pci", tap.name()))
        .option("--rng=transport=pci")
        .run(0, "powered-off");
    ended.passed(names::pci());
    let pool = ended.report.pool();
    for device in &ended.report.devices {
        assert!(device.queues.is_empty(), "a queue outside the pool was enabled: {device:#?}");
        assert_eq!((device.dma.read.bytes, device.dma.written.bytes, device.dma.rings.accesses), (0, 0, 0));
        let first = device.refusals.first().unwrap_or_else(|| panic!("nothing was refused: {device:#?}"));
        assert_eq!(
            (first.structure.as_str(), first.reason.as_str()),
            ("descriptor-table", "outside the pool")
        );
        assert!(!pool.contains(&first.address), "{first:#x?} is in {pool:#x?}");
    }
    assert!(ended.report.refused >= 3, "{}", ended.report.refused);
    let before = std::fs::read(&image).unwrap();
    ended.get("disk", &image);
    assert!(std::fs::read(&image).unwrap() == before, "a disk has changed whose driver reached nothing");
}
