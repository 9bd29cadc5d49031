// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Expectations are from virtio 1.3: 2.1, 2.2, 3.1 and 4.2; the clause stands at each test. Register offsets are
//! written out from the table in 4.2.2.

mod refusals;

use std::rc::Rc;
use std::sync::Mutex;

use event_manager::{EventManager, SubscriberOps};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::pool::Refusal;
use crate::queue::{Chain, Turn};
use crate::testing::{Desc, Driver, INDIRECT_DESC, Memory, REQUIRED};
use crate::virtio::{DeviceType, Kind, Queues, Worker};

const DEVICE_FEATURES: u64 = 0x10;
const DEVICE_FEATURES_SEL: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SEL: u64 = 0x24;
const QUEUE_SEL: u64 = 0x30;
const QUEUE_NUM_MAX: u64 = 0x34;
const QUEUE_NUM: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACK: u64 = 0x64;
const STATUS: u64 = 0x70;
/// Low halves of the addresses of the three areas; the high half follows 4 bytes later.
const AREAS: [u64; 3] = [0x80, 0x90, 0xa0];
const CONFIG: u64 = 0x100;

const READ_ONLY: &[u64] = &[0x00, 0x04, 0x08, 0x0c, 0x10, 0x34, 0x60, 0xb0, 0xb4, 0xb8, 0xbc, 0xfc];
const WRITE_ONLY: &[u64] =
    &[0x14, 0x20, 0x24, 0x30, 0x38, 0x50, 0x64, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac];
const READ_WRITE: &[u64] = &[QUEUE_READY, STATUS];

/// What the toy was told.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Start(u64),
    Stop,
    Serve(u16),
}

/// Fills the device-writable buffers of a chain with 0x5a, and offers feature 3 of its own.
#[derive(Debug)]
struct Toy {
    calls: Arc<Mutex<Vec<Call>>>,
    chain: Chain,
}

impl DeviceType for Toy {
    fn kind(&self) -> Kind {
        Kind::Rng
    }
    fn features(&self) -> u64 {
        1 << 3
    }
    fn max_queue_sizes(&self) -> &[u16] {
        &[16, 8]
    }
    fn config_space(&self) -> Vec<u8> {
        (1..=10).collect()
    }
    fn start(&mut self, features: u64) {
        self.calls.lock().unwrap().push(Call::Start(features));
    }
    fn stop(&mut self) {
        self.calls.lock().unwrap().push(Call::Stop);
    }
    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal> {
        self.calls.lock().unwrap().push(Call::Serve(index));
        let Some(queue) = queues.get(index) else { return Ok(Turn::default()) };
        queue.turn(&mut self.chain, |gate, chain| {
            let bytes = [0x5a; 64];
            let written = crate::queue::parts(chain.writable(), 0, 64).write(gate, &bytes).unwrap();
            Ok(u32::try_from(written).unwrap())
        })
    }
}

/// A toy behind its registers, with its worker in an event loop.
struct Bench {
    memory: Rc<Memory>,
    transport: MmioTransport,
    interrupt: Arc<MmioInterrupt>,
    events: EventManager<Worker>,
    calls: Arc<Mutex<Vec<Call>>>,
    drivers: Vec<Driver>,
}

impl Bench {
    fn new() -> Self {
        let memory = Memory::new();
        let calls = Arc::default();
        let toy = Toy { calls: Arc::clone(&calls), chain: Chain::default() };
        let interrupt = Arc::new(MmioInterrupt::new(EventFd::new(EFD_NONBLOCK).unwrap()));
        let core = Core::new("toy", Box::new(toy), memory.gate.clone(), interrupt.clone());
        let notifications = Arc::new(EventFds::new(core.queue_count()).unwrap());
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(Worker::new(core.handle().clone(), notifications.clone()));
        let transport = MmioTransport::new(core, interrupt.clone(), notifications);
        let drivers = [16, 8].map(|size| Driver::new(&memory, size)).into();
        Self { memory, transport, interrupt, events, calls, drivers }
    }

    fn read(&self, register: u64) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    fn accept(&self, features: u64) {
        for select in [0u32, 1] {
            self.write(DRIVER_FEATURES_SEL, select);
            self.write(DRIVER_FEATURES, u32::try_from(features >> (32 * select) & 0xffff_ffff).unwrap());
        }
    }

