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
    let mut wanted: Vec<_> = names.iter().map(ToString::to_string).collect();
    wanted.sort();
    assert_eq!(properties(node), wanted, "properties of {}", node.name());
    assert_eq!(node.children().count(), 0, "children of {}", node.name());
}

fn value<'a>(node: &FdtNode<'a>, name: &str) -> FdtProperty<'a> {
    // `Node::property` would borrow the node; its iterator does not.
    let found = node.properties().find(|property| property.name() == name);
    found.unwrap_or_else(|| panic!("{} has no {name}", node.name()))
}
