// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The model of a machine, straight from its description: what both readers must come to.

use cvmm_firmware::{Binding, Interrupt, Machine, Range, Transport};

use crate::acpi::AcpiOnly;
use crate::dt::DtOnly;
use crate::model::{Line, Model, Pci, Polarity, Pool, Routes, Trigger, VirtioMmio, VirtioPci, Window};

/// What both forms say.
pub fn model(machine: &Machine) -> Model {
    let pool =
        |pool: &cvmm_firmware::Pool| Pool { window: window(pool.range), dma_default: pool.dma_default };
    let mut pools: Vec<_> = machine.pools.iter().map(pool).collect();
    pools.sort();
    let (mut virtio_mmio, mut virtio_pci) = (Vec::new(), Vec::new());
    for virtio in &machine.virtio {
        let names = virtio.binding == Binding::Reference;
        let pool = names.then(|| window(machine.pools[usize::from(virtio.pool.0)].range));
        match virtio.transport {
            Transport::Mmio { window: registers, interrupt } => virtio_mmio.push(VirtioMmio {
                window: window(registers),
                line: edge(interrupt),
                coherent: true,
                pool,
            }),
            Transport::Pci { device, .. } => virtio_pci.push(VirtioPci { device, function: 0, pool }),
        }
    }
    virtio_pci.sort_by_key(|virtio| virtio.device);
    let pci = machine.pci.map(|pci| Pci {
        ecam: window(pci.ecam),
        buses: (0, 0),
        memory: vec![window(pci.memory)],
        routes: routes(machine, virtio_pci.iter().map(|virtio| virtio.device)),
        coherent: true,
    });
    Model {
        pools,
        cpus: machine.cpus.clone(),
        local_apic: machine.local_apic.base(),
        io_apic: machine.io_apic.window.base(),
        uart: (window(machine.system.uart.0), edge(machine.system.uart.1)),
        pvpanic: window(machine.system.pvpanic),
        pci,
        virtio_mmio,
        virtio_pci,
    }
}

/// What the device tree alone says.
pub fn dt_only(machine: &Machine) -> DtOnly {
    DtOnly {
        memory: machine.memory.iter().map(|range| window(*range)).collect(),
        bootargs: machine.bootargs.clone(),
        local_apic: window(machine.local_apic),
        io_apic: window(machine.io_apic.window),
        power: window(machine.system.power),
        power_off_value: machine.system.power_off_value,
        reset_value: machine.system.reset_value,
    }
}

/// What ACPI alone says.
pub fn acpi_only(machine: &Machine) -> AcpiOnly {
    let sleep = &machine.system.sleep;
    AcpiOnly {
        sleep_control: sleep.window.base(),
        sleep_status: sleep.window.base() + 1,
        reset_register: sleep.window.base() + 2,
        reset_value: sleep.reset_value,
        type_off: sleep.type_off,
        config_ports: machine.pci.map(|pci| window(pci.config_ports)),
        routes: routes(machine, 0..32),
    }
}

/// The lines that `devices` have: pin `p` of device `d` is wired to the line `(d + p) mod 4`, as behind a PCI bridge.
fn routes(machine: &Machine, devices: impl IntoIterator<Item = u8>) -> Routes {
    let Some(pci) = &machine.pci else { return Routes::new() };
    let pins = devices.into_iter().flat_map(|device| (0..4).map(move |pin| (device, pin)));
    let line = |(device, pin)| {
        let Interrupt(line) = pci.lines[usize::from(device + pin) % pci.lines.len()];
        Line { pin: line, trigger: Trigger::Level, polarity: Polarity::Low }
    };
    pins.map(|at| (at, line(at))).collect()
}

fn edge(Interrupt(pin): Interrupt) -> Line {
    Line { pin, trigger: Trigger::Edge, polarity: Polarity::High }
}

fn window(range: Range) -> Window {
    Window::new(range.base(), range.size())
}
