// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device tree of a machine, as a flattened blob (Devicetree Specification 0.4, chapter 5).
//!
//! x86 bindings are those that Linux reads: `intel,ce4100-ioapic`, `intel,ce4100-lapic`. The pool is a
//! `restricted-dma-pool` (dt-schema, reserved-memory/shared-dma-pool.yaml) that devices name with `memory-region`.

mod pci;

use vm_fdt::FdtWriter;

use crate::{Binding, DMA_DEFAULT, DeviceError, Interrupt, Machine, PoolId, Range, Transport, VirtioDevice};

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The writer refused a name or a value.
    #[error("the device tree could not be written: {0}")]
    Write(#[from] vm_fdt::Error),
    /// A device has a place or a pool that is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

type Result<T = ()> = std::result::Result<T, vm_fdt::Error>;

const PHANDLE_IO_APIC: u32 = 1;
const PHANDLE_POWER: u32 = 2;
const PHANDLE_FIRST_POOL: u32 = 16;

/// Second cell of an `intel,ce4100-ioapic` interrupt specifier (Linux, arch/x86/kernel/devicetree.c).
const LEVEL_LOW: u32 = 2;
const EDGE_RISING: u32 = 3;

/// Input clock of a PC's UART, in Hz. Drivers derive baud rates from it; nothing here depends on them.
const UART_CLOCK_HZ: u32 = 1_843_200;

/// Writes the device tree of `machine`.
pub fn device_tree(machine: &Machine) -> std::result::Result<Vec<u8>, Error> {
    machine.check_devices()?;
    Ok(write(machine)?)
}

fn write(machine: &Machine) -> Result<Vec<u8>> {
    let mut fdt = FdtWriter::new()?;
    fdt.set_boot_cpuid_phys(machine.cpus.first().copied().unwrap_or(0));
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_string("model", "cvmm")?;
    fdt.property_string("compatible", "cvmm,virt")?;
    fdt.property_u32("interrupt-parent", PHANDLE_IO_APIC)?;
    chosen(&mut fdt, machine)?;
    cpus(&mut fdt, machine)?;
    memory(&mut fdt, machine)?;
    reserved_memory(&mut fdt, machine)?;
    interrupt_controllers(&mut fdt, machine)?;
    system_devices(&mut fdt, machine)?;
    virtio_mmio_devices(&mut fdt, machine)?;
    if let Some(host) = &machine.pci {
        pci::host_bridge(&mut fdt, machine, host)?;
    }
    fdt.end_node(root)?;
    fdt.finish()
}

fn chosen(fdt: &mut FdtWriter, machine: &Machine) -> Result {
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", &machine.bootargs)?;
    fdt.property_string("stdout-path", &format!("/{}", node_name("serial", machine.system.uart.0)))?;
    fdt.end_node(node)
}

fn cpus(fdt: &mut FdtWriter, machine: &Machine) -> Result {
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for &apic_id in &machine.cpus {
        let cpu = fdt.begin_node(&format!("cpu@{apic_id:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_u32("reg", apic_id)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)
}

fn memory(fdt: &mut FdtWriter, machine: &Machine) -> Result {
    for range in &machine.memory {
        let node = fdt.begin_node(&node_name("memory", *range))?;
        fdt.property_string("device_type", "memory")?;
        reg(fdt, *range)?;
        fdt.end_node(node)?;
    }
    Ok(())
}

/// Linux ignores /reserved-memory unless its cells equal the root's and `ranges` is there.
fn reserved_memory(fdt: &mut FdtWriter, machine: &Machine) -> Result {
    let parent = fdt.begin_node("reserved-memory")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    for (phandle, pool) in (PHANDLE_FIRST_POOL..).zip(&machine.pools) {
        let node = fdt.begin_node(&node_name("restricted-dma-pool", pool.range))?;
        fdt.property_string("compatible", "restricted-dma-pool")?;
        reg(fdt, pool.range)?;
        if pool.dma_default {
            fdt.property_null(DMA_DEFAULT)?;
        }
        fdt.property_phandle(phandle)?;
        fdt.end_node(node)?;
    }
    fdt.end_node(parent)
}

fn interrupt_controllers(fdt: &mut FdtWriter, machine: &Machine) -> Result {
    for (range, compatible, phandle) in [
        (machine.io_apic.window, "intel,ce4100-ioapic", Some(PHANDLE_IO_APIC)),
        (machine.local_apic, "intel,ce4100-lapic", None),
    ] {
        let node = fdt.begin_node(&node_name("interrupt-controller", range))?;
        fdt.property_string("compatible", compatible)?;
        reg(fdt, range)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_u32("#interrupt-cells", 2)?;
        match phandle {
            Some(phandle) => fdt.property_phandle(phandle)?,
            // There is no 8259, so nothing has to be switched away from it.
            None => fdt.property_null("intel,virtual-wire-mode")?,
        }
        fdt.end_node(node)?;
    }
    Ok(())
}

fn system_devices(fdt: &mut FdtWriter, machine: &Machine) -> Result {
    let system = &machine.system;
    let (window, interrupt) = system.uart;

    let uart = fdt.begin_node(&node_name("serial", window))?;
    fdt.property_string("compatible", "ns16550a")?;
    reg(fdt, window)?;
    interrupts(fdt, interrupt)?;
    fdt.property_u32("clock-frequency", UART_CLOCK_HZ)?;
    fdt.end_node(uart)?;

    let power = fdt.begin_node(&node_name("syscon", system.power))?;
    fdt.property_string_list("compatible", vec!["cvmm,power-control".into(), "syscon".into()])?;
    reg(fdt, system.power)?;
    fdt.property_phandle(PHANDLE_POWER)?;
    fdt.end_node(power)?;

    for (name, compatible, value) in [
        ("poweroff", "syscon-poweroff", system.power_off_value),
        ("reboot", "syscon-reboot", system.reset_value),
    ] {
        let node = fdt.begin_node(name)?;
        fdt.property_string("compatible", compatible)?;
        fdt.property_u32("regmap", PHANDLE_POWER)?;
        fdt.property_u32("offset", 0)?;
        fdt.property_u32("value", value)?;
        fdt.end_node(node)?;
    }

    let pvpanic = fdt.begin_node(&node_name("pvpanic", system.pvpanic))?;
    fdt.property_string("compatible", "qemu,pvpanic-mmio")?;
    reg(fdt, system.pvpanic)?;
    fdt.end_node(pvpanic)
}

fn virtio_mmio_devices(fdt: &mut FdtWriter, machine: &Machine) -> Result {
    for device in &machine.virtio {
        let Transport::Mmio { window, interrupt } = device.transport else { continue };
        let node = fdt.begin_node(&node_name("virtio", window))?;
        fdt.property_string("compatible", "virtio,mmio")?;
        reg(fdt, window)?;
        interrupts(fdt, interrupt)?;
        fdt.property_null("dma-coherent")?;
        memory_region(fdt, device)?;
        fdt.end_node(node)?;
    }
    Ok(())
}

/// The binding of a device to its pool.
fn memory_region(fdt: &mut FdtWriter, device: &VirtioDevice) -> Result {
    let PoolId(index) = device.pool;
    match device.binding {
        Binding::Reference => fdt.property_u32("memory-region", PHANDLE_FIRST_POOL + u32::from(index)),
        Binding::Default | Binding::OnDevice(_) => Ok(()),
    }
}

fn node_name(name: &str, range: Range) -> String {
    format!("{name}@{:x}", range.base())
}

fn reg(fdt: &mut FdtWriter, range: Range) -> Result {
    fdt.property_array_u64("reg", &[range.base(), range.size()])
}

fn interrupts(fdt: &mut FdtWriter, Interrupt(pin): Interrupt) -> Result {
    fdt.property_array_u32("interrupts", &[pin, EDGE_RISING])
}
