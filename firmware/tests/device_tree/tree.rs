// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads what the rules ask of a node. A reader panics, with the node's name, when a property is not what its name promises.

use cvmm_firmware::Range;
use dtoolkit::fdt::{Fdt, FdtNode, FdtProperty};
use dtoolkit::{Node, Property};

/// Every node with its path, the root first.
pub fn nodes<'a>(fdt: &Fdt<'a>) -> Vec<(String, FdtNode<'a>)> {
    fn walk<'a>(path: &str, node: FdtNode<'a>, found: &mut Vec<(String, FdtNode<'a>)>) {
        found.push((if path.is_empty() { "/".to_owned() } else { path.to_owned() }, node));
        for child in node.children() {
            walk(&format!("{path}/{}", child.name()), child, found);
        }
    }
    let mut found = Vec::new();
    walk("", fdt.root(), &mut found);
    found
}

/// The nodes whose `compatible` has `wanted`, in the order of the blob.
pub fn compatible<'a>(fdt: &Fdt<'a>, wanted: &str) -> Vec<FdtNode<'a>> {
    let is = |node: &FdtNode| node.compatible().is_some_and(|mut names| names.any(|name| name == wanted));
    nodes(fdt).into_iter().map(|(_, node)| node).filter(is).collect()
}

/// The one node whose `compatible` has `wanted`.
pub fn the<'a>(fdt: &Fdt<'a>, wanted: &str) -> FdtNode<'a> {
    let mut found = compatible(fdt, wanted);
    assert_eq!(found.len(), 1, "nodes compatible with {wanted}");
    found.remove(0)
}

/// The node at `path`.
pub fn at<'a>(fdt: &Fdt<'a>, path: &str) -> FdtNode<'a> {
    fdt.find_node(path).unwrap_or_else(|| panic!("there is no {path}"))
}

/// The path and node that `phandle` stands for.
pub fn by_phandle<'a>(fdt: &Fdt<'a>, phandle: u32) -> (String, FdtNode<'a>) {
    let is = |node: &FdtNode| node.property("phandle").is_some() && cell(node, "phandle") == phandle;
    let mut found: Vec<_> = nodes(fdt).into_iter().filter(|(_, node)| is(node)).collect();
    assert_eq!(found.len(), 1, "nodes with phandle {phandle:#x}");
    found.remove(0)
}

/// The one cell of a property.
pub fn cell(node: &FdtNode, name: &str) -> u32 {
    value(node, name).value_as::<u32>().unwrap_or_else(|error| panic!("{} {name}: {error}", node.name()))
}

/// The cells of a property.
pub fn cells<const N: usize>(node: &FdtNode, name: &str) -> [u32; N] {
    value(node, name).value_as::<[u32; N]>().unwrap_or_else(|error| panic!("{} {name}: {error}", node.name()))
}

/// The one string of a property.
pub fn string<'a>(node: &FdtNode<'a>, name: &str) -> &'a str {
    value(node, name).value_as::<&str>().unwrap_or_else(|error| panic!("{} {name}: {error}", node.name()))
}

/// The strings of a property.
pub fn strings<'a>(node: &FdtNode<'a>, name: &str) -> Vec<&'a str> {
    let bytes = value(node, name).value_as::<&[u8]>().expect("any value is bytes");
    let text = std::str::from_utf8(bytes).unwrap_or_else(|error| panic!("{} {name}: {error}", node.name()));
    let text = text.strip_suffix('\0').unwrap_or_else(|| panic!("{} {name} does not end", node.name()));
    text.split('\0').collect()
}

/// Whether a property is there as a flag: present, without a value.
pub fn flag(node: &FdtNode, name: &str) -> bool {
    node.property(name).is_some_and(|property| property.value().is_empty())
}

/// The one range of `reg`, read with the parent's cells.
pub fn reg(node: &FdtNode) -> Range {
    let ranges = regs(node);
    assert_eq!(ranges.len(), 1, "ranges in reg of {}", node.name());
    ranges[0]
}

/// The ranges of `reg`, read with the parent's cells; none without `reg`.
pub fn regs(node: &FdtNode) -> Vec<Range> {
    let fail = |error: &dyn std::fmt::Display| -> ! { panic!("reg of {}: {error}", node.name()) };
    let reg = node.reg().unwrap_or_else(|error| fail(&error));
    reg.into_iter()
        .flatten()
        .map(|entry| {
            let base = entry.address::<u64>().unwrap_or_else(|error| fail(&error));
            let size = entry.size::<u64>().unwrap_or_else(|error| fail(&error));
            Range::new(base, size).unwrap_or_else(|| fail(&"empty, or past the end"))
        })
        .collect()
}

