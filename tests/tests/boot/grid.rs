// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every kernel with every text of the proposal: what comes of a disk and a network device on each transport, for each form
//! of description.
//!
//! A cell is one of three. What it must be is said by [`expected`], from what the texts and the kernels are; what it is,
//! the guest and the report say. resources/guide/specifications.md shows the table.

use std::fmt::Write as _;
use std::path::Path;

use cvmm_tests::host::Host;
use cvmm_tests::{pattern, reach, workspace};

use crate::disk::Images;
use crate::guest::{Ended, Guest, MIB};
use crate::report::{self, Device};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kernel {
    /// Debian's source as it is.
    Stock,
    /// With resources/guest-kernel/patches.
    Patched,
}

/// `--spec` and `--unaware`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Text {
    Upstream,
    RfcRefuse,
    RfcAllow,
    PlanRefuse,
    PlanAllow,
}
use Text::*;

const TRANSPORTS: [&str; 2] = ["mmio", "pci"];
const TEXTS: [Text; 5] = [Upstream, RfcRefuse, RfcAllow, PlanRefuse, PlanAllow];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    /// Rings and data are in the pool, and the data is right.
    Works,
    /// FEATURES_OK does not stick, as the driver does not accept the feature bit: it is never driven.
    Refused,
    /// The kernel finds no pool for the device and names other memory, which the device refuses.
    Cannot,
}

/// What comes of a device.
fn expected(kernel: Kernel, firmware: &str, transport: &str, text: Text) -> Cell {
    // The patched kernel knows the bit of the plan; none knows that of the RFC.
    let knows_bit = kernel == Kernel::Patched && text == PlanRefuse;
    if matches!(text, RfcRefuse | PlanRefuse) && !knows_bit {
        return Cell::Refused;
    }
    let finds_pool = match (kernel, text) {
        // On PCI the RFC's pool is memory of the device, for which there is no driver.
        (_, RfcRefuse | RfcAllow) if transport == "pci" => false,
        (Kernel::Patched, _) => true,
        // It rejects a pool with linux,dma-default.
        (Kernel::Stock, PlanRefuse | PlanAllow) => false,
        // It looks for the pools of platform devices in a device tree.
        (Kernel::Stock, _) => (firmware, transport) == ("dt", "mmio"),
    };
    if finds_pool { Cell::Works } else { Cell::Cannot }
}

#[test]
fn a_stock_kernel_with_a_device_tree() {
    row(Kernel::Stock, "dt");
}

#[test]
fn a_stock_kernel_with_acpi() {
    row(Kernel::Stock, "acpi");
}

#[test]
fn the_patched_kernel_with_a_device_tree() {
    row(Kernel::Patched, "dt");
}

#[test]
fn the_patched_kernel_with_acpi() {
    row(Kernel::Patched, "acpi");
}

/// A guest for each text, with a disk and a network device on either transport.
fn row(kernel: Kernel, firmware: &str) {
    let (host, images) = (Host::shared(), Images::new());
    let image = images.pattern("disk", pattern::SEED, reach::PATTERN);
    let taps = TRANSPORTS.map(|transport| {
        let ([a, b, c, d], _, bits) = reach::network(transport);
        host.tap(&format!("cvmm-{transport}"), &format!("{a}.{b}.{c}.{d}/{bits}")).unwrap()
    });
    for text in TEXTS {
        let options: &[&str] = match text {
            Upstream => &["--spec=upstream"],
            RfcRefuse => &["--spec=rfc"],
            RfcAllow => &["--spec=rfc", "--unaware=allow"],
            PlanRefuse => &["--spec=plan", "--unaware=refuse"],
            PlanAllow => &["--spec=plan", "--unaware=allow"],
        };
        let guest = Guest::new(&host, "reach,reach-net")
            .firmware(firmware)
            // Not where the page allocator begins: a stock kernel gives a pool that it rejects to it.
            .pool(8 * MIB, Some(64 * MIB))
            .word("cvmm.reach=mmio,pci cvmm.reach-net=mmio,pci")
            .disk(&image, "disk-mmio", "")
            .disk(&image, "disk-pci", ",transport=pci")
            .option(format!("--net=tap={}", taps[0].name()))
            .option(format!("--net=tap={},transport=pci", taps[1].name()));
        let guest = options.iter().fold(guest, |guest, option| guest.option(*option));
        let guest = if kernel == Kernel::Patched { guest.patched() } else { guest };
        let ended = guest.run(0, "powered-off");
        let report::Spec { name, feature_bit, unaware, registers_name_pool, access_platform } =
            &ended.report.spec;
        let told = (&**name, *feature_bit, unaware.as_deref(), *registers_name_pool);
        let as_asked = match text {
            Upstream => ("upstream", None, None, false),
            RfcRefuse => ("rfc", Some(27), Some("refuse"), false),
            RfcAllow => ("rfc", Some(27), Some("allow"), false),
            PlanRefuse => ("plan", Some(45), Some("refuse"), true),
            PlanAllow => ("plan", Some(45), Some("allow"), true),
        };
        assert_eq!((&*ended.report.firmware, told, access_platform), (firmware, as_asked, &true));
        for (index, transport) in TRANSPORTS.into_iter().enumerate() {
            let cell = expected(kernel, firmware, transport, text);
            println!("{kernel:?} {firmware} {transport} {text:?}: {cell:?}");
            for (kind, queues) in [("blk", 1), ("net", 2)] {
                let device = ended.report.device(&format!("{kind}{index}"));
                assert_eq!((&*device.transport, &*device.kind), (transport, kind));
                assert_cell(cell, &ended, (device, queues), (kernel, text));
            }
            let left = images.path(&format!("{transport}-after"));
            ended.get(&format!("disk-{transport}"), &left);
            assert_disk(cell == Cell::Works, &left);
        }
    }
}

