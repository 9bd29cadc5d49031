// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is compared, and how each is started: the same kernel, initial file system, kernel command line, memory, CPU,
//! disk and random number generator; the console on standard output.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::resident::GUEST_MIB;
use crate::packages;

/// No reboot=: each VMM has a way to reset that its guests find.
const WORDS: &str = "panic=-1 cvmm.test=none cvmm.end=idle";

/// What the kernel writes on the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// Errors.
    Quiet,
    /// All of its log. Most of the time to init is then the console's.
    All,
}

/// microvm: no legacy devices but the serial port.
pub const QEMU_MACHINE: &str = "-M microvm,pit=off,pic=off,rtc=off,acpi=on";
/// One CPU, and the console on standard input and output. A software KVM has no MSR for arch-capabilities, and QEMU would
/// give up.
pub const QEMU_REST: &str = "-accel kvm -cpu host,-arch-capabilities -smp 1 -nodefaults -no-user-config \
                             -display none -chardev stdio,id=console,signal=off -serial chardev:console";

/// A VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// Ours.
    Cvmm,
    /// QEMU's machine without legacy devices.
    QemuMicrovm,
    /// lkvm.
    Kvmtool,
}

/// All, in the order in which they take turns.
pub const ALL: [Vmm; 3] = [Vmm::Cvmm, Vmm::QemuMicrovm, Vmm::Kvmtool];

/// Paths on the KVM host.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// The disk.
    pub disk: String,
}

impl Vmm {
    /// As the table says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cvmm => "cvmm",
            Self::QemuMicrovm => "QEMU microvm",
            Self::Kvmtool => "kvmtool",
        }
    }

    /// The program on this machine, if it is installed; cvmm is built.
    pub fn installed(self) -> Option<PathBuf> {
        match self {
            Self::Cvmm => None,
            Self::QemuMicrovm => packages::find(packages::QEMU.program),
            Self::Kvmtool => packages::find("lkvm").or_else(|| packages::find("kvmtool")),
        }
    }

    /// The first line of what the program at `path` on this machine says of its version.
    pub fn version(self, path: &Path) -> Option<String> {
        let option = if self == Self::Kvmtool { "version" } else { "--version" };
        let output = Command::new(path).arg(option).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().next().map(str::to_owned)
    }

    /// The arguments that start `guest`.
    pub fn arguments(self, guest: &Guest, log: Log) -> Vec<String> {
        let words_of_guest = if log == Log::Quiet { format!("{WORDS} quiet") } else { WORDS.to_owned() };
        let (kernel, initrd) = (guest.kernel.display(), guest.initrd.display());
        let disk = &guest.disk;
        match self {
            // Its default command line has the console in it.
            Self::Cvmm => words(&[
                &format!("run --kernel {kernel} --initrd {initrd} --mem {GUEST_MIB}M --cpus 1 --pool 32M"),
                &format!("--blk path={disk} --rng --console stdio --cmdline"),
            ])
            .chain([words_of_guest])
            .collect(),
            Self::QemuMicrovm => words(&[
                QEMU_MACHINE,
                QEMU_REST,
                &format!(
                    "-drive if=none,id=disk,format=raw,file={disk} -device virtio-blk-device,drive=disk"
                ),
                &format!(
                    "-m {GUEST_MIB}M -device virtio-rng-device -kernel {kernel} -initrd {initrd} -append"
                ),
            ])
            .chain([format!("console=ttyS0 {words_of_guest}")])
            .collect(),
            Self::Kvmtool => words(&[
                &format!("run --kernel {kernel} --initrd {initrd} --mem {GUEST_MIB} --cpus 1 --disk {disk}"),
                "--rng --console serial --network mode=none --params",
            ])
            .chain([format!("console=ttyS0 {words_of_guest}")])
            .collect(),
        }
    }
}

/// All words of `lines`.
pub fn words(lines: &[&str]) -> impl Iterator<Item = String> {
    let words: Vec<_> = lines.iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect();
    words.into_iter()
}
