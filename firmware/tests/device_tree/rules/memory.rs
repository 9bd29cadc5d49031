// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory, and the part of it that devices reach.

use cvmm_firmware::{Binding, Machine, Range, Transport};
use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};

use crate::tree::{at, by_phandle, cell, compatible, flag, function, has_exactly, names_pool, reg, string};

/// memory.yaml: device_type and reg, nothing else. One node for each range of the machine.
pub fn memory_nodes(fdt: &Fdt, machine: &Machine) {
    let nodes = memory(fdt);
    for node in &nodes {
        has_exactly(node, &["device_type", "reg"]);
        assert_eq!(string(node, "device_type"), "memory");
    }
    assert_eq!(nodes.iter().map(reg).collect::<Vec<_>>(), machine.memory);
}

/// Linux ignores /reserved-memory unless its cells are the root's and `ranges` is there, and empty: addresses are not
/// translated.
pub fn reserved_memory_parent(fdt: &Fdt, _: &Machine) {
    let (root, parent) = (at(fdt, "/"), at(fdt, "/reserved-memory"));
    for cells in ["#address-cells", "#size-cells"] {
        assert_eq!(cell(&parent, cells), cell(&root, cells), "{cells}");
    }
    assert!(flag(&parent, "ranges"), "ranges must be there, and empty");
}

/// shared-dma-pool.yaml for a `restricted-dma-pool`: a static region. `no-map` and `reusable` are forbidden by the
/// schema. `linux,dma-default` and `linux,cma-default` are not, but Linux 6.12 then refuses the pool and hands its memory
/// to the page allocator: private data would end up in memory that the VMM sees. So the first is there only where the
/// machine asks for it (four-step plan, 1), the second never.
pub fn pools(fdt: &Fdt, machine: &Machine) {
    let nodes = compatible(fdt, "restricted-dma-pool");
    let children: Vec<_> = at(fdt, "/reserved-memory").children().collect();
    assert_eq!(children.len(), nodes.len(), "only pools are reserved, and only there");
    assert!(children.iter().all(|child| string(child, "compatible") == "restricted-dma-pool"));
    for node in &nodes {
        for forbidden in ["no-map", "reusable", "linux,cma-default"] {
            assert!(node.property(forbidden).is_none(), "{} has {forbidden}", node.name());
        }
        match is_default(node) {
            true => {
                assert!(flag(node, DMA_DEFAULT), "it has no value");
                has_exactly(node, &["compatible", DMA_DEFAULT, "reg"]);
            }
            false => has_exactly(node, &["compatible", "reg"]),
        }
    }
    let described: Vec<_> = nodes.iter().map(|node| (reg(node), is_default(node))).collect();
    let wanted: Vec<_> = machine.pools.iter().map(|pool| (pool.range, pool.dma_default)).collect();
    assert_eq!(described, wanted);
}

/// Makes a pool that of every device without an explicit one.
const DMA_DEFAULT: &str = "linux,dma-default";

fn is_default(node: &FdtNode) -> bool {
    node.property(DMA_DEFAULT).is_some()
}

/// A pool is RAM, whole, and belongs to no other pool.
pub fn pools_are_in_memory(fdt: &Fdt, _: &Machine) {
    let memory: Vec<Range> = memory(fdt).iter().map(reg).collect();
    let pools: Vec<Range> = compatible(fdt, "restricted-dma-pool").iter().map(reg).collect();
    for (index, pool) in pools.iter().enumerate() {
        assert!(memory.iter().any(|range| range.contains(pool)), "pool {pool} is not in memory");
        assert!(pools[..index].iter().all(|other| !other.overlaps(pool)), "pool {pool} overlaps another");
    }
}

/// memory-region.yaml: each device names one region, and it is the pool that the machine binds the device to; or it names
/// none, and that pool is the default one.
pub fn device_pool(fdt: &Fdt, machine: &Machine) {
    let on_mmio = compatible(fdt, "virtio,mmio");
    let on_pci: Vec<_> =
        compatible(fdt, "pci-host-ecam-generic").iter().flat_map(|host| host.children()).collect();
    for device in &machine.virtio {
        let found: Vec<_> = match device.transport {
            Transport::Mmio { window, .. } => on_mmio.iter().filter(|node| reg(node) == window).collect(),
            Transport::Pci { device, .. } => {
                on_pci.iter().filter(|node| function(node) == (device, 0)).collect()
            }
        };
        assert_eq!(found.len(), 1, "nodes of {}", device.name);
        if device.own_memory().is_some() {
            assert!(!names_pool(found[0]), "{} has memory of its own, and names a pool", device.name);
            continue;
        }
        if device.binding == Binding::Default {
            assert!(!names_pool(found[0]), "{} names its pool", device.name);
            assert!(machine.pool(device.pool).dma_default);
            continue;
        }
        let (path, pool) = by_phandle(fdt, cell(found[0], "memory-region"));
        assert!(path.starts_with("/reserved-memory/"), "{} has its memory-region at {path}", device.name);
        assert_eq!(string(&pool, "compatible"), "restricted-dma-pool");
        assert_eq!(reg(&pool), machine.pool(device.pool).range, "the pool of {}", device.name);
    }
    let all = crate::tree::nodes(fdt);
    let named = all.iter().filter(|(_, node)| names_pool(node)).count();
    let wanted = machine.virtio.iter().filter(|device| device.binding == Binding::Reference).count();
    assert_eq!(named, wanted, "no other node names a pool");
}

fn memory<'a>(fdt: &Fdt<'a>) -> Vec<FdtNode<'a>> {
    fdt.root().children().filter(|node| node.name_without_address() == "memory").collect()
}
