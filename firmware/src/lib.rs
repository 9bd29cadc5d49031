// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine description and what a guest is told about it.
//!
//! [`Machine`] is built once, from the command line and the architecture's layout. Everything else reads it: the
//! device tree, the buses, the interrupt routes. Nothing is described twice, so nothing can disagree.
//!
//! This crate is pure: it knows neither KVM nor files nor threads.

#![forbid(unsafe_code)]

/// The property of a pool, in a device tree and in `_DSD`, that makes it the pool of every device that names none
/// (four-step plan, 1). Linux 6.12 does not know it on a restricted pool: it rejects the pool and gives its memory away.
const DMA_DEFAULT: &str = "linux,dma-default";

mod acpi;
mod fdt;
mod machine;
mod range;

pub use acpi::{Error as AcpiError, Table as AcpiTable, acpi_tables, acpi_tables_with_dsdt};
pub use fdt::{Error as FdtError, device_tree};
pub use machine::{
    Binding, DeviceError, Interrupt, IoApic, Machine, PciHost, Pool, PoolId, SleepRegisters, SystemDevices,
    Transport, VirtioDevice,
};
pub use range::Range;
