// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The three comparisons: which setups, which loads, which of them are set against each other.

use super::load::{BOUNCE_LOADS, CONTEND_LOADS, DISK_LOADS, Load};
use super::setup::{Dma, Setup, Transport};
use crate::bench::turns::Competitor;
use crate::bench::vmm::Vmm;
use crate::host::SAFE_CPUS;

/// The tap of the network loads.
pub const TAP: &str = "cvmm-bench";

/// What is to be learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// A disk on each transport, cvmm against others.
    Transports,
    /// The pool against devices that reach all memory.
    Bouncing,
    /// One pool against a pool for each device, as more vCPUs use them.
    Contention,
}

/// A ratio in the table: of the first setup's median to the second's.
#[derive(Debug, Clone)]
pub struct Ratio {
    /// Over the column.
    pub title: &'static str,
    /// What is set against what.
    pub setups: [Setup; 2],
}

const CVMM: Setup = Setup {
    vmm: Vmm::Cvmm,
    transport: Transport::Mmio,
    dma: Dma::Pools { mebibytes: 16, pools: 1 },
    cpus: 1,
    disks: 1,
    tap: None,
    loads: "disk",
};
const QEMU: Setup = Setup { vmm: Vmm::QemuMicrovm, dma: Dma::Direct, ..CVMM };

impl Comparison {
    /// All.
    pub const ALL: [Self; 3] = [Self::Transports, Self::Bouncing, Self::Contention];

    /// In the order in which they take turns.
    pub fn setups(self) -> Vec<Setup> {
        let pci = |setup| Setup { transport: Transport::Pci, ..setup };
        match self {
            // PCI is kvmtool's default on x86.
            Self::Transports => {
                vec![
                    CVMM,
                    QEMU,
                    pci(CVMM),
                    pci(QEMU),
                    pci(Setup { vmm: Vmm::Kvmtool, dma: Dma::Direct, ..CVMM }),
                ]
            }
            Self::Bouncing => {
                let with_net = |setup| Setup { tap: Some(TAP), loads: "bounce", ..setup };
                let pool = |mebibytes| with_net(Setup { dma: Dma::Pools { mebibytes, pools: 1 }, ..CVMM });
                let swiotlb = with_net(Setup { dma: Dma::Bounced { mebibytes: 16 }, ..QEMU });
                vec![pool(16), pool(2), swiotlb, with_net(QEMU)]
            }
            Self::Contention => {
                let of = |cpus, pools| {
                    let dma = Dma::Pools { mebibytes: 32, pools };
                    Setup { dma, cpus, disks: 2, loads: "contend", ..CVMM }
                };
                [1, 2, 4].into_iter().flat_map(|cpus| [of(cpus, 1), of(cpus, 2)]).collect()
            }
        }
    }

    /// How many CPUs an emulated host has. With more than [`SAFE_CPUS`] guests are lost now and then; but vCPUs that share a
    /// CPU hardly wait for each other's locks.
    pub fn emulated_cpus(self) -> u32 {
        match self {
            Self::Transports | Self::Bouncing => SAFE_CPUS,
            Self::Contention => 2,
        }
    }

    /// What the guest does, in its order.
    pub fn loads(self) -> &'static [Load] {
        match self {
            Self::Transports => &DISK_LOADS,
            Self::Bouncing => &BOUNCE_LOADS,
            Self::Contention => &CONTEND_LOADS,
        }
    }

    /// The ratios of the table.
    pub fn ratios(self) -> Vec<Ratio> {
        let setups = self.setups();
        let ratio =
            |title, first: usize, second: usize| Ratio { title, setups: [setups[first], setups[second]] };
        match self {
            Self::Transports => vec![ratio("cvmm/QEMU mmio", 0, 1), ratio("cvmm/QEMU pci", 2, 3)],
            Self::Bouncing => vec![
                ratio("swiotlb/direct", 2, 3),
                ratio("cvmm/QEMU direct", 0, 3),
                ratio("2/16 MiB pool", 1, 0),
            ],
            Self::Contention => {
                vec![ratio("each/one, 1", 1, 0), ratio("each/one, 2", 3, 2), ratio("each/one, 4", 5, 4)]
            }
        }
    }

    /// What the reader of the table must know.
    pub fn notes(self) -> &'static str {
        match self {
            Self::Transports => {
                "cvmm's guests copy all data to and from the pool; that is in cvmm's figures. The others have no pool.\n"
            }
            Self::Bouncing => {
                "swiotlb: QEMU's devices reach all memory, and the guest is told to copy all the same (swiotlb=force): its \
                 ratio to direct\nis the cost of copying alone. All devices offer VIRTIO_F_ACCESS_PLATFORM.\n\
                 Slots are of 2 KiB; the most used at one time, in any round. Full: how often there was no room, as far as \
                 the\nkernel's log tells, in all rounds; Linux tries again.\n"
            }
            Self::Contention => {
                "32 MiB of pool in all. Linux has one lock for each pool. Waits are counted by a kernel with \
                 CONFIG_LOCK_STAT\n(resources/guest-kernel/build.sh --lock-stat; --kernel).\n"
            }
        }
    }

    /// The setup's place among the columns.
    pub fn names(self) -> Vec<String> {
        self.setups().into_iter().map(Competitor::name).collect()
    }
}
