// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of virtio-mmio (virtio 1.3, 4.2.2): what each reads as, what each write does, and what the device then
//! does in the pool.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use cvmm_devices::bus::BusDevice;
use cvmm_devices::virtio::mmio::{MmioInterrupt, MmioTransport};
use cvmm_devices::virtio::{Core as RealCore, EventFds, Handle};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::width::Width;
use crate::driver::{Act, Driver, MAX_ACTS, Place, Setup};
use crate::echo::{self, Echo, Log};
use crate::memory::Memory;
use crate::profile::Profile;
use crate::spec::core::{Core, Step, half};

/// Queues of the device.
const QUEUES: usize = 2;

#[derive(Arbitrary, Debug)]
struct Input {
    profile: Profile,
    accesses: Vec<Access>,
}

#[derive(Arbitrary, Debug)]
enum Access {
    /// Reads anywhere.
    Read(u16, Width),
    /// Reads a register.
    ReadRegister(u8),
    /// Writes anywhere.
    Write(u16, Width, u32),
    /// Writes a register.
    WriteRegister(u8, Value),
    /// The steps of an initialisation, without one of them.
    Initialise(u8, Setup),
    /// Something in the pool.
    Pool(Act<Vec<u8>>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Small(u8),
    LowOf(Place),
    HighOf(Place),
    Any(u32),
}

impl Value {
    fn number(self) -> u32 {
        match self {
            Self::Small(value) => value.into(),
            Self::LowOf(place) => half(place.address(&[]), 0),
            Self::HighOf(place) => half(place.address(&[]), 1),
            Self::Any(value) => value,
        }
    }
}

/// The transport and its model.
struct Bench {
    transport: MmioTransport,
    handle: Arc<Handle>,
    notifications: Arc<EventFds>,
    line: Arc<MmioInterrupt>,
    memory: Memory,
    log: Log,
    model: Core,
    /// DeviceFeaturesSel, DriverFeaturesSel, QueueSel.
    selected: [u32; 3],
    interrupt_status: u32,
    driver: Driver,
}

impl Bench {
    fn new(profile: Profile) -> Self {
        let (memory, log) = (Memory::new(), Log::default());
        let line = Arc::new(MmioInterrupt::new(EventFd::new(EFD_NONBLOCK).expect("an eventfd")));
        let device = Box::new(Echo::new(QUEUES, &log));
        let core = RealCore::new("device", device, memory.gate().clone(), line.clone())
            .with_restricted_dma(profile.restricted());
        let notifications = Arc::new(EventFds::new(QUEUES).expect("eventfds"));
        let handle = Arc::clone(core.handle());
        let transport = MmioTransport::new(core, line.clone(), notifications.clone());
        let layouts = (0..QUEUES).map(|index| Setup::Good(4).layout(index)).collect();
        Self {
            transport,
            handle,
            notifications,
            line,
            memory,
            log,
            model: Core::new(QUEUES, profile),
            selected: [0; 3],
            interrupt_status: 0,
            driver: Driver::new(layouts),
        }
    }

    /// What a read must give.
    fn expected(&self, offset: u64, len: usize) -> Vec<u8> {
        if let Some(at) = offset.checked_sub(0x100) {
            return self.model.config(at, len);
        }
        // 4.2.2.2: registers are read with 32 bits, aligned.
        if len != 4 || !offset.is_multiple_of(4) {
            return vec![0; len];
        }
        let queue = self.model.queue(self.selected[2]);
        let value = match offset {
            0x000 => 0x7472_6976,
            0x004 => 2,
            0x008 => 2,
            0x00c => 0x6d6d_7663,
            0x010 => self.model.offered(self.selected[0]),
            0x034 => queue.map_or(0, |_| echo::QUEUE_SIZE.into()),
            0x044 => queue.is_some_and(|queue| queue.enabled).into(),
            0x060 => self.interrupt_status,
            0x070 => self.model.status().into(),
            0x0b0..=0x0bc => u32::MAX,
            0x0d0 | 0x0d4 => half(self.model.named_pool()[0], u32::from(offset == 0x0d4)),
            0x0d8 | 0x0dc => half(self.model.named_pool()[1], u32::from(offset == 0x0dc)),
            0x0fc => self.model.generation,
            _ => 0,
        };
        value.to_le_bytes().to_vec()
    }

    fn read(&self, offset: u64, len: usize) {
        let mut data = vec![0xa5; len];
        self.transport.read(offset, &mut data);
        assert_eq!(data, self.expected(offset, len), "{len} bytes at {offset:#x}");
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.transport.write(offset, data);
        let mut notified = None;
        if let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) {
            notified = self.write_register(offset, value);
        }
        self.work(notified);
    }