/// The names of a node's properties. `phandle` is left out: every schema allows it.
pub fn properties(node: &FdtNode) -> Vec<String> {
    let mut names: Vec<_> = node.properties().map(|property| property.name().to_owned()).collect();
    names.retain(|name| name != "phandle");
    names.sort();
    names
}

/// Fails unless a node has exactly these properties, in any order, and no child: what a schema says with
/// `required` and `additionalProperties: false`.
pub fn has_exactly(node: &FdtNode, names: &[&str]) {
    has_exactly_properties(node, names);
    assert_eq!(node.children().count(), 0, "children of {}", node.name());
}

/// As [`has_exactly`], for a node that may have children.
pub fn has_exactly_properties(node: &FdtNode, names: &[&str]) {
    let mut wanted: Vec<_> = names.iter().map(ToString::to_string).collect();
    wanted.sort();
    assert_eq!(properties(node), wanted, "properties of {}", node.name());
}

/// Whether a device has a `memory-region`.
pub fn names_pool(node: &FdtNode) -> bool {
    node.properties().any(|property| property.name() == "memory-region")
}

/// The cells of a property, however many.
pub fn all_cells(node: &FdtNode, name: &str) -> Vec<u32> {
    let bytes = value(node, name).value_as::<&[u8]>().expect("any value is bytes");
    let (cells, rest) = bytes.as_chunks();
    assert!(rest.is_empty(), "{} {name} is not of cells", node.name());
    cells.iter().map(|cell| u32::from_be_bytes(*cell)).collect()
}

/// The device and function of a node behind a PCI host bridge: PCI Bus Binding to IEEE Std 1275, 2.2.1.1. Its `reg` is the
/// address of configuration space, of bus 0, and nothing else.
pub fn function(node: &FdtNode) -> (u8, u8) {
    let [high, mid, low, size_high, size_low] = cells(node, "reg");
    assert_eq!([mid, low, size_high, size_low], [0; 4], "reg of {}", node.name());
    assert_eq!(high & !0xff00, 0, "reg of {}: configuration space, bus 0, register 0", node.name());
    (u8::try_from(high >> 11).expect("5 bits"), u8::try_from(high >> 8 & 7).expect("3 bits"))
}

/// One entry of a PCI host bridge's `interrupt-map`.
#[derive(Debug)]
pub struct Route {
    /// The device number.
    pub device: u32,
    /// The interrupt pin, 1 for INTA#.
    pub pin: u32,
    /// The interrupt controller's phandle.
    pub controller: u32,
    /// The interrupt controller's pin.
    pub pin_of_io_apic: u32,
    /// How it is triggered.
    pub trigger: u32,
}

/// The `interrupt-map` of a PCI host bridge; empty without one.
pub fn routes(host: &FdtNode) -> Vec<Route> {
    if host.property("interrupt-map").is_none() {
        return Vec::new();
    }
    let map = all_cells(host, "interrupt-map");
    let (entries, rest) = map.as_chunks();
    assert!(rest.is_empty(), "interrupt-map is not of whole entries");
    let route = |entry: &[u32; 7]| {
        let [address, mid, low, pin, controller, pin_of_io_apic, trigger] = *entry;
        assert_eq!((address & !0xf800, mid, low), (0, 0, 0), "{entry:x?}: nothing but a device number");
        Route { device: address >> 11, pin, controller, pin_of_io_apic, trigger }
    };
    entries.iter().map(route).collect()
}

/// The `ranges` of a PCI host bridge: each with the code of its address space. Nothing is translated.
pub fn bridged(host: &FdtNode) -> Vec<(u32, Range)> {
    let cells = all_cells(host, "ranges");
    let (entries, rest) = cells.as_chunks();
    assert!(rest.is_empty(), "ranges is not of whole entries");
    let range = |entry: &[u32; 7]| {
        let [space, bus, cpu, size] = [0, 1, 3, 5].map(|at| match at {
            0 => u64::from(entry[0]),
            at => u64::from(entry[at]) << 32 | u64::from(entry[at + 1]),
        });
        assert_eq!(bus, cpu, "{entry:x?}: addresses on the bus are those of the CPU");
        (u32::try_from(space).expect("a cell"), Range::new(cpu, size).expect("not empty"))
    };
    entries.iter().map(range).collect()
}

fn value<'a>(node: &FdtNode<'a>, name: &str) -> FdtProperty<'a> {
    // `Node::property` would borrow the node; its iterator does not.
    let found = node.properties().find(|property| property.name() == name);
    found.unwrap_or_else(|| panic!("{} has no {name}", node.name()))
}
