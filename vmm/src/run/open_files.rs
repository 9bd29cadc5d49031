// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many files a run has open at most.

use crate::config::{DeviceKind, MachineConfig};

/// Images, eventfds, KVM and event loops, and some to spare.
const RUN: usize = 34;
/// A device, beside its queues.
const DEVICE: usize = 6;

/// A thread of a device, beside its first.
const THREAD: usize = 2;

/// Files that a run of this machine opens: one for each CPU and pool; for each queue its notification, and the interrupt that
/// it has on PCI; for each pair of network queues one of the tap; and the event loop of each thread that serves queues.
pub(super) fn most(machine: &MachineConfig) -> usize {
    let queues = |kind: &DeviceKind| match kind {
        DeviceKind::Blk { queues, direct, .. } => {
            // A ring for each.
            3 * usize::from(*queues) + more_threads(*queues) + usize::from(*direct)
        }
        DeviceKind::Net { queues, .. } => {
            2 * (2 * usize::from(*queues) + 1) + usize::from(*queues) + more_threads(*queues)
        }
        DeviceKind::Rng => 2,
    };
    let devices: usize = machine.devices.iter().map(|device| DEVICE + queues(&device.kind)).sum();
    RUN + usize::from(machine.cpus) + machine.pools.len() + devices
}

/// Files of the threads after the first, for so many queues or pairs.
fn more_threads(queues: u16) -> usize {
    THREAD * usize::from(queues.saturating_sub(1))
}
