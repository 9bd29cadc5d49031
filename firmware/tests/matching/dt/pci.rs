// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI host bridge of a device tree (IEEE 1275 PCI bus binding; dt-schema, pci/host-generic-pci.yaml).

use super::node::{Node, wide};
use super::{Context, line};
use crate::model::{Pci, Routes, VirtioPci, Window};

/// Bytes of configuration space for each bus.
const ECAM_OF_A_BUS: u64 = 1 << 20;

impl Context {
    /// The bridge, and the functions that the tree has nodes for.
    pub(super) fn pci_host(&self, mut node: Node) -> (Pci, Vec<VirtioPci>) {
        node.expect_string("device_type", "pci");
        node.expect_cells("#address-cells", &[3]);
        node.expect_cells("#size-cells", &[2]);
        let ecam = node.window();
        let buses = buses(&node.cells("bus-range"));
        assert_eq!(ecam.size, (u64::from(buses.1 - buses.0) + 1) * ECAM_OF_A_BUS, "ECAM of all buses");
        let memory = memory(&node.cells("ranges"));
        let coherent = node.is_flagged("dma-coherent");

        let mut functions: Vec<_> = node.take_rest().into_iter().map(|node| self.function(node)).collect();
        functions.sort_by_key(|function| function.device);
        // Without functions there is nothing to route.
        let routes = match functions.len() {
            0 => Routes::new(),
            _ => self.routes(&mut node),
        };
        node.done();
        (Pci { ecam, buses, memory, routes, coherent }, functions)
    }

    /// A function's node: `reg` is its configuration space, alone.
    fn function(&self, mut node: Node) -> VirtioPci {
        let reg = node.cells("reg");
        let [address, 0, 0, 0, 0] = reg[..] else { panic!("{}: reg is {reg:#x?}", node.path) };
        let (device, function) = (address >> 11 & 0x1f, address >> 8 & 0x7);
        assert_eq!(address, device << 11 | function << 8, "{}: a function of bus 0, register 0", node.path);
        node.is_at(&format!("{device:x},{function:x}"));
        let pool = self.pool(&mut node);
        node.done();
        VirtioPci { device: small(device), function: small(function), pool }
    }

    /// Each entry: PCI address (3 cells), interrupt pin, controller, specifier (2 cells; the controller has no
    /// `#address-cells`, so there is no address in between).
    fn routes(&self, node: &mut Node) -> Routes {
        node.expect_cells("#interrupt-cells", &[1]);
        node.expect_cells("interrupt-map-mask", &[0xf800, 0, 0, 7]);
        let map = node.cells("interrupt-map");
        let (entries, rest) = map.as_chunks::<7>();
        assert!(rest.is_empty(), "{}: interrupt-map ends in the middle: {rest:#x?}", node.path);
        let mut routes = Routes::new();
        for entry in entries {
            let [device, 0, 0, pin @ 1..=4, controller, gsi, kind] = *entry else {
                panic!("{}: interrupt-map: {entry:#x?}", node.path)
            };
            assert_eq!(device & !0xf800, 0, "{}: an entry that no device can match", node.path);
            assert_eq!(controller, self.io_apic, "{}: interrupt controller", node.path);
            let at = (small(device >> 11), small(pin - 1));
            assert!(routes.insert(at, line(gsi, kind)).is_none(), "{}: {at:?} twice", node.path);
        }
        routes
    }
}

fn buses(cells: &[u32]) -> (u8, u8) {
    let [first, last] = cells[..] else { panic!("bus-range: {cells:?}") };
    assert!(first <= last, "bus-range: {cells:?}");
    (small(first), small(last))
}

/// Each entry: PCI address (3 cells), CPU address (2), size (2).
fn memory(cells: &[u32]) -> Vec<Window> {
    let (entries, rest) = cells.as_chunks::<7>();
    assert!(rest.is_empty(), "ranges end in the middle: {rest:#x?}");
    let window = |[space, bus_high, bus_low, high, low, size_high, size_low]: &[u32; 7]| {
        let (bus, cpu) = (wide(*bus_high, *bus_low), wide(*high, *low));
        assert_eq!(bus, cpu, "bridges that translate addresses are not known");
        let window = Window::new(cpu, wide(*size_high, *size_low));
        match space {
            // Not prefetchable, not relocatable.
            0x0200_0000 => assert!(window.last() <= u64::from(u32::MAX), "32-bit space: {window:?}"),
            0x0300_0000 => {}
            _ => panic!("no memory that is not prefetchable: {space:#x}"),
        }
        window
    };
    entries.iter().map(window).collect()
}

fn small(number: u32) -> u8 {
    u8::try_from(number).unwrap_or_else(|_| panic!("too large: {number:#x}"))
}
