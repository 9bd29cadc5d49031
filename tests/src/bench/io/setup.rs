// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is compared: a VMM, the transport of its devices, and how they reach the guest's memory. All get the same kernel,
//! initial file system, memory and disks, and queues of one size.

use serde::Serialize;

use crate::bench::resident::GUEST_MIB;
use crate::bench::turns::Competitor;
use crate::bench::vmm::{Guest, QEMU_MACHINE, QEMU_REST, Vmm, words};

/// Where the guest finds its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// virtio 1.3, 4.2.
    Mmio,
    /// virtio 1.3, 4.1.
    Pci,
}

/// How the devices reach the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dma {
    /// cvmm's pools of so many MiB in all; each device has its own if there are more than one.
    Pools {
        /// In all.
        mebibytes: u64,
        /// One, or one for each disk.
        pools: u64,
    },
    /// Linux copies through its own bounce buffer of so many MiB, though the device could reach all.
    Bounced {
        /// Of the bounce buffer.
        mebibytes: u64,
    },
    /// All memory.
    Direct,
}

/// One column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Setup {
    /// The VMM.
    pub vmm: Vmm,
    /// The transport of all devices.
    pub transport: Transport,
    /// How they reach the guest's memory.
    pub dma: Dma,
    /// vCPUs; each disk has as many queues.
    pub cpus: u64,
    /// Disks.
    pub disks: usize,
    /// The tap of a network device, if there is one.
    pub tap: Option<&'static str>,
    /// `cvmm.io` on the guest's command line.
    pub loads: &'static str,
}

impl Competitor for Setup {
    fn vmm(self) -> Vmm {
        self.vmm
    }

    fn name(self) -> String {
        let name = self.vmm.name();
        match (self.loads, self.dma) {
            ("contend", Dma::Pools { pools: 1, .. }) => format!("{} vCPU, one pool", self.cpus),
            ("contend", _) => format!("{} vCPU, a pool each", self.cpus),
            ("bounce", Dma::Pools { mebibytes, .. }) => format!("{name}, {mebibytes} MiB pool"),
            ("bounce", Dma::Bounced { .. }) => format!("{name}, swiotlb"),
            ("bounce", Dma::Direct) => format!("{name}, direct"),
            _ => match self.transport {
                Transport::Mmio => format!("{name} mmio"),
                Transport::Pci => format!("{name} pci"),
            },
        }
    }
}

impl Setup {
    /// The options about machine and devices, in which the setups differ.
    pub fn machine(self, disk: &str) -> String {
        match self.vmm {
            Vmm::Cvmm => self.cvmm(disk),
            Vmm::QemuMicrovm => self.qemu(disk),
            Vmm::Kvmtool => format!("--disk {disk}"),
        }
    }

    fn cvmm(self, disk: &str) -> String {
        let Dma::Pools { mebibytes, pools } = self.dma else { return String::new() };
        let size = mebibytes / pools;
        let mut line = format!("--firmware dt --cpus {}", self.cpus);
        for pool in 0..pools {
            line += &match pools {
                1 => format!(" --pool {size}M"),
                _ => format!(" --pool size={size}M,name=pool{pool}"),
            };
        }
        let pci = if self.transport == Transport::Pci { ",transport=pci" } else { "" };
        for (index, path) in self.paths(disk).enumerate() {
            line += &format!(" --blk path={path}{pci}");
            if self.cpus > 1 {
                line += &format!(",queues={}", self.cpus);
            }
            if pools > 1 {
                line += &format!(",pool=pool{index}");
            }
        }
        if let Some(tap) = self.tap {
            line += &format!(" --net tap={tap}{pci}");
        }
        line
    }

