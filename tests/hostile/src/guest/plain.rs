// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine that no device tree describes: other VMMs name their virtio-mmio devices on the command line, as Linux takes
//! them (`virtio_mmio.device=SIZE@ADDRESS:IRQ`, Linux, Documentation/admin-guide/kernel-parameters.txt). There is no pool
//! then: all of memory is the devices', and a part of it is used like one.

use super::Hardware;
use super::device::Device;
use super::machine::{MAX_DEVICES, Machine};

/// What a PVH start info begins with, and the offset of its command line's address (Xen, public/arch-x86/hvm/start_info.h).
const PVH_MAGIC: u32 = 0x336e_c578;
const PVH_COMMAND_LINE: u64 = 24;
/// `cmd_line_ptr` of the zero page (boot.rst).
const COMMAND_LINE: u64 = 0x228;
/// The first serial port of a PC.
pub(super) const COM1: u16 = 0x3f8;
/// What is used like a pool: the guest has as much, and nothing else is there.
const POOL: (u64, u64) = (32 << 20, 64 << 20);
/// Longer than any command line.
const MOST: u64 = 4096;

/// Whether a PVH start info is there, and no zero page.
pub(super) fn is_pvh(hardware: Hardware, start: u64) -> bool {
    hardware.read::<u32>(start) == PVH_MAGIC
}

/// The machine of a command line that names devices.
pub(super) fn find(hardware: Hardware, start: u64, program: (u64, u64)) -> Option<Machine> {
    let at = if is_pvh(hardware, start) {
        hardware.read::<u64>(start + PVH_COMMAND_LINE)
    } else {
        u64::from(hardware.read::<u32>(start + COMMAND_LINE))
    };
    let length = (0..MOST).find(|offset| hardware.read::<u8>(at + offset) == 0)?;
    let command_line = core::str::from_utf8(hardware.bytes(at, usize::try_from(length).ok()?)).ok()?;
    let mut machine = Machine {
        hardware,
        uart: 0,
        power_off: (0, 0),
        program,
        memory_end: POOL.1,
        command_line,
        devices: [const { None }; MAX_DEVICES],
    };
    let named = command_line.split(' ').filter_map(registers);
    machine
        .devices
        .iter_mut()
        .zip(named)
        .for_each(|(device, at)| *device = Some(Device::mmio(hardware, at, POOL)));
    machine.devices[0].is_some().then_some(machine)
}

/// Where the registers of the device are that a word names.
fn registers(word: &str) -> Option<u64> {
    let (_, place) = word.strip_prefix("virtio_mmio.device=")?.split_once('@')?;
    let (address, _) = place.split_once(':')?;
    u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()
}
