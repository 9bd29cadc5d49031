// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device tree says what the machine is, in the words of the published schemas.
//!
//! The blob is read by a crate that had no part in writing it, rule by rule (rules/), for a grid of usual machines and
//! for random ones. Numbers are compared with the machine that was put in.

mod dtc;
mod machines;
mod rules;
mod tree;

use cvmm_firmware::{Machine, device_tree};
use dtoolkit::fdt::Fdt;
use machines::{any_machine, grid, machine};
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
    every_device_names_the_pool_that_it_is_bound_to: memory::device_pool;
    every_interrupt_is_a_pin_of_its_own: devices::every_interrupt_is_a_pin_of_its_own;
    io_apic_follows_its_schema: processors::io_apic;
    local_apic_follows_its_schema: processors::local_apic;
    memory_nodes_follow_their_schema: memory::memory_nodes;
    names_are_well_formed: structure::names;
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
    virtio_devices_follow_their_schema: devices::virtio_devices;
    virtio_devices_keep_their_order: devices::virtio_devices_keep_their_order;
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
    let mut machine = machine(1, 1, false, 1);
    machine.bootargs = "console=ttyS0\0panic=-1".to_owned();
    assert!(device_tree(&machine).is_err());
}

/// Linux ignores a `memory-region` that leads nowhere, and gives the device any memory.
#[test]
fn a_device_without_a_pool_is_refused() {
    let mut machine = machine(1, 1, false, 1);
    machine.virtio[0].pool = cvmm_firmware::PoolId(1);
    assert!(device_tree(&machine).is_err());
}
