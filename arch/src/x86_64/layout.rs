// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest-physical address space.
//!
//! ```text
//! 0           RAM: boot structures, kernel at 16 MiB, initrd; pools near the end, 2 MiB aligned
//! 3 GiB       end of low RAM, at the latest
//! 0xc000_0000 PCI BARs: registers from the bottom, memory of devices from the top
//! 0xd000_0000 virtio-mmio windows, one page each
//! 0xd100_0000 UART, power control, pvpanic, one page each
//! 0xe000_0000 PCI configuration space (ECAM)
//! 0xfec0_0000 I/O APIC
//! 0xfee0_0000 local APICs
//! 4 GiB       the rest of RAM; near its end the pools that do not fit below
//! ```

use cvmm_firmware::{Interrupt, IoApic, PciHost, Range};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Alignment of a pool's base and size: whole huge pages, and more than Linux's 256 KiB (IO_TLB_SEGSIZE slots).
pub const POOL_ALIGN: u64 = 2 * MIB;
/// Smallest guest: one that has room for the smallest pool.
pub const MIN_MEMORY: u64 = BELOW_POOL + POOL_ALIGN + ABOVE_POOL;
/// Largest guest: what the pages of KVM's smallest physical address width (36 bits) hold, less the hole.
pub const MAX_MEMORY: u64 = 63 * GIB;

/// End of low RAM.
const LOW_RAM_END: u64 = 3 * GIB;
/// Start of high RAM.
const HIGH_RAM: u64 = 4 * GIB;
/// RAM that stays above a pool: with the pool at the very top, kernels that count only usable e820 entries would
/// take the end of RAM to be the pool's start.
const ABOVE_POOL: u64 = 16 * MIB;
/// What a pool may not cover: boot structures and the kernel's load address.
const BELOW_POOL: u64 = 16 * MIB;

/// What legacy PC hardware keeps of the first megabyte, as every kernel expects.
pub(super) const LEGACY_HOLE: Range = Range::fixed(0x9_fc00, 0x10_0000 - 0x9_fc00);

/// Where ACPI tables are: the end of that, where the BIOS of a PC has them.
pub const ACPI_TABLES: Range = Range::fixed(0xe_0000, 0x2_0000);
const _: () = assert!(LEGACY_HOLE.contains(&ACPI_TABLES) && LEGACY_HOLE.last() == ACPI_TABLES.last());

/// Pins of the I/O APIC. A PC's has 24; more of them let every device on mmio have its own.
pub const IO_APIC_PINS: u32 = 64;
const IO_APIC: Range = Range::fixed(0xfec0_0000, 0x1000);
const LOCAL_APIC: Range = Range::fixed(0xfee0_0000, 0x1000);

/// Register window of the UART.
pub const UART: Range = Range::fixed(0xd100_0000, 8);
/// Interrupt of the UART: where a PC has it.
pub const UART_PIN: Interrupt = Interrupt(4);
/// The power control register.
pub const POWER: Range = Range::fixed(0xd100_1000, 4);
/// The sleep and reset registers of ACPI.
pub const SLEEP: Range = Range::fixed(0xd100_1010, 3);
/// The pvpanic register.
pub const PVPANIC: Range = Range::fixed(0xd100_2000, 2);

const VIRTIO_MMIO: u64 = 0xd000_0000;
const VIRTIO_MMIO_SIZE: u64 = 0x1000;
const FIRST_VIRTIO_PIN: u32 = 5;
/// The last four pins are the lines of PCI.
const FIRST_PCI_PIN: u32 = IO_APIC_PINS - 4;

const PCI_ECAM: Range = Range::fixed(0xe000_0000, 0x10_0000);
const PCI_CONFIG_PORTS: Range = Range::fixed(0xcf8, 8);
const PCI_MEMORY: Range = Range::fixed(0xc000_0000, 0x1000_0000);
/// Devices on the bus beside the host bridge.
pub const MAX_VIRTIO_PCI: usize = 31;

/// The reset control register, in the middle of the ports of PCI's configuration space.
pub const RESET_CONTROL_PORT: u16 = 0xcf9;

/// Command port of the keyboard controller, through which Linux resets the machine.
pub const KEYBOARD_COMMAND_PORT: u16 = 0x64;

/// The RAM of a guest with `size` bytes.
pub fn memory(size: u64) -> Vec<Range> {
    let low = size.min(LOW_RAM_END);
    let ranges = [Range::new(0, low), Range::new(HIGH_RAM, size - low)];
    ranges.into_iter().flatten().collect()
}

