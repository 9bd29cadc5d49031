// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device tree, read by a crate that does not write it. What else is in it is tested where it is made.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

use super::{MIXED, Place};

#[test]
fn the_device_tree_can_be_read() {
    let place = Place::new();
    let dtb = place.describe(&format!("{MIXED} --format dtb --cmdline quiet"));
    let fdt = Fdt::new(&dtb).unwrap();
    let chosen = fdt.find_node("/chosen").unwrap();
    let bootargs = chosen.property("bootargs").unwrap();
    let expected = "console=uart8250,mmio,0xd1000000,115200n8r reboot=p,panic_warm panic=-1 quiet";
    assert_eq!(bootargs.value_as::<&str>().unwrap(), expected);
    assert_eq!(bound(&fdt.root()), 4, "devices with a pool");

    // In a file, the same bytes.
    let nothing = place.describe(&format!("{MIXED} --format dtb --cmdline quiet --output t.dtb"));
    assert!(nothing.is_empty());
    assert_eq!(std::fs::read(place.path("t.dtb")).unwrap(), dtb);
}

fn bound(node: &FdtNode) -> usize {
    let this = usize::from(node.property("memory-region").is_some());
    this + node.children().map(|child| bound(&child)).sum::<usize>()
}