    /// What a write must do. Returns the queue that it notifies.
    fn write_register(&mut self, offset: u64, value: u32) -> Option<usize> {
        let queue = self.selected[2];
        match offset {
            0x014 => self.selected[0] = value,
            0x024 => self.selected[1] = value,
            0x030 => self.selected[2] = value,
            0x020 => self.model.accept(self.selected[1], value),
            0x038 => {
                // A size of more than 16 bits is none.
                let size = u16::try_from(value).unwrap_or(0);
                _ = self.model.layout(queue).map(|layout| layout.size = size);
            }
            0x044 if value == 1 && self.model.enable(queue, self.memory.shadow()) => {
                self.interrupt_status |= 2
            }
            0x044 if value == 0 => self.model.disable(queue),
            0x050 => return usize::try_from(value).ok().filter(|queue| *queue < QUEUES),
            0x064 => self.interrupt_status &= !value,
            0x070 => {
                if let Ok(status) = u8::try_from(value)
                    && self.model.set_status(status) == Step::Reset
                {
                    self.interrupt_status = 0;
                }
            }
            0x080 | 0x084 | 0x090 | 0x094 | 0x0a0 | 0x0a4 => {
                let area = usize::try_from((offset - 0x80) / 0x10).expect("small");
                if let Some(layout) = self.model.layout(queue) {
                    let old = layout.areas[area];
                    layout.areas[area] = match offset % 0x10 {
                        0 => old >> 32 << 32 | u64::from(value),
                        _ => old & 0xffff_ffff | u64::from(value) << 32,
                    };
                }
            }
            _ => {}
        }
        None
    }

    /// The event loop: a queue that was notified is served; no other.
    fn work(&mut self, notified: Option<usize>) {
        for (index, fd) in self.notifications.iter().enumerate() {
            assert_eq!(fd.read().is_ok(), notified == Some(index), "a notification of queue {index}");
        }
        if let Some(index) = notified {
            let index = u16::try_from(index).expect("few");
            let more = self.handle.serve(index);
            let mut read = Vec::new();
            match self.model.serve(index, self.memory.shadow(), &mut read) {
                Ok(turn) => {
                    assert_eq!(more, turn.more, "more to do");
                    self.interrupt_status |= u32::from(turn.interrupt);
                }
                Err(_) => self.interrupt_status |= 3,
            }
            assert_eq!(std::mem::take(&mut *self.log.lock().unwrap()), read, "what the device read");
        }
        self.memory.check();
        self.transport.with_core(|core| self.model.check(core));
        self.read(0x60, 4);
    }

    fn initialise(&mut self, without: u8, setup: Setup) {
        let chosen = |step: u8| without % 16 != step;
        let feature = if chosen(7) { self.model.feature() } else { 0 };
        let mut write = |step, register, value: u32| {
            if chosen(step) {
                self.write(register, &value.to_le_bytes());
            }
        };
        write(0, 0x70, 0);
        write(1, 0x70, 1);
        write(1, 0x70, 3);
        write(2, 0x24, 0);
        write(2, 0x20, half(feature, 0) | 0x3000_0021 & if chosen(6) { u32::MAX } else { 1 });
        write(2, 0x24, 1);
        write(2, 0x20, half(feature, 1) | 0x3);
        write(3, 0x70, 11);
        for index in [0, 1] {
            let layout = setup.layout(usize::from(index == 1));
            write(4, 0x30, index);
            write(4, 0x38, layout.size.into());
            for (register, area) in [0x80, 0x90, 0xa0].into_iter().zip(layout.areas) {
                write(4, register, half(area, 0));
                write(4, register + 4, half(area, 1));
            }
            write(4, 0x44, 1);
        }
        write(5, 0x70, 15);
        let layouts = self.model.queues.iter().map(|queue| queue.layout).collect();
        self.driver = Driver::new(layouts);
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let Input { profile, accesses } = input;
    let mut bench = Bench::new(profile);
    for access in accesses.iter().take(MAX_ACTS) {
        match access {
            Access::Read(offset, width) => bench.read(u64::from(*offset % 0x120), width.bytes()),
            Access::ReadRegister(register) => bench.read(u64::from(*register) * 4 % 0x120, 4),
            Access::Write(offset, width, value) => {
                let bytes = [value.to_le_bytes(); 5].concat();
                bench.write(u64::from(*offset % 0x120), &bytes[..width.bytes()]);
            }
            Access::WriteRegister(register, value) => {
                bench.write(u64::from(*register) * 4 % 0x120, &value.number().to_le_bytes());
            }
            Access::Initialise(steps, setup) => bench.initialise(*steps, *setup),
            Access::Pool(Act::Serve(queue)) => bench.write(0x50, &u32::from(*queue).to_le_bytes()),
            Access::Pool(act) => bench.driver.act(&mut bench.memory, act),
        }
    }
    // The line rises with each interrupt; when none is asserted that was never acknowledged, it need not have.
    assert!(bench.interrupt_status == 0 || bench.line.line().read().is_ok(), "an interrupt without its line");
}
