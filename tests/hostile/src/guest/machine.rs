// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine as the device tree describes it, or the command line ([`plain`]).

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

use super::device::Device;
use super::uart::{Registers, Uart};
use super::{Hardware, pci, plain};

/// More devices than a machine has.
pub(super) const MAX_DEVICES: usize = 96;

/// What the guest needs to know.
#[derive(Debug)]
pub struct Machine {
    /// The memory and the ports.
    pub hardware: Hardware,
    /// Registers of the UART; 0 where they are ports.
    pub uart: u64,
    /// The register that powers off, and the value that does it; 0 where there is none.
    pub power_off: (u64, u32),
    /// Where this program is: its first byte, and the one after its last.
    pub program: (u64, u64),
    /// The end of RAM.
    pub memory_end: u64,
    pub(super) command_line: &'static str,
    pub(super) devices: [Option<Device>; MAX_DEVICES],
}

/// Offset of `setup_data` in the zero page (boot.rst), and of its fields.
const SETUP_DATA: u64 = 0x250;
const SETUP_DTB: u32 = 2;

impl Machine {
    /// The machine whose zero page, or PVH start info, this is.
    #[must_use]
    pub fn find(hardware: Hardware, start: u64, program: (u64, u64)) -> Option<Self> {
        if plain::is_pvh(hardware, start) {
            return plain::find(hardware, start, program);
        }
        Self::by_tree(hardware, start, program).or_else(|| plain::find(hardware, start, program))
    }

    /// Reads the tree that the zero page leads to.
    fn by_tree(hardware: Hardware, zero_page: u64, program: (u64, u64)) -> Option<Self> {
        let mut data: u64 = hardware.read(zero_page + SETUP_DATA);
        while data != 0 && hardware.read::<u32>(data + 8) != SETUP_DTB {
            data = hardware.read(data);
        }
        if data == 0 {
            return None;
        }
        let length = usize::try_from(hardware.read::<u32>(data + 12)).ok()?;
        let fdt = Fdt::new(hardware.bytes(data + 16, length)).ok()?;
        let root = fdt.root();
        let chosen = fdt.find_node("/chosen")?;
        let reserved = fdt.find_node("/reserved-memory")?;
        // First byte, and the one after the last, of the pool that a device names.
        let pool = |device: &FdtNode<'static>| {
            let phandle = cell(device, "memory-region")?;
            let (base, size) =
                reg(&reserved.children().find(|pool| cell(pool, "phandle") == Some(phandle))?)?;
            Some((base, base + size))
        };
        let (memory, memory_size) = find(&root, "memory").and_then(|node| reg(&node))?;
        let mut machine = Self {
            hardware,
            uart: reg(&find(&root, "serial")?)?.0,
            power_off: (reg(&find(&root, "syscon")?)?.0, cell(&find(&root, "poweroff")?, "value")?),
            program,
            memory_end: memory + memory_size,
            command_line: chosen.property("bootargs")?.value_as::<&str>().ok()?,
            devices: [const { None }; MAX_DEVICES],
        };
        let mut devices = machine.devices.iter_mut();
        for node in root.children().filter(|node| node.name_without_address() == "virtio") {
            *devices.next()? = Some(Device::mmio(hardware, reg(&node)?.0, pool(&node)?));
        }
        if let Some(host) = find(&root, "pci") {
            for node in host.children() {
                *devices.next()? = Some(pci::device(hardware, cell(&node, "reg")?, pool(&node))?);
            }
        }
        Some(machine)
    }

    /// The console.
    #[must_use]
    pub fn console(&self) -> Uart {
        let ports = Registers::Ports(plain::COM1);
        Uart::new(self.hardware, if self.uart == 0 { ports } else { Registers::Memory(self.uart) })
    }

    /// What the command line says after `name=`.
    pub fn scenario(&self, name: &str) -> Option<&'static str> {
        self.command_line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// All virtio devices, in the order of the tree.
    pub fn devices(&self) -> impl Iterator<Item = Device> {
        self.devices.iter().copied().flatten()
    }
}

fn find(parent: &FdtNode<'static>, name: &str) -> Option<FdtNode<'static>> {
    parent.children().find(|node| node.name_without_address() == name)
}

/// Address and size, of two cells each.
fn reg(node: &FdtNode<'_>) -> Option<(u64, u64)> {
    let reg = node.property("reg")?;
    let (address, size) = reg.value().split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*address), u64::from_be_bytes(*size.first_chunk()?)))
}

/// The first cell of a property.
fn cell(node: &FdtNode<'_>, name: &str) -> Option<u32> {
    node.property(name)?.value().first_chunk().copied().map(u32::from_be_bytes)
}
