// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads a device tree as Linux on x86 does. A node, property or value that it does not know fails.

mod node;
mod pci;

use std::collections::BTreeMap;

use dtoolkit::fdt::Fdt;

use self::node::Node;
use crate::model::{Line, Model, Polarity, Pool, Trigger, VirtioMmio, Window};

/// What the device tree alone says.
#[derive(Debug, PartialEq)]
pub struct DtOnly {
    /// RAM, pools included.
    pub memory: Vec<Window>,
    /// Kernel command line.
    pub bootargs: String,
    /// Registers of the local APIC.
    pub local_apic: Window,
    /// Registers of the I/O APIC.
    pub io_apic: Window,
    /// The power control register.
    pub power: Window,
    /// What is written to it for power off.
    pub power_off_value: u32,
    /// What is written to it for reset.
    pub reset_value: u32,
}

/// What the nodes refer to.
struct Context {
    /// The I/O APIC's phandle.
    io_apic: u32,
    /// Pools by their phandles.
    pools: BTreeMap<u32, Pool>,
}

/// Reads `blob`.
pub fn read(blob: &[u8]) -> (Model, DtOnly) {
    let fdt = Fdt::new(blob).unwrap_or_else(|error| panic!("no device tree: {error}"));
    assert_eq!(fdt.memory_reservations().count(), 0, "Linux on x86 does not read memory reservations");
    let mut root = Node::new(&fdt.root(), "");
    root.expect_cells("#address-cells", &[2]);
    root.expect_cells("#size-cells", &[2]);
    root.expect_string("model", "cvmm");
    root.expect_string("compatible", "cvmm,virt");
    let parent = root.cell("interrupt-parent");

    let cpus = cpus(root.take_one_named("cpus"));
    assert_eq!(
        cpus.first(),
        Some(&fdt.boot_cpuid_phys()),
        "the header and the first CPU node: boot processor"
    );
    let memory = root.take_named("memory").into_iter().map(memory_node).collect();
    let io_apic = io_apic(root.take_one_compatible(&["intel,ce4100-ioapic"]), parent);
    let local_apic = local_apic(root.take_one_compatible(&["intel,ce4100-lapic"]));
    let context = Context { io_apic: parent, pools: pools(root.take_one_named("reserved-memory")) };

    let uart_node = root.take_one_compatible(&["ns16550a"]);
    let bootargs = chosen(root.take_one_named("chosen"), &uart_node);
    let uart = uart(uart_node);
    let pvpanic = pvpanic(root.take_one_compatible(&["qemu,pvpanic-mmio"]));
    let (register, power) = power(root.take_one_compatible(&["cvmm,power-control", "syscon"]));
    let power_off_value = written(root.take_one_compatible(&["syscon-poweroff"]), register);
    let reset_value = written(root.take_one_compatible(&["syscon-reboot"]), register);

    let virtio_mmio = root.take_compatible(&["virtio,mmio"]);
    let virtio_mmio = virtio_mmio.into_iter().map(|node| context.virtio_mmio(node)).collect();
    let hosts = root.take_compatible(&["pci-host-ecam-generic"]);
    assert!(hosts.len() <= 1, "{} PCI hosts", hosts.len());
    let (mut pci, mut virtio_pci) = (None, Vec::new());
    for host in hosts {
        let (host, functions) = context.pci_host(host);
        (pci, virtio_pci) = (Some(host), functions);
    }
    root.done();

    let mut pools: Vec<_> = context.pools.values().copied().collect();
    pools.sort();
    let model = Model {
        pools,
        cpus,
        local_apic: local_apic.base,
        io_apic: io_apic.base,
        uart,
        pvpanic,
        pci,
        virtio_mmio,
        virtio_pci,
    };
    let only = DtOnly { memory, bootargs, local_apic, io_apic, power, power_off_value, reset_value };
    (model, only)
}

/// The command line. Standard output is the UART.
fn chosen(mut node: Node, uart: &Node) -> String {
    node.expect_string("stdout-path", &uart.path);
    let bootargs = node.string("bootargs");
    node.done();
    bootargs
}

fn cpus(mut node: Node) -> Vec<u32> {
    node.expect_cells("#address-cells", &[1]);
    node.expect_cells("#size-cells", &[0]);
    let cpu = |mut cpu: Node| {
        cpu.expect_string("device_type", "cpu");
        let apic_id = cpu.cell("reg");
        cpu.is_at(&format!("{apic_id:x}"));
        cpu.done();
        apic_id
    };
    let cpus = node.take_named("cpu").into_iter().map(cpu).collect();
    node.done();
    cpus
}

