// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is fuzzed: one function each, which takes any bytes.

pub mod blk;
pub mod chain;
pub mod loader;
pub mod machine;
pub mod mmio;
pub mod net;
pub mod options;
pub mod pci;
pub mod pci_config;
mod width;
