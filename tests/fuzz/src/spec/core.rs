// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver sees of a virtio device, whatever the transport: status, features, queues, configuration space
//! (virtio 1.3, 2 and 3.1.1). The device is an [`Echo`](crate::echo::Echo).

use cvmm_devices::queue::QueueLayout;

use super::queue::{Broken, Layout, Queue, Rules, Turn};
use crate::echo;
use crate::memory::{BASE, SIZE, Shadow};
use crate::profile::Profile;

/// VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM: who does without is not served.
const REQUIRED: u64 = 1 << 32 | 1 << 33;
const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
/// What is offered by any device.
const OFFERED: u64 = REQUIRED | INDIRECT_DESC | EVENT_IDX | echo::FEATURES;

/// What became of a write to the device status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A reset.
    Reset,
    /// DRIVER_OK.
    Started,
    /// Anything else.
    Other,
}

/// A queue's registers.
#[derive(Clone, Debug)]
pub struct Registers {
    /// What was written.
    pub layout: Layout,
    /// Whether it is enabled.
    pub enabled: bool,
    queue: Option<Queue>,
}

/// See above.
#[derive(Clone, Debug)]
pub struct Core {
    profile: Profile,
    status: u8,
    /// What the driver accepts.
    pub accepted: u64,
    beyond: bool,
    /// The queues.
    pub queues: Vec<Registers>,
    /// DEVICE_NEEDS_RESET.
    pub needs_reset: bool,
    /// Changes of the configuration space.
    pub generation: u32,
    /// DRIVER_OK was reached, and nothing was refused before.
    pub runs: bool,
    /// Refusals so far.
    pub refusals: u64,
}

impl Core {
    /// After power-on.
    pub fn new(queues: usize, profile: Profile) -> Self {
        let mut core = Self {
            profile,
            status: 0,
            accepted: 0,
            beyond: false,
            queues: Vec::with_capacity(queues),
            needs_reset: false,
            generation: 0,
            runs: false,
            refusals: 0,
        };
        let layout = Layout { size: echo::QUEUE_SIZE, ..Layout::default() };
        core.queues.resize(queues, Registers { layout, enabled: false, queue: None });
        core
    }

    /// The status as it is read.
    pub fn status(&self) -> u8 {
        self.status | if self.needs_reset { 64 } else { 0 }
    }

    /// The driver writes the status. Steps come in order (3.1.1), and each bit stays until a reset (2.1.1); a driver
    /// may give up at any time (128). What is no step has no effect.
    pub fn set_status(&mut self, written: u8) -> Step {
        if written == 0 {
            let (generation, refusals) = (self.generation, self.refusals);
            let needed = self.needs_reset;
            *self = Self { generation, refusals, ..Self::new(self.queues.len(), self.profile) };
            self.generation = self.generation.wrapping_add(u32::from(needed));
            return Step::Reset;
        }
        match (self.status, written & !64) {
            (0, 1) => self.status = 1,
            (1, 3) => self.status = 3,
            (3, 11) => {
                let required = REQUIRED | self.profile.required();
                let offered = OFFERED | self.profile.feature();
                let good =
                    self.accepted & !offered == 0 && self.accepted & required == required && !self.beyond;
                self.status = if good { 11 } else { 3 };
            }
            (11, 15) => {
                self.status = 15;
                self.runs = !self.needs_reset;
                return Step::Started;
            }
            (from, to) if to == from | 128 => self.status = to,
            _ => {}
        }
        Step::Other
    }

    /// 32 of the offered bits.
    pub fn offered(&self, select: u32) -> u32 {
        half(OFFERED | self.profile.feature(), select)
    }

    /// Address and length of the pool, where registers name it (resources/review/step4.md, 2); else zeros.
    pub fn named_pool(&self) -> [u64; 2] {
        if self.profile.names_pool() { [BASE, SIZE] } else { [0; 2] }
    }

    /// What the driver could accept: the feature beyond the standard's, or nothing.
    pub fn feature(&self) -> u64 {
        self.profile.feature()
    }

    /// The driver writes 32 of its bits.
    pub fn accept(&mut self, select: u32, bits: u32) {
        if self.status == 3 {
            match select {
                0 => self.accepted = self.accepted >> 32 << 32 | u64::from(bits),
                1 => self.accepted = self.accepted & 0xffff_ffff | u64::from(bits) << 32,
                _ => self.beyond |= bits != 0,
            }
        }
    }

