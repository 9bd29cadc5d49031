// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What both a device tree and ACPI say about a machine, in one form.

use std::collections::BTreeMap;
use std::fmt;

/// Addresses, from `base` on. Not the type that the generators use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first address.
    pub base: u64,
    /// Number of addresses.
    pub size: u64,
}

impl Window {
    /// Fails if there is no such window.
    pub fn new(base: u64, size: u64) -> Self {
        assert!(size > 0 && base.checked_add(size - 1).is_some(), "no window: {base:#x}, {size:#x} bytes");
        Self { base, size }
    }

    /// Fails if there is no such window.
    pub fn from_bounds(base: u64, last: u64) -> Self {
        assert!(base <= last, "no window: {base:#x} to {last:#x}");
        Self::new(base, last - base + 1)
    }

    /// The last address.
    pub fn last(&self) -> u64 {
        self.base + (self.size - 1)
    }

    /// Whether the two share an address.
    pub fn meets(&self, other: &Self) -> bool {
        self.base <= other.last() && other.base <= self.last()
    }

    /// Whether `other` is in this window, whole.
    pub fn holds(&self, other: &Self) -> bool {
        self.base <= other.base && other.last() <= self.last()
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.base, self.last())
    }
}

/// When a line interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// On a change.
    Edge,
    /// As long as it is asserted.
    Level,
}

/// How a line is asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// High, or by a rising edge.
    High,
    /// Low, or by a falling edge.
    Low,
}

/// An interrupt line. ACPI's global system interrupts are the pins of the one I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Pin of the I/O APIC.
    pub pin: u32,
    /// When it interrupts.
    pub trigger: Trigger,
    /// How it is asserted.
    pub polarity: Polarity,
}

/// Interrupt lines of the PCI bus, by device number and pin, INTA# being 0.
pub type Routes = BTreeMap<(u8, u8), Line>;

/// A machine.
#[derive(Debug, PartialEq)]
pub struct Model {
    /// The restricted DMA pools, in ascending order.
    pub pools: Vec<Pool>,
    /// Local APIC identifiers, the boot processor's first.
    pub cpus: Vec<u32>,
    /// Address of the local APIC. ACPI knows no size.
    pub local_apic: u64,
    /// Address of the I/O APIC. ACPI knows no size.
    pub io_apic: u64,
    /// Registers and interrupt of the 16550 that is the console.
    pub uart: (Window, Line),
    /// The pvpanic register.
    pub pvpanic: Window,
    /// The PCI host bridge.
    pub pci: Option<Pci>,
    /// In the order in which a guest finds them.
    pub virtio_mmio: Vec<VirtioMmio>,
    /// In the order of the device numbers.
    pub virtio_pci: Vec<VirtioPci>,
}

/// A restricted DMA pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// Where it is.
    pub window: Window,
    /// It is the pool of every device that names none.
    pub dma_default: bool,
}

/// A PCI host bridge, and what is behind it.
#[derive(Debug, PartialEq)]
pub struct Pci {
    /// Configuration space.
    pub ecam: Window,
    /// First and last bus number.
    pub buses: (u8, u8),
    /// Where BARs can be, at the same address on both sides of the bridge.
    pub memory: Vec<Window>,
    /// Four lines for each virtio device on the bus. The device tree routes no others.
    pub routes: Routes,
    /// Whether DMA of the devices on the bus is coherent with the CPUs' caches.
    pub coherent: bool,
}

/// A virtio-mmio device.
#[derive(Debug, PartialEq)]
pub struct VirtioMmio {
    /// Registers.
    pub window: Window,
    /// Interrupt.
    pub line: Line,
    /// Whether its DMA is coherent with the CPUs' caches.
    pub coherent: bool,
    /// The pool that it names.
    pub pool: Option<Window>,
}

/// A PCI function that the description has something about.
#[derive(Debug, PartialEq)]
pub struct VirtioPci {
    /// Device number.
    pub device: u8,
    /// Function number.
    pub function: u8,
    /// The pool that it names.
    pub pool: Option<Window>,
}

impl Model {
    /// Every register window, with a name for messages. Local and I/O APIC are counted with one byte.
    pub fn windows(&self) -> Vec<(String, Window)> {
        let mut windows = vec![
            ("local APIC".to_owned(), Window::new(self.local_apic, 1)),
            ("I/O APIC".to_owned(), Window::new(self.io_apic, 1)),
            ("UART".to_owned(), self.uart.0),
            ("pvpanic".to_owned(), self.pvpanic),
        ];
        if let Some(pci) = &self.pci {
            windows.push(("ECAM".to_owned(), pci.ecam));
            windows.extend(pci.memory.iter().map(|window| ("PCI memory".to_owned(), *window)));
        }
        let devices = self.virtio_mmio.iter().enumerate();
        windows.extend(devices.map(|(index, device)| (format!("virtio-mmio {index}"), device.window)));
        windows
    }

    /// Fails unless all windows are apart and outside of `memory`, and all pools are apart and inside.
    pub fn is_sound(&self, memory: &[Window]) {
        let windows = self.windows();
        for (index, (name, window)) in windows.iter().enumerate() {
            for (other_name, other) in &windows[..index] {
                assert!(!window.meets(other), "{name} at {window:?} meets {other_name} at {other:?}");
            }
            for ram in memory {
                assert!(!window.meets(ram), "{name} at {window:?} is in memory at {ram:?}");
            }
        }
        let pools: Vec<_> = self.pools.iter().map(|pool| pool.window).collect();
        for (index, pool) in pools.iter().enumerate() {
            assert!(memory.iter().any(|ram| ram.holds(pool)), "the pool at {pool:?} is not memory");
            let mut others = pools[..index].iter();
            assert!(!others.any(|other| other.meets(pool)), "the pool at {pool:?} meets another");
        }
    }
}
