// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is compared: a VMM with its disk on one transport. All get the same kernel, initial file system, memory, CPU and
//! disk, and queues of one size.

use serde::Serialize;

use crate::bench::resident::GUEST_MIB;
use crate::bench::turns::Competitor;
use crate::bench::vmm::{Guest, QEMU_MACHINE, QEMU_REST, Vmm, words};

const WORDS: &str = "reboot=k panic=-1 quiet cvmm.test=io cvmm.end=idle";

/// Where the guest finds the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// virtio 1.3, 4.2.
    Mmio,
    /// virtio 1.3, 4.1.
    Pci,
}

/// One column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Setup {
    /// The VMM.
    pub vmm: Vmm,
    /// The disk's transport.
    pub transport: Transport,
}

/// All, in the order in which they take turns.
pub const ALL: [Setup; 5] = [
    Setup { vmm: Vmm::Cvmm, transport: Transport::Mmio },
    Setup { vmm: Vmm::QemuMicrovm, transport: Transport::Mmio },
    Setup { vmm: Vmm::Cvmm, transport: Transport::Pci },
    Setup { vmm: Vmm::QemuMicrovm, transport: Transport::Pci },
    // Its default on x86.
    Setup { vmm: Vmm::Kvmtool, transport: Transport::Pci },
];

impl Competitor for Setup {
    fn vmm(self) -> Vmm {
        self.vmm
    }

    fn name(self) -> String {
        let transport = match self.transport {
            Transport::Mmio => "mmio",
            Transport::Pci => "pci",
        };
        format!("{} {transport}", self.vmm.name())
    }
}

impl Setup {
    /// The options about machine and disk, in which the setups differ.
    pub fn machine(self, disk: &str) -> String {
        match (self.vmm, self.transport) {
            (Vmm::Cvmm, Transport::Mmio) => format!("--firmware dt --pool 16M --blk path={disk}"),
            (Vmm::Cvmm, Transport::Pci) => {
                format!("--firmware dt --pool 16M --blk path={disk},transport=pci")
            }
            // QEMU's mmio transport is a legacy one unless told otherwise.
            (Vmm::QemuMicrovm, Transport::Mmio) => format!(
                "{QEMU_MACHINE} -global virtio-mmio.force-legacy=false {} -device virtio-blk-device,drive=disk",
                qemu_drive(disk)
            ),
            (Vmm::QemuMicrovm, Transport::Pci) => format!(
                "{QEMU_MACHINE},pcie=on {} -device virtio-blk-pci,disable-legacy=on,drive=disk",
                qemu_drive(disk)
            ),
            (Vmm::Kvmtool, _) => format!("--disk {disk}"),
        }
    }

    /// The arguments that start `guest`.
    pub fn arguments(self, guest: &Guest) -> Vec<String> {
        let (kernel, initrd) = (guest.kernel.display(), guest.initrd.display());
        let machine = self.machine(&guest.disk);
        let (lines, command_line) = match self.vmm {
            Vmm::Cvmm => (
                [
                    format!("run {machine} --mem {GUEST_MIB}M --cpus 1 --console stdio"),
                    format!("--kernel {kernel} --initrd {initrd} --cmdline"),
                ],
                // Its default command line has the console in it.
                WORDS.to_owned(),
            ),
            Vmm::QemuMicrovm => (
                [
                    format!("{machine} {QEMU_REST} -m {GUEST_MIB}M"),
                    format!("-kernel {kernel} -initrd {initrd} -append"),
                ],
                format!("console=ttyS0 {WORDS}"),
            ),
            Vmm::Kvmtool => (
                [
                    format!("run {machine} --mem {GUEST_MIB} --cpus 1 --console serial --network mode=none"),
                    format!("--kernel {kernel} --initrd {initrd} --params"),
                ],
                format!("console=ttyS0 {WORDS}"),
            ),
        };
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
    use super::*;

    #[test]
    fn each_setup_has_its_disk_on_its_transport() {
        let guest = Guest { kernel: "/k".into(), initrd: "/i".into(), disk: "/d".into() };
        for setup in ALL {
            let arguments = setup.arguments(&guest);
            assert!(arguments.last().unwrap().contains("cvmm.test=io cvmm.end=idle"), "{arguments:?}");
            let line = arguments.join(" ");
            assert!(line.contains("/d") && line.contains("/k") && line.contains("/i"), "{line}");
            let on_pci = line.contains("transport=pci") || line.contains("virtio-blk-pci");
            assert_eq!(on_pci, setup.transport == Transport::Pci && setup.vmm != Vmm::Kvmtool, "{line}");
        }
        assert_eq!(ALL[3].name(), "QEMU microvm pci");
    }
}
