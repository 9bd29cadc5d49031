// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! cvmm: a virtual machine monitor whose devices reach one pool of guest memory and nothing else.
//!
//! [`config`] is what the user asked for; [`machine`] makes it a [`cvmm_firmware::Machine`] and a KVM virtual machine
//! from that; [`run`] runs it, in its [`sandbox`]; [`report`] says what happened. [`describe`] shows the machine without running it. [`host`] holds what devices use on the host's side:
//! disks, taps, the terminal.

#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

#[cfg(cvmm_unchecked)]
compile_error!(
    "cvmm is not built without the check of addresses: --cfg cvmm_unchecked is for a benchmark alone"
);

pub mod cli;
pub mod config;
pub mod describe;
mod error;
pub mod host;
pub mod logger;
pub mod machine;
mod outcome;
pub mod report;
pub mod run;
pub mod sandbox;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
pub use outcome::Outcome;