fn memory_node(mut node: Node) -> Window {
    node.expect_string("device_type", "memory");
    let window = node.window();
    node.done();
    window
}

/// Linux ignores /reserved-memory unless its cells are the root's and `ranges` is there; empty, it changes no address.
fn pools(mut node: Node) -> BTreeMap<u32, Pool> {
    node.expect_cells("#address-cells", &[2]);
    node.expect_cells("#size-cells", &[2]);
    node.flag("ranges");
    let mut pools = BTreeMap::new();
    for mut pool in node.take_compatible(&["restricted-dma-pool"]) {
        let dma_default = pool.is_flagged("linux,dma-default");
        let described = Pool { window: pool.window(), dma_default };
        let phandle = pool.phandle().unwrap_or_else(|| panic!("nothing can refer to {}", pool.path));
        assert!(pools.insert(phandle, described).is_none(), "{}: its phandle is another pool's", pool.path);
        pool.done();
    }
    node.done();
    pools
}

fn io_apic(mut node: Node, interrupt_parent: u32) -> Window {
    assert_eq!(node.phandle(), Some(interrupt_parent), "the root's interrupt-parent is the I/O APIC");
    interrupt_controller(node)
}

/// There is no 8259 from which a guest would have to take over: `intel,virtual-wire-mode`.
fn local_apic(mut node: Node) -> Window {
    node.flag("intel,virtual-wire-mode");
    interrupt_controller(node)
}

fn interrupt_controller(mut node: Node) -> Window {
    node.flag("interrupt-controller");
    node.expect_cells("#interrupt-cells", &[2]);
    let window = node.window();
    node.done();
    window
}

/// `clock-frequency` is a PC's: 16 times 115200 Hz.
fn uart(mut node: Node) -> (Window, Line) {
    node.expect_cells("clock-frequency", &[1_843_200]);
    let uart = (node.window(), one_line(&mut node));
    node.done();
    uart
}

fn pvpanic(mut node: Node) -> Window {
    let window = node.window();
    node.done();
    window
}

/// Phandle and window of the power control register.
fn power(mut node: Node) -> (u32, Window) {
    let phandle = node.phandle().unwrap_or_else(|| panic!("nothing can refer to {}", node.path));
    let window = node.window();
    node.done();
    (phandle, window)
}

/// What a syscon-poweroff or syscon-reboot writes to `register`.
fn written(mut node: Node, register: u32) -> u32 {
    node.expect_cells("regmap", &[register]);
    node.expect_cells("offset", &[0]);
    let value = node.cell("value");
    node.done();
    value
}

impl Context {
    fn virtio_mmio(&self, mut node: Node) -> VirtioMmio {
        let device = VirtioMmio {
            window: node.window(),
            line: one_line(&mut node),
            coherent: node.is_flagged("dma-coherent"),
            pool: self.pool(&mut node),
        };
        node.done();
        device
    }

    /// What `memory-region` refers to, if it is there.
    fn pool(&self, node: &mut Node) -> Option<Window> {
        let phandle = node.has("memory-region").then(|| node.cell("memory-region"))?;
        let pool = self.pools.get(&phandle);
        Some(pool.unwrap_or_else(|| panic!("{}: {phandle:#x} is no pool", node.path)).window)
    }
}

/// The one interrupt of a node, a pin of the root's interrupt-parent.
fn one_line(node: &mut Node) -> Line {
    let cells = node.cells("interrupts");
    let [pin, kind] = cells[..] else { panic!("{}: more or less than one interrupt: {cells:?}", node.path) };
    line(pin, kind)
}

/// An interrupt specifier of `intel,ce4100-ioapic`: the numbers are those of Linux (arch/x86/kernel/devicetree.c,
/// of_ioapic_type).
fn line(pin: u32, kind: u32) -> Line {
    let (trigger, polarity) = match kind {
        0 => (Trigger::Edge, Polarity::Low),
        1 => (Trigger::Level, Polarity::High),
        2 => (Trigger::Level, Polarity::Low),
        3 => (Trigger::Edge, Polarity::High),
        _ => panic!("no kind of interrupt: {kind}"),
    };
    Line { pin, trigger, polarity }
}
