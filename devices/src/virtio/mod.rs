// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtio devices: what a device type is, and what every device has in common.
//!
//! A [`DeviceType`] (blk, net, rng) knows its features and its configuration space, and has a [`Lane`] for each thread that
//! serves queues of it. [`Core`] owns status, features and queue set-up, for every transport; what is enforced, is enforced
//! there. [`mmio`] is a register layout over it. An [`Engine`] runs a lane on its queues, and a [`Worker`] drives it from an
//! event loop, off the vCPU threads.

mod core;
mod engine;
pub mod mmio;
pub mod pci;
mod restricted;
mod status;
mod worker;

use std::fmt::Debug;

pub use self::core::{Core, Summary};
pub use engine::{Engine, Handle, Interrupt, Queues};
pub use restricted::{RESTRICTED_DMA, RestrictedDma};
pub use worker::{EventFds, Finish, Worker};

use crate::ErrorLog;
use crate::pool::{Pool, Refusal};
use crate::queue::{Turn, area_lengths};
use std::os::fd::RawFd;

/// Feature bits that are the same for every device type (virtio 1.3, 6).
pub mod feature {
    use virtio_bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
    use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

    /// VIRTIO_F_INDIRECT_DESC.
    pub const INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
    /// VIRTIO_F_EVENT_IDX.
    pub const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
    /// VIRTIO_F_VERSION_1.
    pub const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
    /// VIRTIO_F_ACCESS_PLATFORM. Without it Linux bypasses its DMA API, and thereby the pool, silently.
    pub const ACCESS_PLATFORM: u64 = 1 << VIRTIO_F_ACCESS_PLATFORM;
    /// What a driver has to accept.
    pub const REQUIRED: u64 = VERSION_1 | ACCESS_PLATFORM;
    /// What every device offers.
    pub const COMMON: u64 = REQUIRED | INDIRECT_DESC | EVENT_IDX;

    /// The names of the bits in `features` that this crate knows, for `kind`.
    pub fn names(kind: super::Kind, features: u64) -> Vec<&'static str> {
        let common: &[(u64, &str)] = &[
            (INDIRECT_DESC, "INDIRECT_DESC"),
            (EVENT_IDX, "EVENT_IDX"),
            (VERSION_1, "VERSION_1"),
            (ACCESS_PLATFORM, "ACCESS_PLATFORM"),
        ];
        let own = match kind {
            super::Kind::Blk => crate::blk::FEATURE_NAMES,
            super::Kind::Net => crate::net::FEATURE_NAMES,
            super::Kind::Rng => &[],
        };
        own.iter().chain(common).filter(|(bits, _)| features & bits != 0).map(|(_, name)| *name).collect()
    }
}

/// Which device type (virtio 1.3, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Network device.
    Net,
    /// Block device.
    Blk,
    /// Entropy device.
    Rng,
}

impl Kind {
    /// Device ID (virtio 1.3, 5).
    pub fn device_id(self) -> u32 {
        match self {
            Kind::Net => 1,
            Kind::Blk => 2,
            Kind::Rng => 4,
        }
    }
}

const PAGE: u64 = 4096;

/// Linux bounces each buffer, however small, through slots of so many bytes (IO_TLB_SIZE).
pub(crate) const BOUNCE_SLOT: u64 = 2048;

/// A virtio device type: what is behind the queues. Knows no transport, no registers, no interrupts.
pub trait DeviceType: Debug + Send {
    /// Which one.
    fn kind(&self) -> Kind;

    /// Feature bits of this type, beside [`feature::COMMON`].
    fn features(&self) -> u64;

    /// The largest size of each queue, in descriptors.
    fn max_queue_sizes(&self) -> &[u16];

    /// Bytes of buffers that a driver needs in the pool at once: those that it keeps there for the device to write, and the
    /// largest request of each queue.
    fn buffers(&self) -> u64;

    /// Bytes of the pool that a driver needs at once: the areas of each queue (virtio 1.3, 2.7), in pages, and [`buffers`].
    ///
    /// [`buffers`]: Self::buffers
    fn room(&self) -> u64 {
        let areas = |size: &u16| area_lengths(*size).iter().sum::<u64>().next_multiple_of(PAGE);
        let rings = self.max_queue_sizes().iter().map(areas);
        rings.sum::<u64>().saturating_add(self.buffers())
    }

    /// The configuration space. It is read once.
    fn config_space(&self) -> Vec<u8>;

    /// Number of the lane that serves the queue with this index.
    fn lane_of(&self, _queue: u16) -> usize {
        0
    }

    /// The record of what went wrong on the host's side.
    fn host_errors(&self) -> ErrorLog {
        ErrorLog::default()
    }

    /// Takes the device apart, into its lanes, which move data from and to this pool.
    fn into_lanes(self: Box<Self>, pool: &Pool) -> Vec<Box<dyn Lane>>;
}

/// How the host moves a device's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum HostIo {
    /// A request at a time, each by a system call that waits for it.
    #[serde(rename = "synchronous")]
    Synchronous,
    /// Several at a time, by io_uring.
    #[serde(rename = "io_uring")]
    Ring,
}

/// What serves some of a device's queues, on a thread of its own.
pub trait Lane: Debug + Send {
    /// The driver is ready (DRIVER_OK) and has accepted `features`.
    fn start(&mut self, features: u64);

    /// The device was reset: forget what belongs to the driver.
    fn stop(&mut self) {}

    /// One bounded turn at the queue with this `index`, which the driver has filled.
    ///
    /// # Errors
    /// What the lane refused. The device is then stopped until the driver resets it.
    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal>;

    /// How many requests are under way on the host's side after a turn. Their memory is the driver's, so whoever stops the
    /// lane waits until there are none.
    fn under_way(&self) -> usize {
        0
    }

    /// Gives back those that have completed, and begins nothing.
    ///
    /// # Errors
    /// As for [`Lane::serve`].
    fn complete(&mut self, _queues: &mut Queues) -> Result<Turn, Refusal> {
        Ok(Turn::default())
    }

    /// Waits for those that are under way, and gives them back. On the lane's own thread.
    fn settle(&mut self, _queues: &mut Queues) {}

    /// How the host moves its data, if there are several ways.
    fn host_io(&self) -> Option<HostIo> {
        None
    }

    /// Files on the host side whose readiness is work for this lane, each with the queue that is then served.
    fn host_fds(&self) -> Vec<(RawFd, u16)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
