// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The transport core: status, features and queue set-up of one device, the same for every transport.

use std::sync::Arc;

use super::status::{Step, bit, names as status_names, step};
use cvmm_firmware::Range;

use super::{DeviceType, Handle, HostIo, Interrupt, Kind, RESTRICTED_DMA, RestrictedDma, feature};
use crate::HostErrors;
use crate::pool::{Gate, Pool};
use crate::queue::{Queue, QueueFeatures, QueueLayout};

/// What a driver has set up for one queue.
#[derive(Debug)]
struct QueueSetup {
    max_size: u16,
    layout: QueueLayout,
    /// Enabled and, until DRIVER_OK, waiting here.
    queue: Option<Queue>,
    enabled: bool,
    /// The layout that was last enabled, for the report.
    last: Option<QueueLayout>,
}

/// The registers of a virtio device, whatever their layout.
#[derive(Debug)]
pub struct Core {
    name: String,
    kind: Kind,
    gate: Gate,
    config_space: Vec<u8>,
    offered: u64,
    restricted: RestrictedDma,
    /// Driver-owned bits of the device status.
    status: u8,
    /// Those that were ever set.
    reached: u8,
    driver_features: u64,
    /// The driver accepted a bit past the 64 that there are.
    accepted_beyond: bool,
    /// Features of the last successful negotiation.
    accepted: u64,
    /// Why FEATURES_OK was refused last.
    refused_offer: Option<String>,
    /// It was logged, once: a hostile driver can do this for ever.
    refusal_logged: bool,
    queues: Vec<QueueSetup>,
    handle: Arc<Handle>,
}

impl Core {
    /// The core of `device`, which may touch memory through `gate` only.
    pub fn new(name: &str, device: Box<dyn DeviceType>, gate: Gate, interrupt: Arc<dyn Interrupt>) -> Self {
        let queues = device
            .max_queue_sizes()
            .iter()
            .map(|&max_size| QueueSetup {
                max_size,
                layout: QueueLayout { size: max_size, ..QueueLayout::default() },
                queue: None,
                enabled: false,
                last: None,
            })
            .collect();
        Self {
            name: name.into(),
            kind: device.kind(),
            gate: gate.clone(),
            config_space: device.config_space(),
            offered: device.features() | feature::COMMON,
            restricted: RestrictedDma::default(),
            status: 0,
            reached: 0,
            driver_features: 0,
            accepted_beyond: false,
            accepted: 0,
            refused_offer: None,
            refusal_logged: false,
            queues,
            handle: Arc::new(Handle::new(name, device, &gate, interrupt)),
        }
    }

    /// Has the device say what `restricted` says of its pool.
    pub fn with_restricted_dma(mut self, restricted: RestrictedDma) -> Self {
        self.offered |= restricted.feature();
        if restricted.withholds_access_platform {
            self.offered &= !feature::ACCESS_PLATFORM;
        }
        self.restricted = restricted;
        self
    }

    /// The pool that the transport's registers name; none if they name none.
    pub fn named_pool(&self) -> Option<Range> {
        let named = self.restricted.names_pool && self.restricted.feature() != 0;
        self.gate.pool().range().filter(|_| named)
    }

    /// The only memory that it can reach.
    pub fn pool(&self) -> &Pool {
        self.gate.pool()
    }

    /// What the worker needs.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Which device type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of queues.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Device status (virtio 1.3, 2.1).
    pub fn status(&self) -> u8 {
        self.status | if self.handle.needs_reset() { bit::DEVICE_NEEDS_RESET } else { 0 }
    }

    /// The driver writes the device status.
    pub fn set_status(&mut self, written: u8) {
        match step(self.status, written) {
            Step::Reset => self.reset(),
            Step::Note(status) => self.status = status,
            Step::Features => self.accept_features(),
            Step::Start => self.start(),
            Step::Refused => log::debug!("{}: status {:#x} -> {written:#x}", self.name, self.status),
        }
        self.reached |= self.status;
    }

    /// 32 of the offered feature bits.
    pub fn device_features(&self, select: u32) -> u32 {
        half(self.offered, select)
    }

