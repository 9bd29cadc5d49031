// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pool on the device: BAR 2 and capability 10 of the RFC of April 2025 (3/3). Rings and buffers are in the BAR, and
//! addresses are those that a CPU reaches it at.

use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::pool::{Reason, Structure};
use crate::testing::{BASE, Desc, Driver, REQUIRED};
use crate::virtio::RestrictedDma;
use crate::virtio::tests::{FEATURES, Loop, QUEUES};

const FIRST: u64 = 0xc800_0000;
const SIZE: u64 = 0x4_0000;
const RFC: RestrictedDma = RestrictedDma {
    feature_bit: Some(27),
    required: true,
    names_pool: false,
    withholds_access_platform: false,
};

/// A toy with its pool in BAR 2, at [`FIRST`], and drivers of its queues there.
struct Device {
    memory: Rc<Memory>,
    driver: PciMsix,
    events: Loop,
    queues: Vec<Driver>,
}

impl Device {
    fn new() -> Self {
        let memory = Memory::at(FIRST, SIZE);
        let bar = Range::fixed(FIRST, SIZE);
        let (machine, worker) = PciMachine::with_device_memory(Toy::new().0, &memory.gate, RFC, bar);
        let driver = PciDriver::probe(&machine, 1);
        Self { memory, driver: crate::testing::pci::Pci(driver), events: Loop::new(worker), queues: vec![] }
    }

    fn pci(&self) -> &PciDriver {
        &self.driver.0
    }

    /// From reset to DRIVER_OK, with queues whose areas are `shift` from where the first place of the BAR has them.
    fn start(&mut self, features: u64, shift: u64) -> u8 {
        self.driver.set_status(0);
        self.memory.clear();
        self.queues = QUEUES.map(|size| Driver::new(&self.memory, size)).into();
        [1, 3].into_iter().for_each(|status| self.driver.set_status(status));
        self.driver.accept(features);
        self.driver.set_status(11);
        for (queue, driver) in (0..).zip(&self.queues) {
            let mut layout = driver.layout;
            for area in [&mut layout.descriptor_table, &mut layout.available_ring, &mut layout.used_ring] {
                *area = area.wrapping_add(shift);
            }
            self.driver.set_queue(queue, layout);
            self.driver.enable_queue(queue);
        }
        self.driver.set_status(15);
        self.driver.status()
    }

    /// Asks for 4 bytes at `address`. Whether they came, and then where the memory's first place has `written`.
    fn ask(&mut self, address: u64, written: u64) -> bool {
        self.memory.write(written, &[0; 4]);
        self.queues[0].chain(&[Desc::writable(address, 4)]);
        self.driver.notify(0);
        self.events.run();
        let used = self.queues[0].take_used();
        assert_eq!(self.memory.read(written, 4) == [0x5a; 4], !used.is_empty());
        !used.is_empty()
    }

    /// Asks, and is refused.
    fn is_refused(&mut self, address: u64) {
        let total = self.memory.gate.audit().refusals().total;
        let image = self.memory.image().len();
        assert!(!self.ask(address, FIRST + SIZE - 4), "{address:#x}");
        assert_eq!(self.memory.image().len(), image);
        let refusals = self.memory.gate.audit().refusals();
        assert_eq!((refusals.total, self.driver.status()), (total + 1, 15 | 64), "{address:#x}");
        assert!(refusals.first.iter().any(|(refusal, _)| {
            (refusal.structure, refusal.address, refusal.reason)
                == (Structure::WritableBuffer, address, Reason::Outside)
        }));
    }
}

