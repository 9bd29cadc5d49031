// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device has to do, written from the specifications and from none of the code under test. It works on the
//! [`Shadow`](crate::memory::Shadow), in the order in which the device works on the pool, so that a driver may put one
//! structure on top of another and the shadow still tells every byte.

pub mod blk;
pub mod core;
pub mod net;
pub mod pci;
pub mod queue;