/// Why a pool can't be where it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Too small, or not a whole number of huge pages.
    #[error("its size must be a multiple of 2M, and not 0")]
    Size,
    /// The base is not aligned.
    #[error("its base must be a multiple of 2M")]
    Alignment,
    /// There is no room for it.
    #[error("it does not fit: it needs {}M in one piece, and {}", .needed >> 20, Free(*.low, *.high))]
    TooLarge {
        /// Bytes wanted.
        needed: u64,
        /// The largest free piece below 4 GiB, in bytes.
        low: u64,
        /// The same above, for a guest with memory there.
        high: Option<u64>,
    },
    /// The base that was asked for is no place for a pool.
    #[error("at this base, it is not all in memory where pools can be: {ranges}")]
    Place {
        /// That memory.
        ranges: Ranges,
    },
    /// It overlaps another pool.
    #[error("at this base, it overlaps the pool at {0}")]
    Overlap(Range),
}

/// The largest free pieces below and above 4 GiB, for a message.
struct Free(u64, Option<u64>);

impl std::fmt::Display for Free {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Free(low, high) = self;
        write!(f, "the largest piece that is free for pools has {}M", low >> 20)?;
        match high {
            Some(high) => write!(f, " below 4 GiB and {}M above", high >> 20),
            None => Ok(()),
        }
    }
}

/// Up to two ranges of RAM, for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges(Option<Range>, Option<Range>);

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ranges(Some(low), Some(high)) => write!(f, "{low} or {high}"),
            Ranges(Some(one), None) | Ranges(None, Some(one)) => write!(f, "{one}"),
            Ranges(None, None) => f.write_str("none"),
        }
    }
}

/// Finds the place of a pool of `size` bytes in `memory`: at `base` if that is given, else as high in low RAM as it
/// can be beside `others`, else as high in high RAM.
pub fn place_pool(
    memory: &[Range],
    others: &[Range],
    size: u64,
    base: Option<u64>,
) -> Result<Range, PoolError> {
    if size == 0 || !size.is_multiple_of(POOL_ALIGN) {
        return Err(PoolError::Size);
    }
    let Some(base) = base else { return highest_place(memory, others, size) };
    if !base.is_multiple_of(POOL_ALIGN) {
        return Err(PoolError::Alignment);
    }
    let ranges = with_base(memory);
    let allows = |pool: &Range| [ranges.0, ranges.1].iter().flatten().any(|range| range.contains(pool));
    let pool = Range::new(base, size).filter(allows).ok_or(PoolError::Place { ranges })?;
    match others.iter().find(|other| other.overlaps(&pool)) {
        Some(other) => Err(PoolError::Overlap(*other)),
        None => Ok(pool),
    }
}

/// Where the user may put a pool: in one piece of RAM, above the boot structures, not at the end of all RAM.
fn with_base(memory: &[Range]) -> Ranges {
    let end = memory.last().map_or(0, Range::end).saturating_sub(ABOVE_POOL);
    let part = |ram: &Range| Range::from_bounds(ram.base().max(BELOW_POOL), ram.end().min(end));
    Ranges(memory.first().and_then(part), memory.get(1).and_then(part))
}

fn highest_place(memory: &[Range], others: &[Range], size: u64) -> Result<Range, PoolError> {
    let gaps = |ram: &Range| -> Vec<Range> {
        let end = ram.end().saturating_sub(ABOVE_POOL) / POOL_ALIGN * POOL_ALIGN;
        // Pools are whole huge pages, and so is what they leave.
        let gaps = private(&[*ram], others).into_iter();
        gaps.filter_map(|gap| Range::from_bounds(gap.base().max(BELOW_POOL), gap.end().min(end))).collect()
    };
    let gaps: Vec<_> = memory.iter().map(gaps).collect();
    let fit = gaps.iter().find_map(|gaps| gaps.iter().rfind(|gap| gap.size() >= size));
    let largest = |gaps: &Vec<Range>| gaps.iter().map(Range::size).max().unwrap_or(0);
    fit.and_then(|gap| Range::new(gap.end() - size, size)).ok_or_else(|| PoolError::TooLarge {
        needed: size,
        low: gaps.first().map_or(0, largest),
        high: gaps.get(1).map(largest),
    })
}

