// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the published schemas, the Devicetree Specification and Linux ask of the tree. One function, one rule: it takes
//! the tree and the machine that it must describe, and panics if the rule is broken.

pub mod devices;
pub mod memory;
pub mod pci;
pub mod power;
pub mod processors;
pub mod structure;

use cvmm_firmware::Machine;
use dtoolkit::fdt::Fdt;

/// A rule.
pub type Rule = fn(&Fdt, &Machine);

/// Every rule.
pub const ALL: &[Rule] = &[
    devices::pvpanic,
    devices::uart,
    devices::virtio_mmio_devices,
    devices::virtio_mmio_devices_keep_their_order,
    devices::every_interrupt_is_a_pin_of_its_own,
    devices::windows_are_apart,
    memory::device_pool,
    memory::memory_nodes,
    memory::pools,
    memory::pools_are_in_memory,
    memory::reserved_memory_parent,
    pci::functions,
    pci::host_bridge,
    pci::interrupts,
    pci::memory_window,
    power::power_off,
    power::reboot,
    power::register,
    processors::cpus,
    processors::io_apic,
    processors::local_apic,
    structure::boot_cpu,
    structure::chosen,
    structure::header,
    structure::names,
    structure::phandles,
    structure::root,
    structure::standard_output,
    structure::unit_addresses,
];
