// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine with a PCI bus.

use std::rc::Rc;
use std::sync::Arc;

use cvmm_firmware::Range;

use super::{BAR_SIZE, ECAM};
use crate::bus::Bus;
use crate::pci::{ConfigPorts, Ecam, PciBus};
use crate::pool::Gate;
use crate::testing::RecordingSlot;
use crate::virtio::pci::{PciInterrupt, PciTransport};
use crate::virtio::{Core, DeviceType, EventFds, RestrictedDma, Worker};

/// What the machine has of a function.
pub(crate) struct Plugged {
    pub(crate) transport: Arc<PciTransport>,
    pub(crate) interrupt: Arc<PciInterrupt>,
    pub(crate) slot: Arc<RecordingSlot>,
}

/// A host bridge with virtio devices from device 1 on.
pub(crate) struct PciMachine {
    pub(crate) memory: Bus,
    pub(crate) ports: Bus,
    pub(crate) functions: Vec<Plugged>,
}

impl PciMachine {
    /// The BAR of device `n` is the `n`th from 0xc0000000.
    pub(crate) fn new(devices: Vec<Box<dyn DeviceType>>, gate: &Gate) -> (Rc<Self>, Vec<Worker>) {
        Self::saying(devices, gate, RestrictedDma::default())
    }

    /// The same, with devices that say `restricted` of their pool.
    pub(crate) fn saying(
        devices: Vec<Box<dyn DeviceType>>,
        gate: &Gate,
        restricted: RestrictedDma,
    ) -> (Rc<Self>, Vec<Worker>) {
        Self::build(devices, gate, restricted, None)
    }

    /// With one device, which has its pool, all of it, in BAR 2 at `bar`.
    pub(crate) fn with_device_memory(
        device: Box<dyn DeviceType>,
        gate: &Gate,
        restricted: RestrictedDma,
        bar: Range,
    ) -> (Rc<Self>, Worker) {
        let (machine, mut workers) = Self::build(vec![device], gate, restricted, Some(bar));
        (machine, workers.remove(0))
    }

    fn build(
        devices: Vec<Box<dyn DeviceType>>,
        gate: &Gate,
        restricted: RestrictedDma,
        memory: Option<Range>,
    ) -> (Rc<Self>, Vec<Worker>) {
        let mut bus = PciBus::default();
        let (mut functions, mut workers) = (Vec::new(), Vec::new());
        for (number, device) in (1u8..).zip(devices) {
            let slot = Arc::<RecordingSlot>::default();
            let queues = u16::try_from(device.max_queue_sizes().len()).unwrap();
            let interrupt = Arc::new(PciInterrupt::new(queues, slot.clone()).unwrap());
            let core =
                Core::new("device", device, gate.clone(), interrupt.clone()).with_restricted_dma(restricted);
            let notifications = Arc::new(EventFds::new(core.queue_count()).unwrap());
            workers.push(Worker::new(core.handle().clone(), notifications.clone()));
            let bar = Range::fixed(0xc000_0000 + BAR_SIZE * u64::from(number), BAR_SIZE);
            let transport =
                PciTransport::new(core, interrupt.clone(), notifications, slot.clone(), bar).unwrap();
            let transport = Arc::new(match memory {
                Some(memory) => transport.with_device_memory(memory).unwrap(),
                None => transport,
            });
            bus.insert(number, transport.clone()).unwrap();
            functions.push(Plugged { transport, interrupt, slot });
        }
        let bus = Arc::new(bus);
        let (mut memory, mut ports) = (Bus::default(), Bus::default());
        memory.insert(Range::fixed(ECAM, 1 << 20), Arc::new(Ecam(bus.clone()))).unwrap();
        memory.set_movable(bus.clone());
        ports.insert(Range::fixed(0xcf8, 8), Arc::new(ConfigPorts::new(bus))).unwrap();
        (Rc::new(Self { memory, ports, functions }), workers)
    }
}
