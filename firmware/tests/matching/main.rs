// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device tree and ACPI describe the same machine, and it is the one that was put in.
//!
//! Each is decoded by a reader of its own that has no code in common with its generator: the device tree by a crate that
//! had no part in writing it (dt/), AML by ACPICA's disassembler, whose text is parsed here, and the other tables byte by
//! byte after the specification (acpi/). Each comes to the same small model (model.rs), and the models are compared. The
//! readers fail on whatever they do not know: nothing can be said in one form and go unnoticed in the other.

mod acpi;
mod described;
mod dt;
mod machines;
mod model;
mod numbers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cvmm_firmware::{AcpiTable, Machine, acpi_tables, device_tree};
use machines::{any_machine, grid};
use proptest::prelude::*;

/// Where a PC's firmware has its tables.
const TABLES: u64 = 0xe_0000;

fn check(machine: &Machine, tables_at: u64) {
    let blob = device_tree(machine).expect("a device tree");
    let tables = acpi_tables(machine, tables_at).expect("ACPI tables");
    agree(machine, &blob, &tables, tables_at);
}

/// Fails unless both forms say what the description says.
fn agree(machine: &Machine, blob: &[u8], tables: &[AcpiTable], rsdp: u64) {
    let tables: Vec<_> = tables.iter().map(|table| (table.address, table.bytes.as_slice())).collect();
    let (from_dt, dt_only) = dt::read(blob);
    let (from_acpi, acpi_only) = acpi::read(&tables, rsdp);
    assert_eq!(from_dt, from_acpi, "device tree (left), ACPI (right)");
    assert_eq!(from_dt, described::model(machine), "both (left), the description (right)");
    assert_eq!(dt_only, described::dt_only(machine), "device tree (left), the description (right)");
    assert_eq!(acpi_only, described::acpi_only(machine), "ACPI (left), the description (right)");
    from_dt.is_sound(&dt_only.memory);
}

/// Every combination of the number of devices of each kind, transports, CPUs, memory and pools.
#[test]
fn usual_machines_match() {
    let machines = grid();
    let (next, workers) = (AtomicUsize::new(0), thread::available_parallelism().map_or(1, usize::from));
    let work = || {
        while let Some(usual) = machines.get(next.fetch_add(1, Ordering::Relaxed)) {
            let seen = std::panic::catch_unwind(|| check(&usual.machine(), TABLES));
            assert!(seen.is_ok(), "the message above is about {usual:?}");
        }
    };
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_machines_match(machine in any_machine(), tables_at in 0u64..1 << 36) {
        check(&machine, tables_at * 16);
    }
}
