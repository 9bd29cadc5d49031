// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A KVM host under QEMU's emulation: an x86 CPU with nested paging, Debian's kernel with KVM, and our agent.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::child;
use super::client::Client;
use super::console::ConsoleLog;
use super::{CVMM, Connection, GUEST_INITRD, GUEST_KERNEL, PATCHED_KERNEL};
use crate::build::Programs;
use crate::initramfs::{Initramfs, guest_initramfs};
use crate::kernel::{DebianKernel, Flavour};
use crate::{packages, workspace};

/// KVM, and the devices of the emulated machine that the agent uses. PCI and ext4 are built in.
const MODULES: [&str; 4] = ["kvm-amd", "tun", "virtio_pci", "virtio_console"];

/// The host kernel's command line.
///
/// - `no_timer_check`: on a busy machine the kernel sees too few ticks in too short a time, and panics.
/// - `nohz=off highres=off`: a periodic tick. Without it about one guest in a hundred left the host waiting for ever. The
///   likely cause: QEMU's VMRUN adds to the CPU's set of pending interrupts without the lock under which other threads do
///   (7.2, target/i386/tcg/sysemu/svm_helper.c), so an interrupt can get lost. The next tick makes the local APIC ask again.
///   Seen with two CPUs only.
const APPEND: &str =
    "console=ttyS0 panic=-1 quiet mitigations=off nokaslr audit=0 no_timer_check nohz=off highres=off";

/// How many CPUs a host has on which nothing must go wrong. With two, about one guest in thirty fails, of two vCPUs or of one:
/// QEMU 7.2 then saves the host's own registers in the guest's VMCB, and KVM runs the guest with them, which ends in a
/// triple fault or in a loop of nested page faults. With one that was not seen.
pub const SAFE_CPUS: u32 = 1;

/// A slow machine takes several times the usual few seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// The emulated machine. It ends with this value, or with the lab.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    /// Dropped, it ends the thread that started QEMU.
    _keeper: mpsc::Sender<()>,
}

/// Starts a machine with `cpus` CPUs and `memory_mib` of memory; only what is touched costs.
pub fn start(programs: &Programs, cpus: u32, memory_mib: u64) -> Result<Connection> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    packages::require(&[packages::QEMU])?;
    let kernel = DebianKernel::get(Flavour::Cloud)?;
    let initramfs = in_memory(&initramfs(&kernel, programs)?)?;
    let console = ConsoleLog::create(SERIAL.fetch_add(1, Ordering::Relaxed))?;
    let (channel, theirs) = UnixStream::pair()?;

    let command = qemu(&kernel, &initramfs, &theirs, &console, (cpus, memory_mib))?;
    let mut machine = launch(command, [initramfs, theirs.into()])?;
    match Client::connect(channel, BOOT_LIMIT) {
        Ok((client, greeting)) => Ok(Connection { client, greeting, console, machine: Some(machine) }),
        Err(error) => {
            machine.stop();
            bail!(console.explain(format!("the emulated KVM host did not start: {error:#}")))
        }
    }
}

fn initramfs(kernel: &DebianKernel, programs: &Programs) -> Result<Vec<u8>> {
    let mut initramfs = Initramfs::new()?;
    initramfs.program("init", &programs.host_agent)?;
    initramfs.modules(kernel, &MODULES)?;
    initramfs.program(&CVMM[1..], &programs.cvmm)?;
    initramfs.file(&GUEST_INITRD[1..], 0o644, &guest_initramfs(&programs.guest_init)?)?;
    for (name, kernel) in
        [(GUEST_KERNEL, workspace::guest_kernel()), (PATCHED_KERNEL, workspace::patched_kernel())]
    {
        if kernel.exists() {
            initramfs.program(&name[1..], &kernel)?;
        }
    }
    initramfs.finish()
}

/// A file without a name: nothing to clean up, however the lab ends.
fn in_memory(content: &[u8]) -> Result<OwnedFd> {
    let file = memfd_create(c"initramfs", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(content)?;
    Ok(file.into())
}

fn qemu(
    kernel: &DebianKernel,
    initramfs: &OwnedFd,
    channel: &UnixStream,
    console: &ConsoleLog,
    (cpus, memory_mib): (u32, u64),
) -> Result<Command> {
    let log = console.path().context("an emulated host has a console")?;
    let mut qemu = Command::new(packages::find(packages::QEMU.program).context("QEMU is not installed")?);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-machine", "q35,graphics=off", "-accel", "tcg,thread=multi,tb-size=1024"])
        // Without xsave: QEMU does not let KVM intercept XSETBV, so a guest's CPUID would disagree with its registers. Then
        // without what needs it, too: newer guests use AVX wherever CPUID has it.
        // Without cx16: QEMU 7.2's CMPXCHG16B leaves garbage in the flags, and an interrupt after it brings the kernel down.
        .args([
            "-cpu",
            "max,+svm,+npt,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq,-cx16",
            "-smp",
            &cpus.to_string(),
            "-m",
            &memory_mib.to_string(),
        ])
        .arg("-kernel")
        .arg(&kernel.image)
        .args(["-initrd", &format!("/proc/self/fd/{}", initramfs.as_raw_fd())])
        .args(["-append", APPEND])
        .args(["-chardev", &format!("file,id=console,path={}", log.display())])
        .args(["-serial", "chardev:console"])
        .args(["-chardev", &format!("socket,id=lab,fd={}", channel.as_raw_fd())])
        .args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=lab,name=lab,nr=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(File::create(log.with_extension("qemu"))?))
        // Ctrl-C on the lab's terminal is for the guest.
        .process_group(0);
    Ok(qemu)
}

/// Starts QEMU such that it dies with the lab, and gives it `inherited`.
fn launch(mut command: Command, inherited: [OwnedFd; 2]) -> Result<Machine> {
    child::die_with_parent(&mut command);
    child::inherit(&mut command, inherited.into());
    let (keeper, ended) = mpsc::channel();
    let (sender, started) = mpsc::channel();
    // The kernel counts the *thread* that started a child as its parent: that of a test may end long before the lab does.
    std::thread::spawn(move || {
        let child = command.spawn();
        drop(command);
        if sender.send(child).is_ok() {
            // Returns an error when the machine is dropped: no message is ever sent.
            let _: Result<(), _> = ended.recv();
        }
    });
    let qemu = started.recv()?.context("cannot start QEMU")?;
    Ok(Machine { qemu, _keeper: keeper })
}

impl Machine {
    fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}