    fn qemu(self, disk: &str) -> String {
        // QEMU's mmio transport is a legacy one unless told otherwise.
        let (machine, bus, own) = match self.transport {
            Transport::Mmio => ("-global virtio-mmio.force-legacy=false", "device", ""),
            Transport::Pci => ("", "pci", ",disable-legacy=on"),
        };
        let pcie = if self.transport == Transport::Pci { ",pcie=on" } else { "" };
        // With it Linux maps by its DMA interface, as it does for cvmm, and that is what can bounce.
        let platform = if self.loads == "bounce" { ",iommu_platform=on" } else { "" };
        let drive = qemu_drive(disk);
        let mut line = format!(
            "{QEMU_MACHINE}{pcie} {machine} {drive} -device virtio-blk-{bus}{own}{platform},drive=disk"
        );
        if let Some(tap) = self.tap {
            line += &format!(" -netdev tap,id=net,ifname={tap},script=no,downscript=no,vhost=off");
            line += &format!(" -device virtio-net-{bus}{own}{platform},netdev=net");
        }
        line
    }

    fn paths(self, disk: &str) -> impl Iterator<Item = String> {
        let disk = disk.to_owned();
        (0..self.disks).map(move |index| if index == 0 { disk.clone() } else { format!("{disk}{index}") })
    }

    /// The arguments that start `guest`.
    pub fn arguments(self, guest: &Guest) -> Vec<String> {
        let (kernel, initrd) = (guest.kernel.display(), guest.initrd.display());
        let machine = self.machine(&guest.disk);
        let mut command_line = format!("panic=-1 quiet cvmm.test=io cvmm.io={} cvmm.end=idle", self.loads);
        if let Dma::Bounced { mebibytes } = self.dma {
            // In slots of 2 KiB.
            command_line += &format!(" swiotlb={},force", mebibytes << 9);
        }
        let lines = match self.vmm {
            // Its default command line has the console in it.
            Vmm::Cvmm => [
                format!("run {machine} --mem {GUEST_MIB}M --console stdio"),
                format!("--kernel {kernel} --initrd {initrd} --cmdline"),
            ],
            Vmm::QemuMicrovm => [
                format!("{machine} {QEMU_REST} -m {GUEST_MIB}M"),
                format!("-kernel {kernel} -initrd {initrd} -append"),
            ],
            Vmm::Kvmtool => [
                format!("run {machine} --mem {GUEST_MIB} --cpus 1 --console serial --network mode=none"),
                format!("--kernel {kernel} --initrd {initrd} --params"),
            ],
        };
        if self.vmm != Vmm::Cvmm {
            command_line = format!("console=ttyS0 {command_line}");
        }
        words(&lines.each_ref().map(String::as_str)).chain([command_line]).collect()
    }
}

/// As cvmm does it: through the host's page cache, no flush unless the guest asks for one. Both words are QEMU's defaults,
/// too; it then makes the requests in a pool of threads.
fn qemu_drive(disk: &str) -> String {
    format!("-drive if=none,id=disk,format=raw,cache=writeback,aio=threads,file={disk}")
}

#[cfg(test)]
mod tests {
    use super::super::comparison::Comparison;
    use super::*;

    #[test]
    fn each_setup_has_its_devices_on_its_transport() {
        let guest = Guest { kernel: "/k".into(), initrd: "/i".into(), disk: "/d".into() };
        for comparison in Comparison::ALL {
            for setup in comparison.setups() {
                let arguments = setup.arguments(&guest);
                assert!(arguments.last().unwrap().contains("cvmm.test=io"), "{arguments:?}");
                let line = arguments.join(" ");
                assert!(line.contains("/d") && line.contains("/k") && line.contains("/i"), "{line}");
                let on_pci = line.contains("transport=pci") || line.contains("virtio-blk-pci");
                assert_eq!(on_pci, setup.transport == Transport::Pci && setup.vmm != Vmm::Kvmtool, "{line}");
                assert_eq!(
                    line.contains("swiotlb=8192,force"),
                    matches!(setup.dma, Dma::Bounced { .. }),
                    "{line}"
                );
                assert_eq!(line.contains("/d1"), setup.disks == 2, "{line}");
            }
        }
    }

    #[test]
    fn two_disks_have_a_pool_each() {
        let setup = Comparison::Contention.setups().pop().unwrap();
        assert_eq!(setup.name(), "4 vCPU, a pool each");
        assert_eq!(
            setup.machine("/d"),
            "--firmware dt --cpus 4 --pool size=16M,name=pool0 --pool size=16M,name=pool1 \
             --blk path=/d,queues=4,pool=pool0 --blk path=/d1,queues=4,pool=pool1"
        );
    }
}