    /// The driver accepts features, 32 bits at a time. Without effect once FEATURES_OK is set.
    pub fn set_driver_features(&mut self, select: u32, bits: u32) {
        match (self.negotiating(), select) {
            (true, 0 | 1) => set_half(&mut self.driver_features, select, bits),
            (true, _) => self.accepted_beyond |= bits != 0,
            (false, _) => {}
        }
    }

    /// 32 of the feature bits that the driver has accepted so far.
    pub fn driver_features(&self, select: u32) -> u32 {
        half(self.driver_features, select)
    }

    /// Largest size of a queue, 0 if there is no such queue.
    pub fn max_queue_size(&self, index: u32) -> u16 {
        self.setup(index).map_or(0, |setup| setup.max_size)
    }

    /// The layout that the driver has written so far.
    pub fn queue_layout(&self, index: u32) -> QueueLayout {
        self.setup(index).map_or(QueueLayout::default(), |setup| setup.layout)
    }

    /// Changes the layout of a queue. Without effect while the queue is enabled, and outside the phase in which a
    /// driver sets up queues (virtio 1.3, 3.1.1, step 7).
    pub fn change_queue_layout(&mut self, index: u32, change: impl FnOnce(&mut QueueLayout)) {
        if self.setting_up()
            && let Some(setup) = self.setup_mut(index)
            && !setup.enabled
        {
            change(&mut setup.layout);
        }
    }

    /// Whether a queue is enabled.
    pub fn queue_enabled(&self, index: u32) -> bool {
        self.setup(index).is_some_and(|setup| setup.enabled)
    }

    /// Enables a queue, if its three areas are in the pool; otherwise the device needs a reset.
    pub fn enable_queue(&mut self, index: u32) {
        let features = QueueFeatures {
            indirect: self.driver_features & feature::INDIRECT_DESC != 0,
            event_idx: self.driver_features & feature::EVENT_IDX != 0,
        };
        let Some(gate) = self.handle.gate(index).cloned() else { return };
        let setting_up = self.setting_up();
        let Some(setup) = self.setup_mut(index).filter(|setup| setting_up && !setup.enabled) else { return };
        let Ok(index) = u16::try_from(index) else { return };
        match Queue::new(&gate, index, setup.max_size, setup.layout, features) {
            Ok(queue) => {
                setup.queue = Some(queue);
                setup.enabled = true;
                setup.last = Some(setup.layout);
            }
            Err(refusal) => self.handle.refuse(refusal),
        }
    }

    /// Disables a queue. When it returns, the device does not touch it any more.
    pub fn disable_queue(&mut self, index: u32) {
        let handle = Arc::clone(&self.handle);
        if let Some(setup) = self.setup_mut(index).filter(|setup| setup.enabled) {
            setup.enabled = false;
            setup.queue = None;
            if let Ok(index) = u16::try_from(index) {
                handle.stop_queue(index);
            }
        }
    }

    /// Bytes of the configuration space.
    pub fn config_len(&self) -> usize {
        self.config_space.len()
    }

    /// How often the configuration space has changed.
    pub fn config_generation(&self) -> u32 {
        self.handle.config_generation()
    }

