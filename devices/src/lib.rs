// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtual devices that reach one pool of guest memory and nothing else.
//!
//! - [`pool`]: a device's memory, and the gate through which every access passes.
//! - [`queue`]: split virtqueues over a gate.
//! - [`virtio`]: the transport core, virtio-mmio and virtio-pci over it, and what runs a device.
//! - [`pci`]: a bus of functions, configuration space, MSI-X.
//! - [`blk`], [`net`], [`rng`]: device types.
//! - [`serial`], [`power`], [`bus`]: what is not virtio.
//!
//! No type in this crate can name private guest memory, and there is no `unsafe` in it. Everything that comes from
//! the guest is hostile: nothing it does may panic, loop without bound, or allocate without bound.

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod blk;
pub mod bus;
mod host_errors;
pub mod net;
#[cfg(test)]
mod no_allocation;
pub mod pci;
pub mod pool;
pub mod power;
pub mod queue;
pub mod rng;
pub mod serial;
#[cfg(test)]
mod testing;
pub mod virtio;
mod waiters;

pub use host_errors::{ErrorLog, HostError, HostErrors};
