// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest-physical map of a machine as a list: what is where, without a gap.

use std::borrow::Cow;

use cvmm_firmware::{Machine, PoolId, Range, Transport, VirtioDevice};

use crate::machine::memory_name;

/// Gaps smaller than this are no holes: they are the rest of a page.
pub(super) const PAGE: u64 = 4096;

/// Device windows are below, whatever RAM there is.
const FOUR_GIB: u64 = 4 << 30;

/// Part of the guest-physical address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) range: Range,
    pub(super) class: Class,
    /// `blk0`.
    pub(super) name: String,
    /// More than its name says.
    pub(super) detail: String,
}

/// What lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// RAM that no device reaches.
    Private,
    /// Memory that devices reach: its number in [`reachable`].
    Pool(PoolId),
    /// Registers of a virtio device, and what it can reach.
    Device(PoolId),
    /// Registers of another device.
    System,
    /// Where a BAR could be.
    Free,
    /// Nothing.
    Hole,
}

/// What is where, in ascending order, up to the end of RAM or 4 GiB. `tables` is where ACPI tables are.
pub(super) fn map(machine: &Machine, tables: Option<Range>) -> Vec<Block> {
    let system = &machine.system;
    let mut blocks = vec![
        Block::system(system.uart.0, "UART", format!("16550, interrupt {}", system.uart.1.0)),
        Block::system(system.power, "power control", String::new()),
        Block::system(system.sleep.window, "sleep registers", "ACPI power off and reset".into()),
        Block::system(system.pvpanic, "pvpanic", String::new()),
        Block::system(machine.io_apic.window, "I/O APIC", format!("{} pins", machine.io_apic.pins)),
        Block::system(machine.local_apic, "local APICs", "of all CPUs, each sees its own".into()),
    ];
    for ram in &machine.memory {
        blocks.extend(fill(*ram, in_memory(machine, tables, ram), |range| {
            Block::new(range, Class::Private, "private memory", "no device reaches it".into())
        }));
    }
    let (on_pci, on_mmio): (Vec<_>, Vec<_>) =
        machine.virtio.iter().partition(|device| matches!(device.transport, Transport::Pci { .. }));
    blocks.extend(on_mmio.into_iter().map(|device| Block::device(machine, device)));
    if let Some(pci) = machine.pci {
        blocks.push(Block::system(pci.ecam, "PCI configuration", "ECAM, bus 0".into()));
        let mut bars: Vec<_> = on_pci.iter().map(|device| Block::device(machine, device)).collect();
        bars.extend(on_pci.iter().filter_map(|device| Block::own_memory(machine, device)));
        blocks.extend(fill(pci.memory, bars, |range| {
            Block::new(range, Class::Free, "PCI memory window", "free for BARs".into())
        }));
    }
    let end = blocks.iter().map(|block| block.range.end()).fold(FOUR_GIB, u64::max);
    let hole = |range| Block::new(range, Class::Hole, "hole", String::new());
    let mut map = Range::from_bounds(0, end).map_or_else(Vec::new, |all| fill(all, blocks, hole));
    map.retain(|block| block.class != Class::Hole || block.range.size() >= PAGE);
    map
}

/// The names of all that devices reach: the machine's pools, then the memory of each device that has its own.
pub(super) fn reachable(machine: &Machine) -> Vec<Cow<'_, str>> {
    let pools = machine.pools.iter().map(|pool| pool.name.as_str().into());
    let own = machine.virtio.iter().filter(|device| device.own_memory().is_some());
    pools.chain(own.map(|device| memory_name(device).into())).collect()
}

/// Which of these `device` reaches.
fn reach(machine: &Machine, device: &VirtioDevice) -> PoolId {
    let own = machine.virtio.iter().filter_map(VirtioDevice::own_memory);
    let number = device.own_memory().and_then(|memory| own.clone().position(|other| other == memory));
    let number = number.and_then(|number| u16::try_from(machine.pools.len() + number).ok());
    number.map_or(device.pool, PoolId)
}

/// What is in `ram` beside the guest's own.
fn in_memory(machine: &Machine, tables: Option<Range>, ram: &Range) -> Vec<Block> {
    let pools = (0..).zip(&machine.pools).map(|(index, pool)| {
        let default = if pool.dma_default { ", linux,dma-default" } else { "" };
        let detail = format!("restricted-dma-pool{default}");
        Block::new(pool.range, Class::Pool(PoolId(index)), &pool.name, detail)
    });
    let tables = tables
        .map(|range| Block::new(range, Class::Private, "ACPI tables", "in private memory, reserved".into()));
    pools.chain(tables).filter(|block| ram.contains(&block.range)).collect()
}

/// `blocks` in ascending order, and what `rest` makes of the gaps that they leave in `all`.
fn fill(all: Range, mut blocks: Vec<Block>, rest: impl Fn(Range) -> Block) -> Vec<Block> {
    blocks.sort_by_key(|block| block.range);
    let mut filled = Vec::new();
    let mut from = all.base();
    for block in blocks {
        filled.extend(Range::from_bounds(from, block.range.base()).map(&rest));
        from = block.range.end();
        filled.push(block);
    }
    filled.extend(Range::from_bounds(from, all.end()).map(&rest));
    filled
}

impl Block {
    fn new(range: Range, class: Class, name: &str, detail: String) -> Self {
        Self { range, class, name: name.into(), detail }
    }

    fn system(range: Range, name: &str, detail: String) -> Self {
        Self::new(range, Class::System, name, detail)
    }

    fn device(machine: &Machine, device: &VirtioDevice) -> Self {
        let (range, detail) = match device.transport {
            Transport::Mmio { window, interrupt } => {
                (window, format!("virtio-mmio, interrupt {}", interrupt.0))
            }
            Transport::Pci { device, bar } => {
                let line = machine.pci.map(|pci| pci.interrupt(device, 0).0);
                let line = line.map_or_else(String::new, |line| format!(" or interrupt {line}"));
                (bar, format!("virtio-pci 00:{device:02x}.0, BAR 0, MSI-X{line}"))
            }
        };
        Self::new(range, Class::Device(reach(machine, device)), &device.name, detail)
    }

    fn own_memory(machine: &Machine, device: &VirtioDevice) -> Option<Self> {
        let (range, class) = (device.own_memory()?, Class::Pool(reach(machine, device)));
        Some(Self::new(range, class, &memory_name(device), "BAR 2, prefetchable".into()))
    }
}

/// A number of bytes for people: exact if that is short.
pub(super) fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "bytes")];
    let exact = |shift: u32| bytes.trailing_zeros() >= shift && bytes >> shift < 10_000;
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        None => "0 bytes".into(),
        Some((largest, name)) => match units.iter().find(|(shift, _)| shift <= largest && exact(*shift)) {
            Some((shift, name)) => format!("{} {name}", bytes >> shift),
            None => {
                let tenths = (u128::from(bytes) * 10 + (1 << largest >> 1)) >> largest;
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (3, "3 bytes"),
            (4096, "4 KiB"),
            (5 << 30, "5 GiB"),
            (2960 << 20, "2960 MiB"),
            ((240 << 20) - 4096, "240.0 MiB"),
            ((3 << 30) + 4096, "3.0 GiB"),
            (12_345, "12.1 KiB"),
            (u64::MAX, "17179869184.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