    /// 4.2.3.2, up to QueueReady.
    fn set_up_queue(&self, index: u32) {
        let layout = self.drivers[index as usize].layout;
        self.write(QUEUE_SEL, index);
        self.write(QUEUE_NUM, u32::from(layout.size));
        let addresses = [layout.descriptor_table, layout.available_ring, layout.used_ring];
        for (register, address) in AREAS.into_iter().zip(addresses) {
            self.write(register, u32::try_from(address & 0xffff_ffff).unwrap());
            self.write(register + 4, u32::try_from(address >> 32).unwrap());
        }
    }

    /// From reset to `status`, by the steps of 3.1.1, with both queues set up if that is DRIVER_OK.
    fn initialise(&mut self, status: u32) {
        self.drivers = [16, 8].map(|size| Driver::new(&self.memory, size)).into();
        self.write(STATUS, 0);
        for step in [1, 3, 11, 15].into_iter().filter(|step| *step <= status) {
            match step {
                11 => self.accept(REQUIRED | INDIRECT_DESC | 1 << 3),
                15 => [0, 1].into_iter().for_each(|queue| {
                    self.set_up_queue(queue);
                    self.write(QUEUE_READY, 1);
                    assert_eq!(self.read(QUEUE_READY), 1);
                }),
                _ => {}
            }
            self.write(STATUS, step);
            assert_eq!(self.read(STATUS), step);
        }
    }

    /// The same, in a pool with nothing in it.
    fn restart(&mut self, status: u32) {
        self.write(STATUS, 0);
        self.memory.clear();
        self.initialise(status);
    }

    fn started() -> Self {
        let mut bench = Self::new();
        bench.initialise(15);
        bench
    }

    /// Notifies a queue and lets the worker do what there is.
    fn notify(&mut self, queue: u32) {
        self.write(NOTIFY, queue);
        while self.events.run_with_timeout(0).unwrap() > 0 {}
    }

    /// One request on `queue`; what came back.
    fn request(&mut self, queue: u16) -> Vec<(u32, u32)> {
        let driver = &mut self.drivers[usize::from(queue)];
        driver.request(&[], &[4]);
        self.notify(u32::from(queue));
        self.drivers[usize::from(queue)].take_used()
    }

    /// How often the interrupt line was pulsed since the last call.
    fn edges(&self) -> u64 {
        self.interrupt.line().read().unwrap_or(0)
    }

    fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// Everything that can be read, and what the driver has set.
    fn snapshot(&self) -> (Vec<u32>, String) {
        let registers = READ_ONLY.iter().chain(READ_WRITE).map(|&register| self.read(register)).collect();
        let core = self.transport.with_core(|core| format!("{core:?}"));
        (registers, core)
    }
}

/// 4.2.2, 4.2.2.1; device ids: 5.
#[test]
fn identification_registers_say_virtio_2_and_the_device() {
    let bench = Bench::new();
    assert_eq!(bench.read(0x00), 0x7472_6976);
    assert_eq!(bench.read(0x04), 2);
    assert_eq!(bench.read(0x08), 4);
    assert_eq!([Kind::Net, Kind::Blk, Kind::Rng].map(Kind::device_id), [1, 2, 4]);
    // No shared memory regions: length and base of -1.
    assert!([0xb0, 0xb4, 0xb8, 0xbc].iter().all(|&register| bench.read(register) == u32::MAX));
}

/// 4.2.2: bits `DeviceFeaturesSel * 32` and up. Bit 3 is the toy's own; 28: INDIRECT_DESC, 29: EVENT_IDX,
/// 32: VERSION_1, 33: ACCESS_PLATFORM.
#[test]
fn device_features_are_read_32_at_a_time() {
    let bench = Bench::new();
    for (select, bits) in [(0, 1 << 3 | 1 << 28 | 1 << 29), (1, 0b11), (2, 0), (u32::MAX, 0)] {
        bench.write(DEVICE_FEATURES_SEL, select);
        assert_eq!(bench.read(DEVICE_FEATURES), bits, "{select}");
    }
}

