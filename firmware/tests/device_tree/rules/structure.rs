// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tree as such: header, root, names, references.

use std::collections::HashSet;

use cvmm_firmware::Machine;
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};

use crate::tree::{at, cell, has_exactly, nodes, reg, regs, string, strings};

/// Devicetree Specification 0.4, 5.2. No memory reservations: Linux on x86 does not read them.
pub fn header(fdt: &Fdt, _: &Machine) {
    assert_eq!((fdt.version(), fdt.last_comp_version()), (17, 16));
    assert_eq!(fdt.memory_reservations().count(), 0);
}

/// Devicetree Specification 0.4, 5.2: the header names the boot processor by its `reg`.
pub fn boot_cpu(fdt: &Fdt, machine: &Machine) {
    assert_eq!(fdt.boot_cpuid_phys(), machine.cpus[0]);
}

/// root-node.yaml: model, compatible, and two cells each, so that every address and size fits.
pub fn root(fdt: &Fdt, _: &Machine) {
    let root = at(fdt, "/");
    assert_eq!((cell(&root, "#address-cells"), cell(&root, "#size-cells")), (2, 2));
    assert!(!string(&root, "model").is_empty());
    assert!(strings(&root, "compatible").iter().all(|name| name.contains(',')), "vendor,model");
}

/// chosen.yaml. The command line arrives as it was given.
pub fn chosen(fdt: &Fdt, machine: &Machine) {
    let chosen = at(fdt, "/chosen");
    has_exactly(&chosen, &["bootargs", "stdout-path"]);
    assert_eq!(string(&chosen, "bootargs"), machine.bootargs);
}

/// chosen.yaml: stdout-path is the whole path of the UART.
pub fn standard_output(fdt: &Fdt, machine: &Machine) {
    let path = string(&at(fdt, "/chosen"), "stdout-path");
    let (_, uart) = nodes(fdt)
        .into_iter()
        .find(|(other, _)| other == path)
        .unwrap_or_else(|| panic!("stdout-path: there is no {path}"));
    assert_eq!(strings(&uart, "compatible"), ["ns16550a"]);
    assert_eq!(reg(&uart), machine.system.uart.0);
}

/// Devicetree Specification 0.4, 2.2.1 and 2.2.4: lengths and characters of names, no two siblings of one name.
pub fn names(fdt: &Fdt, _: &Machine) {
    for (path, node) in nodes(fdt) {
        if path != "/" {
            let (name, address) = node.name().split_once('@').unwrap_or((node.name(), "0"));
            assert!((1..=31).contains(&name.len()), "{path}");
            assert!(name.starts_with(|first: char| first.is_ascii_alphabetic()), "{path}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || ",._+-".contains(c)), "{path}");
            assert!(!address.is_empty(), "{path}");
        }
        let mut names = HashSet::new();
        assert!(node.children().all(|child| names.insert(child.name().to_owned())), "siblings in {path}");
        let mut names = HashSet::new();
        for property in node.properties() {
            let name = property.name();
            assert!((1..=31).contains(&name.len()), "{path} {name}");
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || ",._+?#-".contains(c)),
                "{path} {name}"
            );
            assert!(names.insert(name.to_owned()), "{path} has {name} twice");
        }
    }
}

/// Devicetree Specification 0.4, 2.2.1: a unit address is the first address of `reg`, and there is none without `reg`.
/// dt-schema's form of it: lower case, no leading zeros.
pub fn unit_addresses(fdt: &Fdt, _: &Machine) {
    let mut with_address = 0;
    for (path, node) in nodes(fdt) {
        // Behind the PCI host bridge, another rule holds: pci::functions.
        if path.starts_with("/pci@") && path.rfind('/') != Some(0) {
            continue;
        }
        // A CPU's `reg` has an address and no size.
        let first = if path.starts_with("/cpus/") {
            Some(u64::from(cell(&node, "reg")))
        } else {
            regs(&node).first().map(|range| range.base())
        };
        let written = node.name().split_once('@').map(|(_, address)| address.to_owned());
        assert_eq!(written, first.map(|address| format!("{address:x}")), "{path}");
        with_address += usize::from(first.is_some());
    }
    assert!(with_address > 0);
}

/// Phandles are unique, and neither 0 nor all ones.
pub fn phandles(fdt: &Fdt, _: &Machine) {
    let mut seen = HashSet::new();
    for (path, node) in nodes(fdt) {
        if node.property("phandle").is_some() {
            let phandle = cell(&node, "phandle");
            assert!(phandle != 0 && phandle != u32::MAX, "{path}: {phandle:#x}");
            assert!(seen.insert(phandle), "{path}: {phandle:#x} is another node's");
        }
    }
}