fn assert_cell(
    cell: Cell,
    ended: &Ended<'_>,
    (device, queues): (&Device, usize),
    (kernel, text): (Kernel, Text),
) {
    let scenario = if device.kind == "net" { "reach-net" } else { "reach" };
    let seen = ended.seen(&format!("{scenario}-{}", device.transport));
    let what = || format!("{cell:?}, but the guest saw '{seen}', and the report says {device:#x?}");
    let bit = match text {
        Upstream => None,
        RfcRefuse | RfcAllow => Some(27),
        PlanRefuse | PlanAllow => Some(45),
    };
    ended.ensure(device.features.restricted_dma_bit == bit, what);
    ended.ensure(device.features.offered >> 27 & 1 == u64::from(bit == Some(27)), what);
    ended.ensure(device.features.offered >> 45 & 1 == u64::from(bit == Some(45)), what);
    ended.ensure(device.device_memory.is_some() == (bit == Some(27) && device.transport == "pci"), what);
    ended.ensure(ended.report.warnings.is_empty() == (bit != Some(27)), what);
    let moved = device.dma.read.bytes + device.dma.written.bytes + device.dma.rings.bytes;
    if cell == Cell::Works {
        ended.ensure(seen == "works" && device.refused == 0, what);
        ended.ensure(device.queues.len() == queues && moved > 0, what);
        ended.report.assert_rings_of(device);
        let aware = kernel == Kernel::Patched && bit == Some(45);
        let accepted = device.features.accepted_names.iter().any(|name| name == "RESTRICTED_DMA");
        ended.ensure(accepted == aware, what);
        return;
    }
    let not_used = ["no disk", "no capacity", "no interface", "no answer"];
    ended.ensure(not_used.iter().any(|words| seen.starts_with(words)), what);
    ended.ensure(device.queues.is_empty() && moved == 0, what);
    let why = device.features.refused_offer.as_deref();
    if cell == Cell::Refused {
        ended.ensure(why == Some("the driver did not accept RESTRICTED_DMA"), what);
        ended.ensure(device.refused == 0, what);
    } else {
        ended.ensure(why.is_none(), what);
        let first = device.refusals.first();
        let outside = |refusal: &crate::report::Refusal| {
            (&*refusal.structure, &*refusal.reason) == ("descriptor-table", "outside the pool")
        };
        ended.ensure(first.is_some_and(outside), what);
    }
}

/// What the guest wrote is there, and nothing else has changed.
fn assert_disk(written: bool, path: &Path) {
    let mut wanted = pattern::bytes(pattern::SEED, reach::PATTERN);
    if written {
        let at = usize::try_from(reach::AT).unwrap();
        pattern::fill(pattern::SEED + reach::WRITTEN, reach::AT, &mut wanted[at..at + reach::LENGTH]);
    }
    assert!(std::fs::read(path).unwrap() == wanted, "the disk has other bytes");
}

/// The guide's table is what the cells above must be. With CVMM_WRITE_PAGE=1 it is written there.
#[test]
fn the_guide_has_the_table() {
    let mut table = String::from(
        "| kernel | described by | transport | `upstream` | `rfc` | `rfc`, `allow` | `plan` | `plan`, `allow` |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (kernel, name) in [(Kernel::Stock, "stock 6.12"), (Kernel::Patched, "with our patches")] {
        for firmware in ["dt", "acpi"] {
            for transport in TRANSPORTS {
                let cells = TEXTS.map(|text| match expected(kernel, firmware, transport, text) {
                    Cell::Works => "**works**",
                    Cell::Refused => "refused",
                    Cell::Cannot => "cannot",
                });
                writeln!(table, "| {name} | {firmware} | {transport} | {} |", cells.join(" | ")).unwrap();
            }
        }
    }
    let path = workspace::root().join("resources/guide/specifications.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let header = table.lines().next().unwrap();
    let start = page.find(header).expect("the page has a table with this header");
    let end = start + page[start..].find("\n\n").unwrap() + 1;
    if std::env::var_os("CVMM_WRITE_PAGE").is_some() {
        std::fs::write(path, [&page[..start], &table, &page[end..]].concat()).unwrap();
    } else {
        assert!(page[start..end] == table, "{} should have this table:\n{table}", path.display());
    }
}