    /// Reads the configuration space; zeros past its end.
    ///
    /// While the device needs a reset, all of it is zeros: what it says of a disk's capacity does not hold. Linux, which
    /// does not look at DEVICE_NEEDS_RESET, then fails requests instead of waiting for them, and its boot goes on.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        if self.handle.needs_reset() {
            return data.fill(0);
        }
        for (at, byte) in (offset..).zip(data) {
            *byte = usize::try_from(at).ok().and_then(|at| self.config_space.get(at)).copied().unwrap_or(0);
        }
    }

    /// What the report says about this device.
    pub fn summary(&self) -> Summary<'_> {
        Summary {
            name: &self.name,
            kind: self.kind,
            gate: &self.gate,
            reached: status_names(self.reached),
            offered: self.offered,
            accepted: self.accepted,
            accepted_names: self.names(self.accepted),
            restricted: self.restricted,
            refused_offer: self.refused_offer.as_deref(),
            host_errors: self.handle.host_errors(),
            host_io: self.handle.host_io(),
            queues: (0..).zip(&self.queues).filter_map(|(i, q)| q.last.map(|layout| (i, layout))).collect(),
        }
    }

    /// virtio 1.3, 3.1.1, steps 5 and 6: FEATURES_OK sticks only if the device supports the driver's subset.
    fn accept_features(&mut self) {
        let unknown = self.driver_features & !self.offered;
        let required = feature::REQUIRED & self.offered | self.restricted.required_feature();
        let missing = required & !self.driver_features;
        if unknown == 0 && missing == 0 && !self.accepted_beyond {
            self.status |= bit::FEATURES_OK;
            self.accepted = self.driver_features;
            self.refused_offer = None;
            return;
        }
        let mut why = Vec::new();
        if missing != 0 {
            let names = self.names(missing).join(" and ");
            why.push(format!("the driver did not accept {names}"));
        }
        if unknown != 0 {
            why.push(format!("the driver accepted bits {unknown:#x}, which were not offered"));
        }
        if self.accepted_beyond {
            why.push("the driver accepted bits above 63, which were not offered".into());
        }
        let why = why.join("; ");
        if !std::mem::replace(&mut self.refusal_logged, true) {
            log::warn!("{}: FEATURES_OK refused: {why}", self.name);
        }
        self.refused_offer = Some(why);
    }

    /// The names of the bits in `features`.
    fn names(&self, features: u64) -> Vec<&'static str> {
        let mut names = feature::names(self.kind, features);
        names.extend((features & self.restricted.feature() != 0).then_some(RESTRICTED_DMA));
        names
    }

    fn start(&mut self) {
        self.status |= bit::DRIVER_OK;
        let queues = self.queues.iter_mut().map(|setup| setup.queue.take()).collect();
        self.handle.start(self.driver_features, queues);
    }

    fn reset(&mut self) {
        self.handle.reset();
        self.status = 0;
        self.driver_features = 0;
        self.accepted_beyond = false;
        for setup in &mut self.queues {
            setup.layout = QueueLayout { size: setup.max_size, ..QueueLayout::default() };
            setup.queue = None;
            setup.enabled = false;
        }
    }

    /// ACKNOWLEDGE and DRIVER, and nothing later.
    fn negotiating(&self) -> bool {
        self.status == bit::ACKNOWLEDGE | bit::DRIVER
    }

    /// FEATURES_OK, and not yet DRIVER_OK; not FAILED.
    fn setting_up(&self) -> bool {
        self.status == bit::ACKNOWLEDGE | bit::DRIVER | bit::FEATURES_OK
    }

    fn setup(&self, index: u32) -> Option<&QueueSetup> {
        self.queues.get(usize::try_from(index).ok()?)
    }

    fn setup_mut(&mut self, index: u32) -> Option<&mut QueueSetup> {
        self.queues.get_mut(usize::try_from(index).ok()?)
    }
}

/// What the report says about a device.
#[derive(Debug)]
pub struct Summary<'a> {
    /// Name of the device.
    pub name: &'a str,
    /// Its type.
    pub kind: Kind,
    /// Its gate: pool and account.
    pub gate: &'a Gate,
    /// The bits of the device status that a driver ever set, in the order in which it sets them. None: nobody drove it.
    pub reached: Vec<&'static str>,
    /// Feature bits offered.
    pub offered: u64,
    /// Feature bits of the last successful negotiation.
    pub accepted: u64,
    /// The names of these bits.
    pub accepted_names: Vec<&'static str>,
    /// What the device says of its pool.
    pub restricted: RestrictedDma,
    /// Why FEATURES_OK was refused, unless a later negotiation succeeded.
    pub refused_offer: Option<&'a str>,
    /// What went wrong on the host's side.
    pub host_errors: HostErrors,
    /// How the host moves its data, if there are several ways.
    pub host_io: Option<HostIo>,
    /// Index and layout of each queue that was enabled, as it was last.
    pub queues: Vec<(u16, QueueLayout)>,
}

/// The low (`select` 0) or high (1) half of a 64-bit register; 0 for anything else.
pub(super) fn half(value: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

/// Replaces one half of a 64-bit register.
pub(super) fn set_half(value: &mut u64, select: u32, bits: u32) {
    let shift = 32 * select.min(1);
    *value = *value & !(u64::from(u32::MAX) << shift) | u64::from(bits) << shift;
}