/// 4.2.2: directions.
#[test]
fn writes_to_read_only_and_reserved_registers_have_no_effect() {
    for status in [0, 3, 11, 15] {
        let mut bench = Bench::new();
        bench.initialise(status);
        let before = bench.snapshot();
        for register in (0..CONFIG).step_by(4) {
            if !WRITE_ONLY.contains(&register) && !READ_WRITE.contains(&register) {
                [0, 1, 2, 0xff, u32::MAX].iter().for_each(|&value| bench.write(register, value));
                assert_eq!(bench.snapshot(), before, "{register:#x}");
            }
        }
    }
}

#[test]
fn write_only_and_reserved_registers_read_as_zero() {
    let bench = Bench::started();
    for register in (0..CONFIG).step_by(4) {
        if !READ_ONLY.contains(&register) && !READ_WRITE.contains(&register) {
            assert_eq!(bench.read(register), 0, "{register:#x}");
        }
    }
}

/// 4.2.2.2: "MUST only use 32 bit wide and aligned reads and writes".
#[test]
fn registers_answer_only_to_aligned_32_bit_accesses() {
    let bench = Bench::started();
    let before = bench.snapshot();
    for register in 0..CONFIG {
        for len in [1, 2, 4, 8] {
            if len == 4 && register % 4 == 0 {
                continue;
            }
            let mut data = vec![0xaa; len];
            bench.transport.read(register, &mut data);
            assert_eq!(data, vec![0; len], "{register:#x}, {len} bytes");
            for byte in [0, 1, 0xff] {
                bench.transport.write(register, &vec![byte; len]);
                assert_eq!(bench.snapshot(), before, "{register:#x}, {len} bytes of {byte}");
            }
        }
    }
}

/// 4.2.2.2: 8, 16 and 32 bit accesses; 2.5.3: readable before FEATURES_OK. 8 bytes at once is what a compiler makes of
/// a 64-bit field. The toy's space has 10 bytes.
#[test]
fn the_configuration_space_is_read_in_any_width() {
    let bench = Bench::new();
    let bytes: Vec<u8> = (1..=10).chain([0; 30]).collect();
    let generation = bench.read(0xfc);
    for len in [1, 2, 4, 8] {
        for at in 0..30 {
            let mut data = vec![0xaa; len];
            bench.transport.read(CONFIG + at as u64, &mut data);
            assert_eq!(data, bytes[at..at + len]);
            bench.transport.write(CONFIG + at as u64, &data.iter().map(|byte| !byte).collect::<Vec<_>>());
        }
    }
    bench.transport.read(WINDOW_SIZE - 8, &mut [0; 8]);
    assert_eq!(bench.read(0xfc), generation);
    let mut data = [0; 10];
    bench.transport.read(CONFIG, &mut data);
    assert_eq!(data, bytes[..10], "writes have no effect");
}

/// 3.1.1 and 4.2.3.2, from the reset to the first used buffer.
#[test]
fn a_driver_that_follows_the_specification_gets_a_working_device() {
    let mut bench = Bench::new();
    assert_eq!(bench.read(STATUS), 0);
    for (queue, size) in [(0, 16), (1, 8), (2, 0), (0xffff, 0), (0x1_0000, 0), (u32::MAX, 0)] {
        bench.write(QUEUE_SEL, queue);
        assert_eq!((bench.read(QUEUE_NUM_MAX), bench.read(QUEUE_READY)), (size, 0), "{queue}");
    }
    bench.initialise(15);
    let accepted = REQUIRED | INDIRECT_DESC | 1 << 3;
    assert_eq!(bench.take_calls(), [Call::Stop, Call::Start(accepted)]);
    for queue in [1, 0] {
        assert_eq!(bench.request(queue), [(0, 4)]);
        assert_eq!((bench.read(INTERRUPT_STATUS), bench.edges()), (1, 1));
        bench.write(INTERRUPT_ACK, 1);
        assert_eq!(bench.take_calls(), [Call::Serve(queue)]);
    }
    bench.transport.with_core(|core| {
        let summary = core.summary();
        assert_eq!((summary.accepted, summary.refused_offer), (accepted, None));
        let layouts = bench.drivers.iter().map(|driver| driver.layout);
        assert_eq!(summary.queues, (0..).zip(layouts).collect::<Vec<_>>());
    });
    // There are no more queues to notify.
    [2, 0xffff, 0x1_0000, u32::MAX].into_iter().for_each(|queue| bench.notify(queue));
    assert_eq!(bench.take_calls(), []);
}

