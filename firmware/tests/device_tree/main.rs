// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device tree says what the machine is, in the words of the published schemas.
//!
//! The blob is read by a crate that had no part in writing it, rule by rule (rules/), for a grid of usual machines and
//! for random ones. Numbers are compared with the machine that was put in.

#[path = "../common/mod.rs"]
mod common;
mod dtc;
mod rules;
mod tree;

use common::any::any_machine;
use common::usual::{Bus, grid, machine};
use cvmm_firmware::{Binding, DeviceError, FdtError, Machine, PoolId, Range, Transport, device_tree};
use dtoolkit::fdt::Fdt;
use proptest::prelude::*;

fn check(machine: &Machine, rules: &[rules::Rule]) {
    let blob = device_tree(machine).expect("every machine can be described");
    let fdt = Fdt::new(&blob).expect("a well-formed blob");
    for rule in rules {
        rule(&fdt, machine);
    }
}

/// A test for each rule: it holds for every machine of the grid.
macro_rules! over_the_grid {
    ($($name:ident: $module:ident::$rule:ident;)*) => {$(
        #[test]
        fn $name() {
            for machine in &grid() {
                check(machine, &[rules::$module::$rule]);
            }
        }
    )*

        #[test]
        fn every_rule_has_a_test_of_its_own() {
            assert_eq!(rules::ALL.len(), [$(stringify!($name)),*].len());
        }
    };
}

over_the_grid! {
    chosen_has_the_command_line: structure::chosen;
    cpus_have_their_apic_identifiers: processors::cpus;
    every_pci_function_has_its_address: pci::functions;
    every_device_names_the_pool_that_it_is_bound_to: memory::device_pool;
    every_interrupt_is_a_pin_of_its_own: devices::every_interrupt_is_a_pin_of_its_own;
    io_apic_follows_its_schema: processors::io_apic;
    local_apic_follows_its_schema: processors::local_apic;
    memory_nodes_follow_their_schema: memory::memory_nodes;
    names_are_well_formed: structure::names;
    pci_host_bridge_follows_its_schema: pci::host_bridge;
    pci_interrupts_go_where_the_machine_says: pci::interrupts;
    pci_memory_is_the_machine_s_window: pci::memory_window;
    phandles_are_unique: structure::phandles;
    pools_are_in_memory_and_apart: memory::pools_are_in_memory;
    pools_follow_their_schema: memory::pools;
    power_off_follows_its_schema: power::power_off;
    power_register_follows_its_schema: power::register;
    pvpanic_follows_its_schema: devices::pvpanic;
    reboot_follows_its_schema: power::reboot;
    reserved_memory_is_one_that_linux_accepts: memory::reserved_memory_parent;
    root_follows_its_schema: structure::root;
    stdout_path_is_the_uart: structure::standard_output;
    the_header_is_of_version_17: structure::header;
    the_header_names_the_boot_cpu: structure::boot_cpu;
    uart_follows_its_schema: devices::uart;
    unit_addresses_are_those_of_reg: structure::unit_addresses;
    virtio_mmio_devices_follow_their_schema: devices::virtio_mmio_devices;
    virtio_mmio_devices_keep_their_order: devices::virtio_mmio_devices_keep_their_order;
    windows_are_apart: devices::windows_are_apart;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_rule_holds_for_any_machine(machine in any_machine()) {
        check(&machine, rules::ALL);
    }
}

/// A string ends at its first NUL: the rest of a command line would be lost without a word.
#[test]
fn a_command_line_with_a_nul_is_refused() {
    let mut machine = machine(1, Bus::Mmio, 1, false, 1);
    machine.bootargs = "console=ttyS0\0panic=-1".to_owned();
    assert!(matches!(device_tree(&machine), Err(FdtError::Write(_))));
}

/// Linux ignores a `memory-region` that leads nowhere, and gives the device any memory.
#[test]
fn a_device_without_a_pool_is_refused() {
    for bus in [Bus::Mmio, Bus::Pci] {
        let mut machine = machine(1, bus, 1, false, 1);
        machine.virtio[0].pool = PoolId(1);
        assert!(
            matches!(device_tree(&machine), Err(FdtError::Device(DeviceError::NoSuchPool(name))) if name == "blk0")
        );
    }
}

/// One byte in two pools is one too many.
#[test]
fn pools_that_overlap_are_refused() {
    let mut machine = machine(1, Bus::Mmio, 1, false, 2);
    let (base, size) = (machine.pools[0].range.base(), machine.pools[0].range.size());
    machine.pools[1].range = Range::fixed(base + size, size);
    assert!(device_tree(&machine).is_ok());
    machine.pools[1].range = Range::fixed(base + size - 1, size);
    assert!(matches!(device_tree(&machine), Err(FdtError::Device(DeviceError::PoolsOverlap(..)))));
}

/// A guest would find no pool for the device, or could take either.
#[test]
fn a_default_pool_that_is_none_or_not_the_only_one_is_refused() {
    let mut machine = machine(1, Bus::Mmio, 1, false, 3);
    machine.virtio[0].binding = Binding::Default;
    assert!(
        matches!(device_tree(&machine), Err(FdtError::Device(DeviceError::NotDefault(name))) if name == "blk0")
    );
    machine.virtio[0].pool = PoolId(1);
    assert!(device_tree(&machine).is_ok());
    machine.pools[2].dma_default = true;
    assert!(
        matches!(device_tree(&machine), Err(FdtError::Device(DeviceError::TwoDefaults(name))) if name == "pool2")
    );
}

/// RFC of April 2025, 3/3: the device says so itself, in its configuration space. On mmio there is nothing that could.
#[test]
fn a_device_with_memory_of_its_own_names_no_pool() {
    let mut machine = machine(4, Bus::Both, 1, false, 2);
    let bar = Range::fixed(0xc280_0000, 0x20_0000);
    machine.virtio[1].binding = Binding::OnDevice(bar);
    check(&machine, rules::ALL);
    machine.virtio[0].binding = Binding::OnDevice(bar);
    assert!(
        matches!(device_tree(&machine), Err(FdtError::Device(DeviceError::NoBar(name))) if name == "blk0")
    );
}

#[test]
fn a_pci_device_without_a_place_of_its_own_is_refused() {
    let mut machine = machine(2, Bus::Pci, 1, false, 1);
    let Transport::Pci { device: other, bar } = machine.virtio[0].transport else { panic!("it is on PCI") };
    let mut place = |device| {
        machine.virtio[1].transport = Transport::Pci { device, bar };
        device_tree(&machine)
    };
    for number in [0, 32, 255] {
        let refused = place(number);
        assert!(
            matches!(refused, Err(FdtError::Device(DeviceError::PciDeviceNumber { number: n, .. })) if n == number),
            "{number}"
        );
    }
    assert!(
        matches!(place(other), Err(FdtError::Device(DeviceError::PciDeviceTaken { device, .. })) if device == "blk1")
    );
    assert!(place(1).is_ok());
    machine.pci = None;
    assert!(
        matches!(device_tree(&machine), Err(FdtError::Device(DeviceError::NoPciHost(name))) if name == "blk0")
    );
}

/// The rules hold for it: the address space on the bus is that of 64 bits.
#[test]
fn a_pci_window_may_lie_across_4_gib() {
    for window in [Range::fixed(0xff00_0000, 0x100_0000), Range::fixed(0xff00_0000, 0x200_0000)] {
        let mut machine = machine(2, Bus::Pci, 1, false, 1);
        machine.pci.as_mut().expect("there is a host bridge").memory = window;
        check(&machine, rules::ALL);
    }
}
