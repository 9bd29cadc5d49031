// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The whole of it on a KVM host: cvmm boots an unpatched Linux kernel whose devices are confined to a pool. The guest's
//! init program makes assertions and prints them; the tests compare these, cvmm's report, and what is on the host.
//!
//! One binary, so that all tests share the hosts, of which there is one for each CPU where they are emulated.

mod acpi;
mod arguments;
mod blk;
mod console;
mod console_input;
mod debian;
mod disk;
mod distribution;
mod dsdt;
mod dtb;
mod ends;
mod fails_open;
mod faults;
mod grid;
mod guest;
mod hostile;
mod kernels;
mod machine;
mod matrix;
mod multi_queue;
mod names;
mod net;
mod pci;
mod pool;
mod report;
mod two_pools;
mod unaware;
