// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A virtio-pci function, through the configuration ports (PCI 3.0, 3.2.2.3.2) and its capabilities (virtio 1.3, 4.1.4).

use super::Hardware;
use super::device::{Device, Pci};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// Offsets in configuration space.
const ID: u32 = 0x00;
const COMMAND: u32 = 0x04;
const BAR0: u32 = 0x10;
const BAR2: u32 = 0x18;
const CAPABILITIES: u32 = 0x34;
/// Memory and bus mastering.
const MEMORY_AND_MASTER: u32 = 6;
const VENDOR_SPECIFIC: u32 = 9;
const MSIX: u32 = 0x11;
/// Message control (PCI 3.0, 6.8.2.3), in the upper half of the capability's first register.
const MSIX_ENABLE: u32 = 1 << 31;

/// Registers of configuration space, by the function's address: its bits 8 and up are bus, device, function.
fn read(hardware: Hardware, function: u32, offset: u32) -> u32 {
    hardware.port_write(ADDRESS, ENABLE | function | offset);
    hardware.port_read(DATA)
}

fn write(hardware: Hardware, function: u32, offset: u32, value: u32) {
    hardware.port_write(ADDRESS, ENABLE | function | offset);
    hardware.port_write(DATA, value);
}

/// Switches a function on and finds its structures. cvmm has set its BARs. Its pool is `pool`, or its own memory.
pub(super) fn device(hardware: Hardware, function: u32, mut pool: Option<(u64, u64)>) -> Option<Device> {
    let function = function & 0xff_ff00;
    let id = (read(hardware, function, ID) >> 16).checked_sub(0x1040)?;
    write(hardware, function, COMMAND, MEMORY_AND_MASTER);
    let low = read(hardware, function, BAR0) & !0xf;
    let bar = u64::from(low) | u64::from(read(hardware, function, BAR0 + 4)) << 32;
    let mut pci = Pci { function, ..Pci::default() };
    let mut at = read(hardware, function, CAPABILITIES) & 0xff;
    while at != 0 {
        let head = read(hardware, function, at);
        if head & 0xff == VENDOR_SPECIFIC {
            let place = bar + u64::from(read(hardware, function, at + 8));
            match head >> 24 {
                1 => pci.common = place,
                2 => (pci.notify, pci.multiplier) = (place, read(hardware, function, at + 16)),
                3 => pci.isr = place,
                4 => pci.config = place,
                // VIRTIO_PCI_CAP_SWIOTLB (RFC of April 2025, 3/3), in BAR 2.
                10 => {
                    let memory = u64::from(read(hardware, function, BAR2) & !0xf)
                        | u64::from(read(hardware, function, BAR2 + 4)) << 32;
                    pool = Some((memory, memory + u64::from(read(hardware, function, at + 12))));
                }
                _ => {}
            }
        }
        if head & 0xff == MSIX {
            // Both are in BAR 0, which is their low bits; the table's size is one less than it says.
            (pci.msix, pci.vectors) = (at, u64::from(head >> 16 & 0x7ff) + 1);
            pci.table = bar + u64::from(read(hardware, function, at + 4));
            pci.pending = bar + u64::from(read(hardware, function, at + 8));
        }
        at = head >> 8 & 0xff;
    }
    Some(Device::pci(hardware, bar, id, pool?, pci))
}

/// Vendor and device ID.
pub(super) fn identity(hardware: Hardware, pci: &Pci) -> u32 {
    read(hardware, pci.function, ID)
}

/// Switches MSI-X on or off.
pub(super) fn enable_msix(hardware: Hardware, pci: &Pci, on: bool) {
    let control = read(hardware, pci.function, pci.msix) & !MSIX_ENABLE;
    write(hardware, pci.function, pci.msix, control | if on { MSIX_ENABLE } else { 0 });
}

/// Points BAR 2 at `address`, with decoding off until it is there.
pub(super) fn move_memory(hardware: Hardware, pci: &Pci, address: u64) {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    write(hardware, pci.function, COMMAND, 0);
    write(hardware, pci.function, BAR2, u32::from_le_bytes([a, b, c, d]));
    write(hardware, pci.function, BAR2 + 4, u32::from_le_bytes([e, f, g, h]));
    write(hardware, pci.function, COMMAND, MEMORY_AND_MASTER);
}

/// Writes the command register.
pub(super) fn set_command(hardware: Hardware, pci: &Pci, command: u32) {
    write(hardware, pci.function, COMMAND, command);
}

/// Points BAR 0 at `address`, while memory decoding is off and then on again, as a driver does, or with it on.
pub(super) fn move_bar(hardware: Hardware, pci: &Pci, address: u64, decoding: bool) {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    if !decoding {
        write(hardware, pci.function, COMMAND, 0);
    }
    write(hardware, pci.function, BAR0, u32::from_le_bytes([a, b, c, d]));
    write(hardware, pci.function, BAR0 + 4, u32::from_le_bytes([e, f, g, h]));
    write(hardware, pci.function, COMMAND, MEMORY_AND_MASTER);
}
