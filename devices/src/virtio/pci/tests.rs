// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is virtio-pci's own, against virtio 1.3, 4.1, and PCI 3.0: identity and capabilities here, registers and
//! interrupts in the files of this folder. What is the same over every transport is tested in `virtio/tests`.

mod access;
mod arbitrary;
mod bus;
mod common;
mod device_memory;
mod intx;
mod msix;

use super::*;
use crate::rng::Rng;
use crate::testing::pci::{BUS_MASTER, FUNCTION_MASK, INTERRUPT_DISABLE, MEMORY, MSIX_ENABLE};
use crate::testing::{Memory, PciDriver, PciIntx, PciMachine, PciMsix, Told, Transport};
use crate::virtio::tests::{Bench, Call, Toy};
use crate::virtio::{DeviceType, Lane};

impl<T> std::ops::Deref for Bench<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.transport
    }
}

fn probe(device: Box<dyn DeviceType>) -> PciDriver {
    let (machine, _) = PciMachine::new(vec![device], &Memory::new().gate);
    PciDriver::probe(&machine, 1)
}

/// 4.1.2, 4.1.2.1: 0x1af4, 0x1040 and the device ID (5); revision 1 or higher, subsystem 0x40 or higher, so that no
/// legacy driver binds.
#[test]
fn a_function_is_a_modern_virtio_device() {
    let toy = probe(Toy::new().0);
    assert_eq!(toy.config_read(0x00, 4), 0x1044_1af4);
    assert!(toy.config_read(0x08, 1) >= 1);
    assert_eq!(toy.config_read(0x2c, 2), 0x1af4);
    assert!(toy.config_read(0x2e, 2) >= 0x40);
    // PCI 3.0, 6.1, 6.2.4: header type 0, one function; INTA#.
    assert_eq!((toy.config_read(0x0e, 1), toy.config_read(0x3d, 1)), (0, 1));
}

