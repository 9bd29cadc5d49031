// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Power-off and reset.

use cvmm_firmware::Machine;
use dtoolkit::fdt::{Fdt, FdtNode};

use crate::tree::{by_phandle, cell, has_exactly, reg, strings, the};

/// mfd/syscon-common.yaml: `syscon` is never alone in compatible, one window. Linux' driver reads and writes 32 bits.
pub fn register(fdt: &Fdt, machine: &Machine) {
    let node = the(fdt, "syscon");
    has_exactly(&node, &["compatible", "reg"]);
    let compatible = strings(&node, "compatible");
    assert!((2..=5).contains(&compatible.len()), "{compatible:?}");
    assert_eq!(compatible.last(), Some(&"syscon"), "the general name comes last");
    assert_eq!(reg(&node), machine.system.power);
    assert!(reg(&node).size() >= 4);
}

/// power/reset/syscon-poweroff.yaml.
pub fn power_off(fdt: &Fdt, machine: &Machine) {
    writes_to_register(fdt, &the(fdt, "syscon-poweroff"), machine.system.power_off_value);
}

/// power/reset/syscon-reboot.yaml.
pub fn reboot(fdt: &Fdt, machine: &Machine) {
    writes_to_register(fdt, &the(fdt, "syscon-reboot"), machine.system.reset_value);
}

/// Without a mask, the schemas want the value; `regmap` is allowed for a node that is not a child of the register's.
fn writes_to_register(fdt: &Fdt, node: &FdtNode, wanted: u32) {
    has_exactly(node, &["compatible", "offset", "regmap", "value"]);
    assert_eq!((cell(node, "offset"), cell(node, "value")), (0, wanted));
    let (_, register) = by_phandle(fdt, cell(node, "regmap"));
    assert_eq!(strings(&register, "compatible").last(), Some(&"syscon"));
}