/// 3/3: a plain `struct virtio_pci_cap` of type 10; PCI 3.0, 6.2.5.1. Never transitional (virtio 1.3, 4.1.2.1): bit 27
/// would be VIRTIO_F_ANY_LAYOUT.
#[test]
fn the_capability_names_bar_2_of_a_device_that_is_not_transitional() {
    let device = Device::new();
    let pci = device.pci();
    let found = pci.memory.unwrap();
    assert_eq!((found.offset, found.length), (0, SIZE));
    assert_eq!(pci.config_read(found.at + 2, 1), 16, "cap_len: nothing follows");
    assert_eq!(pci.config_read(found.at + 4, 4), 2, "BAR 2, no ID, no padding");
    assert_eq!(pci.config_read(0x18, 4), FIRST | 0xc, "64 bits, prefetchable");
    assert!(pci.config_read(0x02, 2) >= 0x1040);
    assert!(pci.config_read(0x08, 1) >= 1);
    assert!(pci.config_read(0x2e, 2) >= 0x40);
    assert_eq!([0x20, 0x24].map(|bar| pci.config_read(bar, 4)), [0; 2], "no BAR on I/O ports, no other BAR");
    assert!([0x10, 0x18].into_iter().all(|bar| pci.config_read(bar, 4) & 1 == 0));
    assert_eq!(device.driver.device_features(0) >> 27 & 1, 1);
    // Its size is found as that of any BAR.
    pci.set_command(0);
    pci.move_memory(u64::MAX);
    assert_eq!(pci.memory_bar(), SIZE.wrapping_neg());
    // Other devices have neither.
    let plain = probe(Toy::new().0);
    assert!(plain.memory.is_none());
    plain.move_memory(u64::MAX);
    assert_eq!(plain.memory_bar(), 0);
}

#[test]
fn memory_and_bar_have_one_size() {
    for size in [SIZE / 2, 2 * SIZE] {
        let memory = Memory::at(FIRST, SIZE);
        let slot = Arc::<crate::testing::RecordingSlot>::default();
        let interrupt = Arc::new(PciInterrupt::new(2, slot.clone()).unwrap());
        let core = Core::new("toy", Toy::new().0, memory.gate.clone(), interrupt.clone());
        let registers = Range::fixed(0xc000_8000, 0x8000);
        let new = PciTransport::new(core, interrupt, Arc::new(EventFds::new(2).unwrap()), slot, registers);
        assert!(new.unwrap().with_device_memory(Range::fixed(FIRST, size)).is_err());
    }
}

/// "it MUST use the buffer and never pass system memory addresses"; what it does that breaks this is refused.
#[test]
fn rings_and_buffers_are_in_the_bar_and_nowhere_else() {
    let mut device = Device::new();
    let features = FEATURES | 1 << 27;
    assert_eq!(device.start(FEATURES, 0) & 8, 0, "without bit 27");
    assert_eq!(device.start(features & !REQUIRED, 0) & 8, 0, "bit 27 does not replace ACCESS_PLATFORM");
    assert_eq!(device.start(features, 0), 15);
    assert!(device.ask(FIRST + 0x3_0000, FIRST + 0x3_0000));
    // The shared pool, private memory, its own registers, an offset, past the end.
    for address in [BASE, 0x10_0000, 0xc000_8000, 0, 0x3_0000, FIRST + SIZE] {
        assert_eq!(device.start(features, 0), 15);
        device.is_refused(address);
    }
    // A queue elsewhere, too.
    let status = device.start(features, BASE.wrapping_sub(FIRST));
    assert_eq!((status & 64, device.driver.queue_enabled(0)), (64, false));
}

/// The weakness that the thread found: addresses change under a driver's feet.
#[test]
fn memory_moves_with_its_bar() {
    let mut device = Device::new();
    let features = FEATURES | 1 << 27;
    assert_eq!(device.pci().slot().memory(), Range::new(FIRST, SIZE));
    let mut old = FIRST;
    for new in [0xc100_0000, 0xcffc_0000, 0xc000_0000, FIRST] {
        assert_eq!(device.start(features, old.wrapping_sub(FIRST)), 15);
        assert!(device.ask(old + 0x3_0000, FIRST + 0x3_0000));
        device.pci().move_memory(new);
        assert_eq!(device.pci().slot().memory(), Range::new(new, SIZE));
        // The rings went along, and work: they are the device's own bytes.
        assert!(device.ask(new + 0x3_0000, FIRST + 0x3_0000));
        device.is_refused(old + 0x3_0000);
        assert_eq!(device.start(features, new.wrapping_sub(FIRST)), 15);
        assert!(device.ask(new + 0x3_0000, FIRST + 0x3_0000));
        old = new;
    }
}

