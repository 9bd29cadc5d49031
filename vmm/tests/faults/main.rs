// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host does to a running cvmm: disks that are full, fail, or shrink; a tap that goes away; calls that are cut short
//! or interrupted; signals; no memory; a kill in the middle of a write. The guest is told of each request that failed, by
//! its status byte, and no other request fails; nothing that it was told to be safe is lost; cvmm says what happened.
//!
//! The guest is the bare-metal one, which does what a test tells it on the console (tests/hostile/src/guest/orders.rs).

#![cfg(target_arch = "x86_64")]

mod block;
mod cgroup;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod guest;
mod huge_pages;
mod inject;
mod injected;
mod killed;
mod memory;
mod outputs;
mod place;
#[path = "../matrix/program.rs"]
mod program;
mod signals;
mod tap;
