// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that a driver has started, without a transport, beside the model of its queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cvmm_devices::queue::QueueLayout;
use cvmm_devices::virtio::{Core, DeviceType, Interrupt, feature};

use crate::driver::{Driver, Start};
use crate::memory::Memory;
use crate::spec::queue::{Broken, Layout, Queue, Rules, Turn};

/// Counts notifications.
#[derive(Debug, Default)]
pub struct Interrupts {
    used_buffer: AtomicU32,
    config_change: AtomicU32,
}

impl Interrupt for Interrupts {
    fn used_buffer(&self, _queue: u16) {
        self.used_buffer.fetch_add(1, Ordering::Relaxed);
    }
    fn config_change(&self) {
        self.config_change.fetch_add(1, Ordering::Relaxed);
    }
    fn reset(&self) {
        self.used_buffer.store(0, Ordering::Relaxed);
        self.config_change.store(0, Ordering::Relaxed);
    }
}

/// See above.
#[derive(Debug)]
pub struct Session {
    core: Core,
    /// The pool, and the model of its contents.
    pub memory: Memory,
    /// The driver.
    pub driver: Driver,
    queues: Vec<Option<Queue>>,
    interrupts: Arc<Interrupts>,
    max_size: u16,
    /// The model says that the device needs a reset.
    pub broken: bool,
}

impl Session {
    /// A device that `start` starts, with a pool of its own. Of the features, the two of the queues and
    /// `optional` are up for choice.
    pub fn new(device: impl FnOnce(&Memory) -> Box<dyn DeviceType>) -> Self {
        let memory = Memory::new();
        let device = device(&memory);
        let max_size = device.max_queue_sizes()[0];
        let interrupts = Arc::<Interrupts>::default();
        let core = Core::new("device", device, memory.gate().clone(), interrupts.clone());
        let driver = Driver::default();
        Self { core, memory, driver, queues: Vec::new(), interrupts, max_size, broken: false }
    }

    /// virtio 1.3, 3.1.1, from the reset on. Returns the features that the device has.
    pub fn start(&mut self, start: &Start, optional: &[u64]) -> u64 {
        let choices = [feature::INDIRECT_DESC, feature::EVENT_IDX];
        let chosen = |(bit, feature): (u32, &u64)| if start.features >> bit & 1 != 0 { *feature } else { 0 };
        let choices: u64 = (0..).zip(choices.iter().chain(optional)).map(chosen).sum();
        let features = choices | feature::VERSION_1 | feature::ACCESS_PLATFORM;
        let rules = Rules {
            indirect: features & feature::INDIRECT_DESC != 0,
            event_idx: features & feature::EVENT_IDX != 0,
        };
        for status in [0, 1, 3] {
            self.core.set_status(status);
        }
        for select in [0, 1] {
            let half = u32::try_from(features >> (32 * select) & 0xffff_ffff).expect("32 bits");
            self.core.set_driver_features(select, half);
        }
        self.core.set_status(11);
        assert_eq!(self.core.status(), 11, "a subset of what is offered is accepted");
        self.broken = false;
        let set_up = |index| {
            start.queues.get(index).map_or(Layout { size: 16, ..good(index) }, |setup| setup.layout(index))
        };
        let layouts: Vec<_> = (0..self.core.queue_count()).map(set_up).collect();
        self.driver = Driver::new(layouts.clone());
        self.queues.clear();
        let refusals = self.refusals();
        let mut wrong = 0;
        for (index, layout) in (0..).zip(layouts) {
            let [descriptor_table, available_ring, used_ring] = layout.areas;
            let real = QueueLayout { size: layout.size, descriptor_table, available_ring, used_ring };
            self.core.change_queue_layout(index, |layout| *layout = real);
            self.core.enable_queue(index);
            let queue = Queue::enable(self.memory.shadow(), layout, self.max_size, rules);
            assert_eq!(self.core.queue_enabled(index), queue.is_some(), "queue {index}: {layout:x?}");
            wrong += u64::from(queue.is_none());
            self.queues.push(queue);
        }
        assert_eq!(self.refusals() - refusals, wrong, "a refusal for each queue that is not in the pool");
        self.core.set_status(15);
        self.broken = wrong > 0;
        self.check_status();
        if self.broken {
            self.queues.fill(None);
        }
        features
    }

    /// Whether the device works.
    pub fn runs(&self) -> bool {
        !self.broken
    }

    /// The device has a turn at a queue, and the model has one.
    pub fn serve(
        &mut self,
        queue: u8,
        model: impl FnOnce(u16, &mut Queue, &mut Memory) -> Result<Turn, Broken>,
    ) {
        let index = queue % u8::try_from(self.queues.len().max(1)).expect("few");
        self.take_interrupts();
        let (refusals, rings) = (self.refusals(), self.memory.gate().audit().rings().accesses);
        let more = self.core.handle().serve(index.into());
        let interrupts = self.take_interrupts();
        let steps = self.memory.gate().audit().rings().accesses - rings;
        let size = u64::from(self.max_size);
        assert!(steps <= 70 * (size + 12), "{steps} ring accesses in a turn");
        let turn = match (self.broken, &mut self.queues[usize::from(index)]) {
            (false, Some(queue)) => model(index.into(), queue, &mut self.memory),
            _ => Ok(Turn::default()),
        };
        match turn {
            Ok(turn) => {
                assert_eq!(
                    interrupts,
                    (u32::from(turn.interrupt), 0),
                    "notifications: used buffer, configuration"
                );
                assert_eq!((more, self.refusals()), (turn.more, refusals), "more to do; refusals");
            }
            Err(Broken) => {
                self.broken = true;
                assert_eq!((more, self.refusals()), (false, refusals + 1), "more to do; refusals");
                assert_eq!(interrupts.1, 1, "a configuration change notification");
            }
        }
        self.check_status();
        self.memory.check();
    }

    fn check_status(&self) {
        let expected = if self.broken { 15 | 64 } else { 15 };
        assert_eq!(self.core.status(), expected, "DRIVER_OK, and DEVICE_NEEDS_RESET after a refusal only");
    }

    fn take_interrupts(&self) -> (u32, u32) {
        let Interrupts { used_buffer, config_change } = &*self.interrupts;
        (used_buffer.swap(0, Ordering::Relaxed), config_change.swap(0, Ordering::Relaxed))
    }

    fn refusals(&self) -> u64 {
        self.memory.gate().audit().refusals().total
    }
}

fn good(index: usize) -> Layout {
    crate::driver::Setup::Good(4).layout(index)
}
