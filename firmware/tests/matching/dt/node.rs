// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A node from which everything must be taken: what is left at the end has not been understood.

use std::collections::BTreeMap;

use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node as _, Property as _};

use crate::model::Window;

/// A node, and all below it.
pub struct Node {
    /// Where it is in the tree.
    pub path: String,
    /// Its name, without the unit address.
    pub name: String,
    /// Its unit address.
    pub unit: Option<String>,
    properties: BTreeMap<String, Vec<u8>>,
    children: Vec<Node>,
}

impl Node {
    /// Copies `node` and all below it.
    pub fn new(node: &FdtNode, parent: &str) -> Self {
        let path = if node.name().is_empty() { String::new() } else { format!("{parent}/{}", node.name()) };
        let mut properties = BTreeMap::new();
        for property in node.properties() {
            let name = property.name();
            let before = properties.insert(name.to_owned(), property.value().to_vec());
            assert!(before.is_none(), "{path} has {name} twice");
        }
        let children = node.children().map(|child| Self::new(&child, &path)).collect();
        let (name, unit) = match node.name().split_once('@') {
            Some((name, unit)) => (name.to_owned(), Some(unit.to_owned())),
            None => (node.name().to_owned(), None),
        };
        Self { path, name, unit, properties, children }
    }

    /// Fails if anything was not taken.
    pub fn done(self) {
        let left: Vec<_> = self.properties.keys().collect();
        assert!(left.is_empty(), "{}: properties that the reader does not know: {left:?}", self.path);
        let left: Vec<_> = self.children.iter().map(|child| &child.path).collect();
        assert!(left.is_empty(), "nodes that the reader does not know: {left:?}");
    }

    /// Takes the children with this name.
    pub fn take_named(&mut self, name: &str) -> Vec<Self> {
        self.children.extract_if(.., |child| child.name == name).collect()
    }

    /// Takes the one child with this name.
    pub fn take_one_named(&mut self, name: &str) -> Self {
        one(self.take_named(name), name)
    }

    /// Takes the children whose `compatible` is exactly this.
    pub fn take_compatible(&mut self, compatible: &[&str]) -> Vec<Self> {
        let is = |child: &mut Self| child.has_strings("compatible", compatible);
        let mut taken: Vec<_> = self.children.extract_if(.., is).collect();
        taken.iter_mut().for_each(|child| drop(child.properties.remove("compatible")));
        taken
    }

    /// Takes the one child whose `compatible` is exactly this.
    pub fn take_one_compatible(&mut self, compatible: &[&str]) -> Self {
        one(self.take_compatible(compatible), compatible)
    }

    /// Takes every child that is left.
    pub fn take_rest(&mut self) -> Vec<Self> {
        std::mem::take(&mut self.children)
    }

    /// Takes a property without a value.
    pub fn flag(&mut self, name: &str) {
        assert!(self.is_flagged(name), "{} has no {name}", self.path);
    }

    /// Takes a property without a value, if it is there.
    pub fn is_flagged(&mut self, name: &str) -> bool {
        let Some(value) = self.properties.remove(name) else { return false };
        assert!(value.is_empty(), "{}: {name} has a value", self.path);
        true
    }

    /// Takes a number.
    pub fn cell(&mut self, name: &str) -> u32 {
        let cells = self.cells(name);
        assert_eq!(cells.len(), 1, "{}: cells of {name}", self.path);
        cells[0]
    }

    /// Takes numbers.
    pub fn cells(&mut self, name: &str) -> Vec<u32> {
        let value = self.take(name);
        let (cells, rest) = value.as_chunks();
        assert!(rest.is_empty(), "{}: {name} is no row of cells", self.path);
        cells.iter().map(|cell| u32::from_be_bytes(*cell)).collect()
    }

    /// Takes `reg`: one window, two cells each for address and size. It is what the node's name says.
    pub fn window(&mut self) -> Window {
        let cells = self.cells("reg");
        let [base_high, base_low, size_high, size_low] = cells[..] else {
            panic!("{}: reg is not one window: {cells:#x?}", self.path)
        };
        let base = wide(base_high, base_low);
        self.is_at(&format!("{base:x}"));
        Window::new(base, wide(size_high, size_low))
    }

    /// Fails unless the node has this unit address.
    pub fn is_at(&self, unit: &str) {
        assert_eq!(self.unit.as_deref(), Some(unit), "unit address of {}", self.path);
    }

    /// Takes a string.
    pub fn string(&mut self, name: &str) -> String {
        let value = self.take(name);
        let text = value.strip_suffix(&[0]).filter(|text| !text.contains(&0));
        let text = text.and_then(|text| str::from_utf8(text).ok());
        text.unwrap_or_else(|| panic!("{}: {name} is no string: {value:x?}", self.path)).to_owned()
    }

    /// Takes `phandle`, if it is there.
    pub fn phandle(&mut self) -> Option<u32> {
        self.has("phandle").then(|| self.cell("phandle"))
    }

    /// Whether a property is there that was not taken.
    pub fn has(&self, name: &str) -> bool {
        self.properties.contains_key(name)
    }

    /// Takes a property that has only one value that the reader knows.
    pub fn expect_cells(&mut self, name: &str, known: &[u32]) {
        assert_eq!(self.cells(name), known, "{}: {name}", self.path);
    }

    /// Takes a property that has only one value that the reader knows.
    pub fn expect_string(&mut self, name: &str, known: &str) {
        assert_eq!(self.string(name), known, "{}: {name}", self.path);
    }

    fn has_strings(&self, name: &str, strings: &[&str]) -> bool {
        let wanted: Vec<u8> = strings.iter().flat_map(|text| [text.as_bytes(), &[0]].concat()).collect();
        self.properties.get(name).is_some_and(|value| *value == wanted)
    }

    fn take(&mut self, name: &str) -> Vec<u8> {
        self.properties.remove(name).unwrap_or_else(|| panic!("{} has no {name}", self.path))
    }
}

/// A number of two cells.
pub fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn one(mut nodes: Vec<Node>, what: impl std::fmt::Debug) -> Node {
    assert_eq!(nodes.len(), 1, "nodes that are {what:?}");
    nodes.remove(0)
}
