// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of virtio-pci in the BAR of one function, and what the device then does in the pool.

use arbitrary::{Arbitrary, Unstructured};

use super::width::Width;
use crate::driver::{Act, MAX_ACTS, Place, Setup};
use crate::pci_bench::{Bench, ECAM};
use crate::profile::Profile;
use crate::spec::pci::FIELDS;

#[derive(Arbitrary, Debug)]
struct Input {
    profile: Profile,
    accesses: Vec<Access>,
}

#[derive(Arbitrary, Debug)]
enum Access {
    /// Reads in the BAR.
    Read(Structure, u16, Width),
    /// Writes in the BAR.
    Write(Structure, u16, Width, Value),
    /// Writes a field of the common configuration.
    Field(u8, Value),
    /// Puts BAR 2 somewhere.
    Memory(u8),
    /// Command register.
    Command(u16),
    /// Message control of MSI-X: enable, function mask.
    Control(u8),
    /// An entry of the MSI-X table: data, and whether it is masked.
    Entry(u8, Value, u8, bool),
    /// The steps of an initialisation, without one of them.
    Initialise(u16, Setup),
    /// Something in the pool.
    Pool(Act<Vec<u8>>),
}

/// Where structures are in the BAR.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Structure {
    Common,
    Isr,
    Device,
    Notify,
    Table,
    Pending,
    Anywhere,
}

/// What is written.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Small(u8),
    Address(Place),
    Interrupt(u16),
    Any(u64),
}

impl Structure {
    fn offset(self, at: u16) -> u64 {
        let at = u64::from(at);
        match self {
            Self::Common => at % 0x58,
            Self::Isr => 0x1000 + at % 4,
            Self::Device => 0x2000 + at % 0x20,
            Self::Notify => 0x3000 + at % 0x10,
            Self::Table => 0x4000 + at % 0x40,
            Self::Pending => 0x6000 + at % 0x10,
            Self::Anywhere => at % 0x8010,
        }
    }
}

impl Value {
    fn number(self) -> u64 {
        match self {
            Self::Small(value) => value.into(),
            Self::Address(place) => place.address(&[]),
            Self::Interrupt(low) => 0xfee0_0000 + u64::from(low % 0x40) + (u64::from(low >> 15) << 32),
            Self::Any(value) => value,
        }
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let Input { profile, accesses } = input;
    let mut bench = Bench::new(1, profile);
    let (device, bar) = (ECAM + (1 << 15), bench.bar(0));
    for access in accesses.iter().take(MAX_ACTS) {
        match access {
            Access::Read(structure, at, width) => bench.read(bar + structure.offset(*at), width.bytes()),
            Access::Write(structure, at, width, value) => {
                let bytes = [value.number().to_le_bytes(); 3].concat();
                bench.write(bar + structure.offset(*at), &bytes[..width.bytes()]);
            }
            Access::Field(field, value) => {
                let (offset, len) = FIELDS[usize::from(*field) % FIELDS.len()];
                bench.write(bar + offset, &value.number().to_le_bytes()[..len]);
            }
            Access::Memory(slot) => bench.move_memory(i64::from(slot % 20) - 2),
            Access::Command(value) => bench.write(device + 4, &value.to_le_bytes()),
            Access::Control(value) => bench.write(bench.msix_control(0) + 1, &[*value]),
            Access::Entry(vector, address, data, masked) => {
                let at = bar + 0x4000 + 16 * u64::from(*vector % 4);
                bench.write(at, &address.number().to_le_bytes());
                bench.write(at + 8, &[u32::from(*data), u32::from(*masked)].map(u32::to_le_bytes).concat());
            }
            Access::Initialise(steps, setup) => bench.initialise(*steps, *setup),
            Access::Pool(Act::Serve(queue)) => {
                bench.write(bar + 0x3000 + 4 * u64::from(*queue % 3), &[0, 0]);
            }
            Access::Pool(act) => bench.driver.act(&mut bench.pool, act),
        }
    }
}
