// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lab: a KVM host anywhere, the guest programs, and the tests that need them.

pub mod bench;
pub mod build;
pub mod debian;
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod initramfs;
pub mod kernel;
pub mod modules;
pub mod options;
pub mod packages;
pub mod pages;
pub mod pattern;
pub mod peer;
pub mod reach;
pub mod run;
pub mod sparse;
pub mod suite;
pub mod table;
pub mod terminal;
pub mod workspace;
