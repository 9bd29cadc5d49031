// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a configuration to a virtual machine.

mod describe;
mod device_memory;
mod devices;
mod huge_pages;
mod memory;
mod slot;
mod vm;

pub use describe::describe;
pub use device_memory::memory_name;
pub use devices::{Opened, open, refuse_shared};
pub use memory::{GuestMemory, LARGE_PAGE, Loaded, SealedMemory};
pub use vm::{Device, DeviceTransport, Parts, Vm, create};