/// The RAM that is not in a pool, in ascending order.
pub fn private(memory: &[Range], pools: &[Range]) -> Vec<Range> {
    let mut pools: Vec<_> = pools.iter().collect();
    pools.sort();
    let mut private = Vec::new();
    for ram in memory {
        let mut from = ram.base();
        for pool in pools.iter().filter(|pool| ram.contains(pool)) {
            private.extend(Range::from_bounds(from, pool.base()));
            from = pool.end();
        }
        private.extend(Range::from_bounds(from, ram.end()));
    }
    private
}

/// The I/O APIC.
pub fn io_apic() -> IoApic {
    IoApic { window: IO_APIC, pins: IO_APIC_PINS }
}

/// Window of the local APICs.
pub fn local_apic() -> Range {
    LOCAL_APIC
}

/// Window and interrupt of the virtio-mmio device with this index; `None` if the machine has no pin for it.
pub fn virtio_mmio(index: usize) -> Option<(Range, Interrupt)> {
    let pin = FIRST_VIRTIO_PIN.checked_add(u32::try_from(index).ok()?).filter(|pin| *pin < FIRST_PCI_PIN)?;
    let base = VIRTIO_MMIO + u64::try_from(index).ok()? * VIRTIO_MMIO_SIZE;
    Some((Range::new(base, VIRTIO_MMIO_SIZE)?, Interrupt(pin)))
}

/// Number of virtio-mmio devices that a machine can have.
pub const MAX_VIRTIO_MMIO: usize = (FIRST_PCI_PIN - FIRST_VIRTIO_PIN) as usize;

/// The PCI host bridge.
pub fn pci_host() -> PciHost {
    let lines = [0, 1, 2, 3].map(|line| Interrupt(FIRST_PCI_PIN + line));
    PciHost { ecam: PCI_ECAM, config_ports: PCI_CONFIG_PORTS, memory: PCI_MEMORY, lines }
}

/// Device number and BAR of the virtio-pci device with this index, whose BAR has `bar_size` bytes; `None` if the bus has
/// no place for it.
pub fn virtio_pci(index: usize, bar_size: u64) -> Option<(u8, Range)> {
    let device =
        u8::try_from(index).ok()?.checked_add(1).filter(|device| usize::from(*device) <= MAX_VIRTIO_PCI)?;
    let bar = Range::new(PCI_MEMORY.base() + u64::from(device) * bar_size, bar_size)?;
    PCI_MEMORY.contains(&bar).then_some((device, bar))
}

