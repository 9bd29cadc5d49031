// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What differs from one CPU architecture to another: guest-physical layout, boot protocol, vCPU reset state,
//! interrupt controller. One folder for each; the rest of the project uses the one of the host, as [`native`].

#[cfg(target_arch = "x86_64")]
pub mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64 as native;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("cvmm runs on x86_64 hosts; other architectures are folders beside arch/src/x86_64");
