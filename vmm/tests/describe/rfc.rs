// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--spec rfc`: PCI devices with memory of their own, in every form of the description.

use serde_json::{Value, json};

use super::{MIXED, Place};

const RFC: &str = "--pool 6M --blk path=none,transport=pci --blk path=none --rng transport=pci --spec rfc";

#[test]
fn memory_of_pci_devices_is_in_the_table_and_for_programs() {
    let place = Place::new();
    let text = place.text(RFC);
    for line in [
        // A BAR's size is a power of two (PCI 3.0, 6.2.5.1).
        "0xcf000000-0xcf7fffff          8 MiB  rng0 device memory BAR 2, prefetchable",
        "0xcf800000-0xcfffffff          8 MiB  blk0 device memory BAR 2, prefetchable",
        "0xc0008000-0xc000ffff         32 KiB  blk0               virtio-pci 00:01.0, BAR 0, MSI-X or interrupt 61, DMA only in blk0 device memory",
        "0xd0000000-0xd0000fff          4 KiB  blk1               virtio-mmio, interrupt 5, DMA only in pool",
    ] {
        assert!(text.lines().any(|other| other == line), "no line '{line}': {text}");
    }
    let value: Value = serde_json::from_slice(&place.describe(&format!("{RFC} --format json"))).unwrap();
    let devices = value["devices"].as_array().unwrap();
    let seen: Vec<_> = devices
        .iter()
        .map(|device| json!([device["pool"], device["device_memory"], device["names_pool"]]))
        .collect();
    let memory = |base: u64| json!({"base": base, "size": 8 << 20});
    let expected = [
        json!(["blk0 device memory", memory(0xcf80_0000), false]),
        json!(["pool", null, true]),
        json!(["rng0 device memory", memory(0xcf00_0000), false]),
    ];
    assert_eq!(seen, expected);
    assert_eq!(value["memory"]["pools"].as_array().unwrap().len(), 1, "the shared ones");
    let picture = place.text(&format!("{RFC} --format svg"));
    for part in
        ["blk0 device memory", "class=\"pool1\"", "class=\"pool2\"", "arrow2", "and 16 MiB of their own"]
    {
        assert!(picture.contains(part), "no {part}");
    }
    // The other texts have no such memory.
    for spec in ["upstream", "plan"] {
        assert!(!place.text(&format!("{MIXED} --spec {spec}")).contains("device memory"), "{spec}");
    }
}

/// The RFC has no `memory-region` for PCI: the device tells, and nobody else.
#[test]
fn no_table_names_a_pool_of_a_function() {
    let place = Place::new();
    let count = |text: &str, part: &str| text.matches(part).count();
    let tree = place.text(&format!("{RFC} --format dts"));
    assert_eq!((count(&tree, "memory-region ="), count(&tree, "virtio@1,0")), (1, 1), "{tree}");
    let tables = place.text(&format!("{RFC} --format asl"));
    assert_eq!((count(&tables, "\"memory-region\""), count(&tables, "Device (S001)")), (1, 1), "{tables}");
    let upstream = format!("{} --format asl", RFC.replace("rfc", "upstream"));
    assert_eq!(count(&place.text(&upstream), "\"memory-region\""), 3);
}

#[test]
fn memory_that_does_not_fit_is_refused() {
    let place = Place::new();
    let options = "--pool 128M --mem 1G --rng transport=pci --rng transport=pci --spec rfc";
    let begins = "--rng transport=pci: with --spec rfc a PCI device has memory of its own, as large as its pool; 128M more";
    place.refuse(options, 2, begins);
    place.text(&options.replace("rfc", "plan"));
    let all = format!("--pool 4M --spec rfc {}", "--rng transport=pci ".repeat(31));
    assert_eq!(place.text(&all).matches("BAR 2, prefetchable").count(), 31);
}
