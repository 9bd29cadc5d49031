// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The time stamp counter, which level 3 may read and the host has, too.

/// Ticks since some time.
pub(super) fn now() -> u64 {
    // SAFETY: every x86_64 CPU has the instruction, and it reads no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}
