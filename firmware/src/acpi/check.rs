// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tables can't say.

use std::collections::HashSet;

use crate::{DeviceError, Machine, Range};

/// Objects of one kind: their names in the DSDT are a letter and three hexadecimal digits.
const MAX_OBJECTS: usize = 0x1000;

/// Configuration space of one bus (PCI Express 5.0, 7.2.2).
const ECAM_SIZE: u64 = 1 << 20;

/// Why there are no tables.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A device has a place or a pool that is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Two CPUs have one identifier.
    #[error("two CPUs have the local APIC identifier {0}")]
    ApicIdTaken(u32),
    /// There are more than names for them.
    #[error("the machine has {number} {what}; the DSDT has names for {MAX_OBJECTS}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many the machine has.
        number: usize,
    },
    /// The MADT has 32 bits for the address.
    #[error("the {what} is at {window}; the MADT can only name addresses below 4 GiB")]
    High {
        /// `I/O APIC` or `local APIC`.
        what: &'static str,
        /// Its window.
        window: Range,
    },
    /// Not the size of one bus's configuration space.
    #[error("PCI configuration space at {0} must have 1 MiB, for one bus")]
    Ecam(Range),
    /// An I/O port descriptor has 16 bits for the address and 8 for the length.
    #[error("the PCI configuration ports {0} must be below 0x10000, and fewer than 256")]
    ConfigPorts(Range),
    /// Too small for the three registers.
    #[error("the sleep registers at {0} must have 3 bytes")]
    SleepWindow(Range),
    /// SLP_TYP is a field of three bits.
    #[error("the sleep type {0} must be one of 0 to 7")]
    SleepType(u8),
    /// The tables can't be there.
    #[error("the ACPI tables can't be at {0:#x}: it must be a multiple of 16, with room after it")]
    Base(u64),
}

/// Fails if the tables can't describe `machine`.
pub(super) fn expressible(machine: &Machine) -> Result<(), Error> {
    for (what, number) in [
        ("CPUs", machine.cpus.len()),
        ("pools", machine.pools.len()),
        ("virtio devices", machine.virtio.len()),
    ] {
        if number > MAX_OBJECTS {
            return Err(Error::TooMany { what, number });
        }
    }
    let mut apic_ids = HashSet::new();
    if let Some(id) = machine.cpus.iter().find(|id| !apic_ids.insert(**id)) {
        return Err(Error::ApicIdTaken(*id));
    }
    let sleep = machine.system.sleep;
    if sleep.window.size() < 3 {
        return Err(Error::SleepWindow(sleep.window));
    }
    if sleep.type_off > 7 {
        return Err(Error::SleepType(sleep.type_off));
    }
    if let Some(host) = machine.pci.filter(|host| host.ecam.size() != ECAM_SIZE) {
        return Err(Error::Ecam(host.ecam));
    }
    Ok(machine.check_devices()?)
}