/// Decoding off, or a place where CPUs do not reach it: no address is the device's, neither there nor before.
#[test]
fn memory_that_is_nowhere_has_no_addresses() {
    let features = FEATURES | 1 << 27;
    type Go = fn(&PciDriver);
    let nowhere: [(&str, Go, u64); 4] = [
        ("decoding off", |pci| pci.set_command(BUS_MASTER), FIRST),
        ("over RAM", |pci| pci.move_memory(0x4000_0000), 0x4000_0000),
        ("across the end of the window", |pci| pci.move_memory(0xd000_0000), 0xd000_0000),
        ("at the top", |pci| pci.move_memory(u64::MAX), SIZE.wrapping_neg()),
    ];
    for (what, go, there) in nowhere {
        for address in [FIRST + 0x3_0000, there.wrapping_add(0x3_0000)] {
            let mut device = Device::new();
            assert_eq!(device.start(features, 0), 15);
            go(device.pci());
            assert_eq!(device.pci().slot().memory(), None, "{what}");
            assert_eq!(device.memory.gate.pool().range(), None, "{what}");
            // The registers may be off: then nobody can notify, and the device looks when it is told otherwise.
            device.queues[0].chain(&[Desc::writable(address, 4)]);
            device.pci().plugged().transport.write(notify_offset(0), &[0; 2]);
            device.events.run();
            assert_eq!(device.queues[0].take_used(), [], "{what}");
            device.pci().set_command(MEMORY | BUS_MASTER);
            assert_eq!(device.driver.status(), 15 | 64, "{what}");
            // Back where it was, it works after a reset.
            device.pci().move_memory(FIRST);
            assert_eq!(device.start(features, 0), 15);
            assert!(device.ask(FIRST + 0x3_0000, FIRST + 0x3_0000), "{what}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    /// Whatever is written to configuration space: the device's addresses are those at which CPUs reach the memory, all of
    /// it or none.
    #[test]
    fn the_pool_is_where_cpus_reach_it(
        writes in prop::collection::vec(
            (
                prop_oneof![3 => 0x10u64..0x20, 2 => 4u64..6, 1 => 0u64..0x100],
                prop_oneof![Just(1usize), Just(2), Just(4)],
                prop_oneof![3 => 0xbff0_0000u64..0xd010_0000, 2 => Just(6), 2 => Just(0), 1 => any::<u64>()],
            ),
            1..40,
        ),
    ) {
        let device = Device::new();
        let pool = device.memory.gate.pool();
        for (at, len, value) in writes {
            device.pci().config_write(at & !(len as u64 - 1), len, value);
            let decoding = device.pci().config_read(4, 2) & MEMORY != 0;
            let bar = Range::new(device.pci().memory_bar(), SIZE).filter(|_| decoding);
            let bars = Range::fixed(0xc000_0000, 0x1000_0000);
            prop_assert_eq!(pool.range(), bar.filter(|bar| bars.contains(bar)));
            prop_assert_eq!(pool.range(), device.pci().slot().memory());
        }
    }
}

/// As with BAR 0, the slot hears of what changes.
#[test]
fn the_slot_is_told_where_the_memory_is() {
    let device = Device::new();
    let (pci, at) = (device.pci(), |base| Told::Memory(Range::new(base, SIZE)));
    let registers = |base| Told::Map(Range::new(base, 0x8000));
    assert_eq!(pci.slot().take(), [at(FIRST), registers(0xc000_8000)]);
    pci.move_memory(FIRST);
    pci.set_command(MEMORY);
    assert_eq!(pci.slot().take(), []);
    pci.set_command(0);
    pci.move_memory(0x12_0000_0000);
    assert_eq!(pci.slot().take(), [Told::Memory(None), Told::Map(None)]);
    pci.move_bar(0xc100_0000);
    pci.set_command(MEMORY);
    assert_eq!(pci.slot().take(), [at(0x12_0000_0000), registers(0xc100_0000)]);
    // Each half counts while it is on.
    pci.move_memory(0xc200_0000);
    assert_eq!(pci.slot().take(), [at(0x12_c200_0000), at(0xc200_0000)]);
}
