// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ACPI tables say what the machine is, in the words of ACPI 6.5.
//!
//! The tables of fixed form are read by the offsets of the specification, from the RSDP on, as a guest does (rules.rs).
//! AML is judged by iasl: it understands every table, and writes the same bytes from the text of a DSDT (iasl.rs,
//! example.asl).

#[path = "../common/mod.rs"]
mod common;
mod guest;
mod iasl;
mod refused;
mod rules;

use common::any::any_machine;
use common::usual::grid;
use cvmm_firmware::Machine;
use guest::Guest;
use proptest::prelude::*;

fn check(machine: &Machine, rules: &[rules::Rule]) {
    let guest = Guest::new(machine);
    for rule in rules {
        rule(&guest, machine);
    }
}

/// A test for each rule: it holds for every machine of the grid.
macro_rules! over_the_grid {
    ($($name:ident: $rule:ident;)*) => {$(
        #[test]
        fn $name() {
            for machine in &grid() {
                check(machine, &[rules::$rule]);
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
    every_table_adds_up: sums;
    every_table_is_reached_from_the_rsdp: reached;
    every_table_says_what_it_is: headers;
    fadt_has_no_legacy_hardware: fadt_rest;
    fadt_is_hardware_reduced: fadt_flags;
    fadt_names_the_sleep_registers: fadt_registers;
    madt_has_the_cpus_and_the_io_apic: madt;
    mcfg_has_the_one_bus: mcfg;
    rsdp_is_of_revision_2: rsdp;
    spcr_is_the_uart: spcr;
    tables_are_apart: apart;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_rule_holds_for_any_machine(machine in any_machine()) {
        check(&machine, rules::ALL);
    }

    #[test]
    fn the_tables_can_be_anywhere(machine in any_machine(), base in 0..u64::MAX >> 8) {
        let guest = Guest::at(&machine, base * 16);
        prop_assert_eq!(guest.written()[0].address, base * 16);
        rules::apart(&guest, &machine);
        rules::reached(&guest, &machine);
        rules::sums(&guest, &machine);
    }
}