    /// The registers of a queue that is there.
    pub fn queue(&self, index: u32) -> Option<&Registers> {
        self.queues.get(usize::try_from(index).ok()?)
    }

    /// The layout of a queue that may be written now.
    pub fn layout(&mut self, index: u32) -> Option<&mut Layout> {
        let setting_up = self.status == 11;
        let registers = self.queues.get_mut(usize::try_from(index).ok()?)?;
        (setting_up && !registers.enabled).then_some(&mut registers.layout)
    }

    /// The driver enables a queue. `true` if that was refused.
    pub fn enable(&mut self, index: u32, shadow: &Shadow) -> bool {
        let rules =
            Rules { indirect: self.accepted & INDIRECT_DESC != 0, event_idx: self.accepted & EVENT_IDX != 0 };
        let Some(layout) = self.layout(index).copied() else { return false };
        let queue = Queue::enable(shadow, layout, echo::QUEUE_SIZE, rules);
        let refused = queue.is_none();
        if let Some(registers) = self.queues.get_mut(usize::try_from(index).unwrap_or(usize::MAX)) {
            (registers.enabled, registers.queue) = (queue.is_some(), queue);
        }
        if refused {
            self.refuse();
        }
        refused
    }

    /// The driver disables a queue.
    pub fn disable(&mut self, index: u32) {
        if let Some(registers) = self.queues.get_mut(usize::try_from(index).unwrap_or(usize::MAX)) {
            (registers.enabled, registers.queue) = (false, None);
        }
    }

    /// The device refuses something: 2.1.2.
    pub fn refuse(&mut self) {
        self.refusals += 1;
        self.generation = self.generation.wrapping_add(u32::from(!self.needs_reset));
        self.needs_reset = true;
    }

    /// The configuration space from `offset` on: zeros past its end, and while the device needs a reset.
    pub fn config(&self, offset: u64, len: usize) -> Vec<u8> {
        let byte = |at: u64| usize::try_from(at).ok().and_then(|at| echo::CONFIG.get(at)).copied();
        let shown = |at| byte(at).filter(|_| !self.needs_reset).unwrap_or(0);
        (0..len as u64).map(|at| offset.checked_add(at).map_or(0, shown)).collect()
    }

    /// A turn at a queue, while the device may use memory. `Err` if the device refuses; then also the interrupt for
    /// what was served before is due.
    pub fn serve(&mut self, index: u16, shadow: &mut Shadow, log: &mut Vec<u8>) -> Result<Turn, Broken> {
        let runs = self.runs && !self.needs_reset;
        let queue = self.queues.get_mut(usize::from(index)).and_then(|registers| registers.queue.as_mut());
        let Some(queue) = queue.filter(|_| runs) else { return Ok(Turn::default()) };
        let turn = queue.turn(shadow, |shadow, chain| echo::model(shadow, chain, log));
        if turn.is_err() {
            self.refuse();
        }
        turn
    }

    /// Fails unless the real core has what the model has, and refused as often.
    pub fn check(&self, core: &cvmm_devices::virtio::Core) {
        self.check_registers(core);
        assert_eq!(core.summary().gate.audit().refusals().total, self.refusals, "refusals");
    }

    /// Fails unless the real core has what the model has.
    pub fn check_registers(&self, core: &cvmm_devices::virtio::Core) {
        assert_eq!(core.status(), self.status(), "device status");
        assert_eq!(core.config_generation(), self.generation, "configuration generation");
        for (index, registers) in (0u32..).zip(&self.queues) {
            let Layout { size, areas: [descriptor_table, available_ring, used_ring] } = registers.layout;
            let layout = QueueLayout { size, descriptor_table, available_ring, used_ring };
            assert_eq!(core.queue_layout(index), layout, "queue {index}");
            assert_eq!(core.queue_enabled(index), registers.enabled, "queue {index} is enabled");
        }
    }
}

/// One half of 64 bits, or nothing.
pub fn half(value: u64, select: u32) -> u32 {
    match select {
        0 | 1 => u32::try_from(value >> (32 * select) & 0xffff_ffff).expect("32 bits"),
        _ => 0,
    }
}