/// 2.1.1: a driver sets bits in the order of 3.1.1, clears none, and may set FAILED. What is none of these has no effect.
#[test]
fn a_status_out_of_order_has_no_effect() {
    let mut bench = Bench::new();
    for from in [0u32, 1, 3, 11, 15] {
        let next = [(0, 1), (1, 3), (3, 11), (11, 15)].iter().find(|step| step.0 == from).map(|step| step.1);
        for written in (1..=0xff).filter(|written| *written != 64).chain([
            0x100,
            0x100 | from,
            0x8000_0000,
            0xffff_ff00 | from,
        ]) {
            if Some(written & !64) == next {
                continue;
            }
            bench.restart(from);
            bench.write(STATUS, written);
            let failed = written & !64 == from | 128;
            assert_eq!(
                bench.read(STATUS),
                if failed { from | 128 } else { from },
                "{from:#x} -> {written:#x}"
            );
        }
    }
}

/// 4.2.2: "Writing zero (0x0) to this register triggers a device reset"; DEVICE_NEEDS_RESET alone is not zero.
#[test]
fn only_zero_resets() {
    let mut bench = Bench::new();
    for from in [1, 3, 11, 15] {
        bench.restart(from);
        bench.write(STATUS, 64);
        assert_eq!(bench.read(STATUS), from);
    }
}

/// 2.2.1: a driver must not accept what was not offered, and no bit past 63 is.
#[test]
fn features_ok_is_refused_for_bits_past_63() {
    let bench = Bench::new();
    [0, 1, 3].iter().for_each(|&status| bench.write(STATUS, status));
    bench.accept(REQUIRED);
    bench.write(DRIVER_FEATURES_SEL, 2);
    bench.write(DRIVER_FEATURES, 1);
    bench.write(STATUS, 11);
    assert_eq!(bench.read(STATUS), 3);
}

/// 2.2.2, 6.1 (VERSION_1: a device MAY fail to operate further without it; ACCESS_PLATFORM likewise).
#[test]
fn features_ok_is_refused_for_features_that_do_not_do() {
    let good = REQUIRED | INDIRECT_DESC | 1 << 3;
    let bad = [
        0,
        good & !(1 << 32),
        good & !(1 << 33),
        INDIRECT_DESC,
        good | 1,
        good | 1 << 27,
        good | 1 << 34,
        good | 1 << 63,
    ];
    let bench = Bench::new();
    for (features, accepted) in bad.map(|features| (features, false)).into_iter().chain([(good, true)]) {
        [0, 1, 3].iter().for_each(|&status| bench.write(STATUS, status));
        bench.accept(features);
        bench.write(STATUS, 11);
        assert_eq!(bench.read(STATUS), if accepted { 11 } else { 3 }, "{features:#x}");
        let refused = bench.transport.with_core(|core| core.summary().refused_offer.is_some());
        assert_eq!(refused, !accepted);
        if !accepted {
            bench.write(STATUS, 15);
            assert_eq!(bench.read(STATUS), 3);
        }
    }
    assert!(!bench.calls.lock().unwrap().iter().any(|call| matches!(call, Call::Start(_))));
}

/// 3.1.1, step 5: "The driver MUST NOT accept new feature bits after this step." 2.2: renegotiation needs a reset.
#[test]
fn features_are_frozen_after_features_ok() {
    let mut bench = Bench::new();
    bench.initialise(11);
    bench.accept(REQUIRED);
    bench.write(STATUS, 15);
    bench.accept(0);
    assert_eq!(bench.take_calls().last(), Some(&Call::Start(REQUIRED | INDIRECT_DESC | 1 << 3)));
    // ... and are not remembered over a reset.
    [0, 1, 3, 11].iter().for_each(|&status| bench.write(STATUS, status));
    assert_eq!(bench.read(STATUS), 3);
}