/// 4.1.4.3.1, 4.1.4.4.1, 4.1.4.5.1, 4.1.4.6.1, 4.1.4.9.1: each structure that must be, is, once; alignment; within the
/// BAR (PCI 3.0, 6.8.2 for MSI-X), and apart from each other.
#[test]
fn every_structure_is_where_its_capability_says() {
    let toy = probe(Toy::new().0);
    let config = toy.config.unwrap();
    assert_eq!(toy.common.offset % 4, 0);
    assert!(toy.common.length >= 0x38);
    assert_eq!(toy.notify.offset % 2, 0);
    // "an even power of 2" or 0.
    assert!([1, 4, 16, 64, 0].contains(&toy.notify_multiplier));
    assert!(toy.notify.length >= toy.notify_multiplier + 2);
    assert!(toy.isr.length >= 1);
    assert_eq!((config.offset % 4, config.length), (0, 10));
    assert_eq!((toy.table % 8, toy.pending % 8, toy.vectors), (0, 0, 3));
    let mut structures: Vec<_> = [toy.common, toy.notify, toy.isr, config]
        .iter()
        .map(|found| (found.offset, found.length))
        .chain([(toy.table, 16 * toy.vectors), (toy.pending, 8)])
        .collect();
    structures.sort_unstable();
    assert!(structures.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{structures:?}");
    assert!(structures.iter().all(|(offset, length)| offset + length <= 0x8000));
    // The size of the BAR.
    toy.set_command(0);
    toy.move_bar(u64::MAX);
    assert_eq!(toy.bar(), !0x7fff);
    // cap_len counts what follows `struct virtio_pci_cap` (4.1.4.2); id and padding.
    for (capability, length) in
        [(toy.common.at, 16), (toy.notify.at, 20), (toy.isr.at, 16), (config.at, 16), (toy.access.at, 20)]
    {
        assert_eq!(toy.config_read(capability + 2, 1), length);
        assert_eq!(capability % 4, 0, "PCI 3.0, 6.7");
        assert_eq!(toy.config_read(capability + 4, 4), 0, "BAR 0");
    }
}

/// 4.1.4.6: "for any device type which has a device-specific configuration".
#[test]
fn a_device_without_configuration_has_no_such_capability() {
    assert!(probe(Box::new(Rng::new(Box::new(std::io::empty())))).config.is_none());
}

/// 4.1.4: "all fields are read-only for the driver unless stated otherwise"; PCI 3.0, 6.2. Every byte, every bit.
#[test]
fn configuration_space_changes_where_it_may() {
    let toy = probe(Toy::new().0);
    toy.set_command(0);
    let access = toy.access.at;
    let writable = |at: u64| match at {
        0x04 => 0x06,
        0x05 => 0x04,
        0x11 => 0x80,
        0x12..0x18 | 0x3c => 0xff,
        at if at == toy.msix + 3 => 0xc0,
        at if at == access + 4 || (access + 8..access + 20).contains(&at) => 0xff,
        _ => 0,
    };
    // One register at a time, or the data of the access capability would reach the BAR.
    for at in 0..0x100 {
        let old = toy.config_read(at, 1);
        for value in [0xff, 0x00, 0x55, 0xaa] {
            toy.config_write(at, 1, value);
            let expected = old & !writable(at) | value & writable(at);
            assert_eq!(toy.config_read(at, 1), expected, "{at:#x} <- {value:#x}");
        }
        toy.config_write(at, 1, old);
    }
    assert_eq!(toy.config_read(0x100, 4), 0);
}

/// 4.1.5.1.2.1: at most 0x800 vectors: a device with more queues than have room is refused, and one with the most is not.
#[test]
fn a_device_with_too_many_queues_does_not_fit() {
    #[derive(Debug)]
    struct Wide(Vec<u16>);
    impl DeviceType for Wide {
        fn kind(&self) -> crate::virtio::Kind {
            crate::virtio::Kind::Net
        }
        fn features(&self) -> u64 {
            0
        }
        fn max_queue_sizes(&self) -> &[u16] {
            &self.0
        }
        fn buffers(&self) -> u64 {
            0
        }
        fn config_space(&self) -> Vec<u8> {
            vec![7; 8]
        }
        fn into_lanes(self: Box<Self>, _pool: &Pool) -> Vec<Box<dyn Lane>> {
            vec![self]
        }
    }
    impl Lane for Wide {
        fn start(&mut self, _features: u64) {}
        fn serve(
            &mut self,
            _index: u16,
            _queues: &mut crate::virtio::Queues,
        ) -> Result<crate::queue::Turn, Refusal> {
            Ok(crate::queue::Turn::default())
        }
    }
    let new = |queues: u16| {
        let slot = Arc::<crate::testing::RecordingSlot>::default();
        let interrupt = Arc::new(PciInterrupt::new(2, slot.clone()).unwrap());
        let device = Box::new(Wide(vec![8; queues.into()]));
        let core = Core::new("wide", device, Memory::new().gate.clone(), interrupt.clone());
        let bar = Range::fixed(0xc000_0000, 0x8000);
        PciTransport::new(core, interrupt, Arc::new(EventFds::new(0).unwrap()), slot, bar)
    };
    assert!(new(512).is_err());
    assert!(new(u16::MAX).is_err());
    let most = new(511).unwrap();
    let mut control = [0; 2];
    most.read_config(0x42, &mut control);
    assert_eq!(u16::from_le_bytes(control), 511, "N-1 encoded");
    let machine = probe(Box::new(Wide(vec![8; 300])));
    assert_eq!((machine.vectors, machine.get(0x12, 2)), (301, 300));
    let (last, end) = (machine.notify_offset(299), machine.notify.offset + machine.notify.length);
    assert!(last + 2 <= end, "4.1.4.4.1");
    assert_eq!(notify_offset(299), last);
}
