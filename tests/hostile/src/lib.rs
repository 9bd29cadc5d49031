// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Drivers that point devices outside their pool: the table of all the ways, and the bare-metal guest that tries them.
//!
//! The guest and the test that reads the run's report (vmm/tests/matrix) share [`table`]: the one makes the cases, the
//! other knows from it what must have been refused.
#![no_std]

pub mod build;
pub mod frame;
pub mod guest;
pub mod record;
pub mod speed;
pub mod table;
