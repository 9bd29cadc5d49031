// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Configuration space by memory and by ports, BARs that move, the access capability and MSI-X, of two functions.

use arbitrary::{Arbitrary, Unstructured};

use super::width::Width;
use crate::driver::{MAX_ACTS, Setup};
use crate::pci_bench::{Bench, ECAM};
use crate::profile::Profile;

const FUNCTIONS: u8 = 2;

#[derive(Arbitrary, Debug)]
enum Access {
    /// Reads somewhere.
    Read(Place, Width),
    /// Writes something somewhere.
    Write(Place, Width, Value),
    /// Reads a port.
    ReadPort(u8, Width),
    /// Writes a port.
    WritePort(u8, Width, Value),
    /// Puts a BAR somewhere: function, where, command register.
    Move(u8, Value, u8),
    /// An entry of the MSI-X table: function, vector, address, masked; and message control.
    Entry(u8, u8, Value, bool, u8),
    /// An access by the access capability: offset in the BAR, length, value; or a read.
    Capability(u8, u16, u8, Option<u32>),
    /// The steps of an initialisation, without one of them.
    Initialise(u16, u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    /// Configuration space of a device.
    Config(u8, u8),
    /// ... and beyond.
    Ecam(u32),
    /// A BAR.
    Bar(u8, u16),
    /// Anywhere.
    Any(u64),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Small(u8),
    /// A configuration address.
    Address(u8, u8),
    /// Where BARs could be.
    Bar(u8),
    Interrupt(u16),
    Ones,
    Any(u64),
}

impl Place {
    fn address(self, bench: &Bench) -> u64 {
        match self {
            Self::Config(device, register) => {
                ECAM + (u64::from(device % (FUNCTIONS + 2)) << 15) + u64::from(register)
            }
            Self::Ecam(offset) => ECAM + u64::from(offset % (1 << 20)) + u64::from(offset >> 30),
            Self::Bar(function, offset) => {
                bench.bar(usize::from(function % FUNCTIONS)).wrapping_add(u64::from(offset % 0x8010))
            }
            Self::Any(address) => address,
        }
    }
}

impl Value {
    fn number(self) -> u64 {
        match self {
            Self::Small(value) => value.into(),
            Self::Address(device, register) => {
                1 << 31 | u64::from(device % (FUNCTIONS + 2)) << 11 | u64::from(register)
            }
            Self::Bar(slot) => 0xdff8_0000 + 0x8000 * u64::from(slot % 0x40),
            Self::Interrupt(low) => 0xfee0_0000 + u64::from(low % 0x40) + (u64::from(low >> 15) << 32),
            Self::Ones => u64::MAX,
            Self::Any(value) => value,
        }
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(accesses) = Vec::<Access>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut bench = Bench::new(FUNCTIONS, Profile::Upstream);
    for access in accesses.iter().take(MAX_ACTS) {
        let bytes = |value: &Value, width: &Width| {
            [value.number().to_le_bytes(); 3].concat()[..width.bytes()].to_vec()
        };
        let device = |function: &u8| ECAM + (u64::from(function % FUNCTIONS + 1) << 15);
        match access {
            Access::Read(place, width) => bench.read(place.address(&bench), width.bytes()),
            Access::Write(place, width, value) => {
                bench.write(place.address(&bench), &bytes(value, width));
            }
            Access::ReadPort(port, width) => bench.read_port(u64::from(*port % 10), width.bytes()),
            Access::WritePort(port, width, value) => {
                bench.write_port(u64::from(*port % 10), &bytes(value, width));
            }
            Access::Move(function, to, command) => {
                let [low, high] = split(to.number());
                bench.write(device(function) + 0x10, &low);
                bench.write(device(function) + 0x14, &high);
                bench.write(device(function) + 4, &[*command]);
            }
            Access::Entry(function, vector, address, masked, control) => {
                let at = bench.bar(usize::from(function % FUNCTIONS)).wrapping_add(0x4000);
                let at = at.wrapping_add(16 * u64::from(*vector % 4));
                bench.write(at, &address.number().to_le_bytes());
                bench.write(at.wrapping_add(12), &[u8::from(*masked), 0, 0, 0]);
                bench.write(bench.msix_control(function % FUNCTIONS) + 1, &[*control]);
            }
            Access::Capability(function, offset, len, value) => {
                let at = bench.access_capability(function % FUNCTIONS);
                bench.write(at + 8, &u32::from(*offset).to_le_bytes());
                bench.write(at + 12, &u32::from(*len % 8).to_le_bytes());
                match value {
                    Some(value) => bench.write(at + 16, &value.to_le_bytes()),
                    None => bench.read(at + 16, 4),
                }
            }
            Access::Initialise(steps, size) => bench.initialise(*steps, Setup::Good(*size)),
        }
    }
}

fn split(value: u64) -> [[u8; 4]; 2] {
    [0, 1].map(|select| crate::spec::core::half(value, select).to_le_bytes())
}