/// Where a PCI device's memory of at least `size` bytes is: a BAR of a power of two, as high in the window as it can be below
/// `end`, where the last one begins, or the window ends for the first. `None` if it does not fit above the registers.
pub fn pci_memory(size: u64, end: Option<u64>, registers: u64) -> Option<Range> {
    let size = size.checked_next_power_of_two()?;
    let end = end.unwrap_or(PCI_MEMORY.end());
    let base = end.checked_sub(size)? & size.wrapping_neg();
    let lowest = PCI_MEMORY.base() + (MAX_VIRTIO_PCI as u64 + 1) * registers;
    Range::new(base, size).filter(|_| base >= lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(mem: u64, size: u64, base: Option<u64>) -> Result<Range, PoolError> {
        place_pool(&memory(mem), &[], size, base)
    }

    #[test]
    fn memory_above_3_gib_goes_above_4_gib() {
        assert_eq!(memory(3 * GIB), [Range::fixed(0, 3 * GIB)]);
        assert_eq!(memory(5 * GIB), [Range::fixed(0, 3 * GIB), Range::fixed(4 * GIB, 2 * GIB)]);
    }

    #[test]
    fn a_pool_lies_in_low_ram_and_not_at_its_top() {
        assert_eq!(place(512 * MIB, 64 * MIB, None), Ok(Range::fixed(432 * MIB, 64 * MIB)));
        assert_eq!(place(5 * GIB, 64 * MIB, None), Ok(Range::fixed(3 * GIB - 80 * MIB, 64 * MIB)));
        assert_eq!(place(64 * MIB, 32 * MIB, None), Ok(Range::fixed(16 * MIB, 32 * MIB)));
        assert_eq!(
            place(64 * MIB, 34 * MIB, None),
            Err(PoolError::TooLarge { needed: 34 * MIB, low: 32 * MIB, high: None })
        );
        assert!(matches!(
            place(16 * MIB, u64::MAX / POOL_ALIGN * POOL_ALIGN, None),
            Err(PoolError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_pool_that_does_not_fit_below_4_gib_is_above() {
        let highest = |mem: u64, size: u64| place(mem, size, None).map(|pool| (pool.base(), pool.end()));
        // All that low RAM has for a pool, and more.
        let low = 3 * GIB - 32 * MIB;
        assert_eq!(highest(8 * GIB, low), Ok((16 * MIB, 3 * GIB - 16 * MIB)));
        assert_eq!(highest(8 * GIB, low + 2 * MIB), Ok((6 * GIB + 14 * MIB, 9 * GIB - 16 * MIB)));
        assert_eq!(highest(8 * GIB, 5 * GIB - 16 * MIB), Ok((4 * GIB, 9 * GIB - 16 * MIB)));
        let most = MAX_MEMORY - 3 * GIB - ABOVE_POOL;
        assert_eq!(highest(MAX_MEMORY, most), Ok((4 * GIB, 64 * GIB - 16 * MIB)));
        let too_large = |needed, low, high| Err(PoolError::TooLarge { needed, low, high });
        assert_eq!(highest(MAX_MEMORY, most + 2 * MIB), too_large(most + 2 * MIB, low, Some(most)));
        // High RAM that is no larger than what stays above a pool.
        assert_eq!(highest(3 * GIB + 16 * MIB, 3 * GIB), too_large(3 * GIB, low, Some(0)));
        // Beside others that are there.
        let others = [Range::fixed(8 * GIB, 2 * MIB), Range::fixed(GIB, GIB)];
        let place = |size| place_pool(&memory(8 * GIB), &others, size, None);
        assert_eq!(place(GIB), Ok(Range::fixed(7 * GIB, GIB)));
        assert_eq!(place(4 * GIB), Ok(Range::fixed(4 * GIB, 4 * GIB)));
        assert_eq!(place(GIB - 16 * MIB), Ok(Range::fixed(2 * GIB, GIB - 16 * MIB)));
        let text = place(5 * GIB).unwrap_err().to_string();
        assert_eq!(
            text,
            "it does not fit: it needs 5120M in one piece, and the largest piece that is free for pools has 1008M \
             below 4 GiB and 4096M above"
        );
    }

    #[test]
    fn the_smallest_guest_has_room_for_the_smallest_pool() {
        assert_eq!(place(MIN_MEMORY, POOL_ALIGN, None), Ok(Range::fixed(16 * MIB, POOL_ALIGN)));
        assert!(place(MIN_MEMORY - POOL_ALIGN, POOL_ALIGN, None).is_err());
        assert_eq!(place(MIN_MEMORY, POOL_ALIGN, Some(16 * MIB)), Ok(Range::fixed(16 * MIB, POOL_ALIGN)));
    }

    #[test]
    fn a_base_that_was_asked_for_is_taken_or_refused() {
        let mem = 5 * GIB;
        for base in [16 * MIB, 256 * MIB, 3 * GIB - 64 * MIB, 4 * GIB, 6 * GIB - 80 * MIB] {
            assert_eq!(place(mem, 64 * MIB, Some(base)), Ok(Range::fixed(base, 64 * MIB)), "{base:#x}");
        }
        for base in [0, 14 * MIB, 3 * GIB - 62 * MIB, 3 * GIB, 4 * GIB - 2 * MIB, 6 * GIB - 64 * MIB, 1 << 63]
        {
            assert!(matches!(place(mem, 64 * MIB, Some(base)), Err(PoolError::Place { .. })), "{base:#x}");
        }
        assert_eq!(place(mem, 64 * MIB, Some(256 * MIB + 4096)), Err(PoolError::Alignment));
        assert_eq!(place(mem, 3 * MIB, None), Err(PoolError::Size));
        assert_eq!(place(mem, 0, None), Err(PoolError::Size));
        // The message names all bases that there are.
        let text = |mem| place(mem, 64 * MIB, Some(0)).unwrap_err().to_string();
        assert!(text(512 * MIB).ends_with(": 0x1000000-0x1effffff"), "{}", text(512 * MIB));
        assert!(text(mem).ends_with(": 0x1000000-0xbfffffff or 0x100000000-0x17effffff"), "{}", text(mem));
        let last = u64::MAX / POOL_ALIGN * POOL_ALIGN;
        assert!(matches!(place(mem, 4 * MIB, Some(last)), Err(PoolError::Place { .. })));
    }

    #[test]
    fn pools_do_not_overlap() {
        let ram = memory(512 * MIB);
        let first = place_pool(&ram, &[], 64 * MIB, None).unwrap();
        let second = place_pool(&ram, &[first], 64 * MIB, None).unwrap();
        assert!(!first.overlaps(&second));
        assert_eq!(place_pool(&ram, &[first], 2 * MIB, Some(first.base())), Err(PoolError::Overlap(first)));
        // The gap between two is used, if it is large enough; above 4 GiB there is none.
        let others =
            [Range::fixed(64 * MIB, 2 * MIB), Range::fixed(72 * MIB, 420 * MIB), Range::fixed(8 * GIB, GIB)];
        assert_eq!(place_pool(&ram, &others, 4 * MIB, None), Ok(Range::fixed(492 * MIB, 4 * MIB)));
        assert_eq!(place_pool(&ram, &others, 6 * MIB, None), Ok(Range::fixed(66 * MIB, 6 * MIB)));
        assert_eq!(place_pool(&ram, &others, 8 * MIB, None), Ok(Range::fixed(56 * MIB, 8 * MIB)));
        // One that reaches above what is left free at the top, which it may where memory goes on above 4 GiB.
        let (ram, high) = (memory(5 * GIB), Range::fixed(3 * GIB - 64 * MIB, 64 * MIB));
        assert_eq!(place_pool(&ram, &[], 64 * MIB, Some(high.base())), Ok(high));
        assert_eq!(place_pool(&ram, &[high], 32 * MIB, None), Ok(Range::fixed(3 * GIB - 96 * MIB, 32 * MIB)));
        let ram = memory(512 * MIB);
        let too_large = PoolError::TooLarge { needed: 50 * MIB, low: 48 * MIB, high: None };
        assert_eq!(place_pool(&ram, &others, 50 * MIB, None), Err(too_large));
    }

    #[test]
    fn private_memory_is_all_that_is_not_pool() {
        let ram = memory(5 * GIB);
        let pools = [Range::fixed(4 * GIB, 2 * MIB), Range::fixed(64 * MIB, 2 * MIB)];
        assert_eq!(
            private(&ram, &pools),
            [
                Range::fixed(0, 64 * MIB),
                Range::fixed(66 * MIB, 3 * GIB - 66 * MIB),
                Range::fixed(4 * GIB + 2 * MIB, 2 * GIB - 2 * MIB)
            ]
        );
    }

    /// PCI 3.0, 6.2.5.1: a BAR's size is a power of two, and its base a multiple of that.
    #[test]
    fn memory_of_pci_devices_fills_the_window_from_the_top() {
        let mut end = None;
        for (size, expected) in [
            (64 * MIB, Some((0xcc00_0000, 64 * MIB))),
            (2 * MIB, Some((0xcbe0_0000, 2 * MIB))),
            (6 * MIB, Some((0xcb00_0000, 8 * MIB))),
            (128 * MIB, None),
            (64 * MIB, Some((0xc400_0000, 64 * MIB))),
            // Below it are the registers of all devices.
            (64 * MIB, None),
            (32 * MIB, Some((0xc200_0000, 32 * MIB))),
            (16 * MIB, Some((0xc100_0000, 16 * MIB))),
            (16 * MIB, None),
            (8 * MIB, Some((0xc080_0000, 8 * MIB))),
            (4 * MIB, Some((0xc040_0000, 4 * MIB))),
            (2 * MIB, Some((0xc020_0000, 2 * MIB))),
            (2 * MIB, None),
            (u64::MAX, None),
            (1 << 63, None),
        ] {
            let bar = pci_memory(size, end, 0x8000);
            assert_eq!(bar.map(|bar| (bar.base(), bar.size())), expected, "{size:#x}");
            end = bar.map(|bar| bar.base()).or(end);
        }
    }

    #[test]
    fn windows_do_not_overlap() {
        let mut windows = vec![IO_APIC, LOCAL_APIC, UART, POWER, SLEEP, PVPANIC, PCI_ECAM, PCI_MEMORY];
        windows.extend((0..MAX_VIRTIO_MMIO).map(|index| virtio_mmio(index).unwrap().0));
        assert!(virtio_mmio(MAX_VIRTIO_MMIO).is_none());
        assert!((0..MAX_VIRTIO_PCI).all(|index| virtio_pci(index, 0x8000).is_some()));
        assert!(virtio_pci(MAX_VIRTIO_PCI, 0x8000).is_none());
        for (i, a) in windows.iter().enumerate() {
            assert!(windows.iter().skip(i + 1).all(|b| !a.overlaps(b)), "{a}");
            assert!(memory(MAX_MEMORY).iter().all(|ram| !ram.overlaps(a)), "{a}");
        }
    }
}
