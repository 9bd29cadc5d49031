// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fuzz targets. Each is a function in [`targets`] that any bytes can be given to, and that panics if cvmm does what it
//! must not. The same functions run on the stored corpus in an ordinary test (tests/corpus.rs), and under libFuzzer
//! (fuzz_targets/, `cargo lab fuzz`).
//!
//! A target compares cvmm with a [model](spec) that is written from the specifications: what it does must be what the model
//! says, to the last byte of the pool. So it finds what is wrong, and not only what crashes.

#![allow(clippy::duplicate_mod)] // The readers of tables that are data, once more without the one that calls iasl.

pub mod driver;
pub mod echo;
pub mod memory;
pub mod pci_bench;
pub mod profile;
pub mod session;
pub mod spec;
pub mod targets;

// Random machines, and the readers of what they are told: those of firmware/tests/matching, which expect to be at the
// root of a crate.
#[path = "../../../firmware/tests/matching/acpi/mod.rs"]
#[allow(dead_code, missing_docs, missing_debug_implementations)]
pub mod acpi;
#[path = "../../../firmware/tests/matching/acpi/bytes.rs"]
#[allow(dead_code, missing_docs, missing_debug_implementations)]
pub mod bytes;
#[path = "../../../firmware/tests/matching/described.rs"]
#[allow(dead_code, missing_docs, missing_debug_implementations)]
pub mod described;
#[path = "../../../firmware/tests/matching/dt/mod.rs"]
#[allow(dead_code, missing_docs, missing_debug_implementations)]
pub mod dt;
#[path = "../../../firmware/tests/matching/machines.rs"]
#[allow(dead_code, missing_docs, missing_debug_implementations)]
pub mod machines;
#[path = "../../../firmware/tests/matching/model.rs"]
#[allow(dead_code, missing_docs, missing_debug_implementations)]
pub mod model;
#[path = "../../../firmware/tests/matching/acpi/tables.rs"]
#[allow(dead_code, missing_docs, missing_debug_implementations)]
pub mod tables;

/// A target runs one input.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("chain", targets::chain::run),
    ("blk", targets::blk::run),
    ("net", targets::net::run),
    ("mmio", targets::mmio::run),
    ("pci", targets::pci::run),
    ("pci_config", targets::pci_config::run),
    ("loader", targets::loader::run),
    ("options", targets::options::run),
    ("machine", targets::machine::run),
];
