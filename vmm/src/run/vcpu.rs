// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vCPU threads.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cvmm_arch::native::ioapic::IoApic;
use cvmm_devices::bus::Bus;
use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, unblock_signal};

use super::control::ExitRequest;
use super::io_thread::PanicGuard;
use crate::machine::Vm;
use crate::sandbox::{Sandbox, ThreadKind};
use crate::{Error, Outcome, Result};

/// The running vCPUs.
#[derive(Debug)]
pub struct Vcpus {
    threads: Vec<JoinHandle<()>>,
    /// One a thread, which waits for it.
    go: Vec<Sender<()>>,
    stop: Arc<AtomicBool>,
}

/// What vCPU threads share.
#[derive(Debug)]
pub struct Shared<'a> {
    /// The machine.
    pub vm: &'a Vm,
    /// Who is told of the end.
    pub exit: &'a Arc<ExitRequest>,
    /// A device's memory follows its BAR.
    pub moves_memory: bool,
    /// /proc/cpuinfo, opened while files can be.
    pub cpuinfo: Option<File>,
}

impl Vcpus {
    /// Starts a thread for each of `vcpus`, confined. They wait for [`Vcpus::go`].
    pub fn start(vcpus: Vec<VcpuFd>, shared: Shared<'_>, sandbox: &Sandbox) -> Result<Self> {
        let Shared { vm, exit, moves_memory, cpuinfo } = shared;
        let kind = ThreadKind::Vcpu { moves_memory };
        let cpuinfo = cpuinfo.map(Arc::new);
        // What interrupts KVM_RUN has a handler (`signals`). Whoever started us may have blocked it.
        unblock_signal(SIGRTMIN()).map_err(|error| Error::vmm("signals", error))?;

        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Self { threads: Vec::with_capacity(vcpus.len()), go: Vec::new(), stop };
        for (id, fd) in vcpus.into_iter().enumerate() {
            let exit = Arc::clone(exit);
            let mut vcpu = Vcpu {
                fd,
                mmio: Arc::clone(&vm.mmio),
                ports: Arc::clone(&vm.ports),
                io_apic: Arc::clone(&vm.io_apic),
                stop: Arc::clone(&running.stop),
                cpuinfo: cpuinfo.clone(),
            };
            let (go, start) = mpsc::channel();
            let thread = sandbox.spawn(&format!("vcpu{id}"), kind, move || {
                let _guard = PanicGuard(&exit);
                // An error: the others could not be started.
                if start.recv().is_ok()
                    && let Some(outcome) = vcpu.run()
                {
                    exit.ask(outcome);
                }
            });
            running.go.push(go);
            match thread {
                Ok(thread) => running.threads.push(thread),
                Err(error) => {
                    running.stop();
                    return Err(error);
                }
            }
        }
        Ok(running)
    }

    /// Starts the guest.
    pub fn go(&mut self) {
        for go in self.go.drain(..) {
            // Fails for a thread that has ended, which it has told.
            let _ = go.send(());
        }
    }

    /// Returns when all vCPU threads have ended.
    pub fn stop(self) {
        drop(self.go);
        self.stop.store(true, Ordering::Release);
        // A signal that arrives just before KVM_RUN is entered is lost; so it is sent until all have ended. To all in each
        // round: one may wait for what another holds, the console's output for instance.
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            for thread in self.threads.iter().filter(|thread| !thread.is_finished()) {
                let _ = thread.kill(SIGRTMIN());
            }
            thread::sleep(Duration::from_micros(200));
        }
        for thread in self.threads {
            // A panic was told by the guard.
            let _ = thread.join();
        }
    }
}

struct Vcpu {
    fd: VcpuFd,
    mmio: Arc<Bus>,
    ports: Arc<Bus>,
    io_apic: Arc<IoApic>,
    stop: Arc<AtomicBool>,
    cpuinfo: Option<Arc<File>>,
}

impl Vcpu {
    /// Runs until it is stopped (`None`) or the guest can't go on.
    fn run(&mut self) -> Option<Outcome> {
        while !self.stop.load(Ordering::Acquire) {
            let exit = match self.fd.run() {
                Ok(exit) => exit,
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => continue,
                Err(error) if error.errno() == libc::EFAULT => {
                    return Some(Outcome::VmmError(
                        "KVM_RUN: the host has no memory for the guest (EFAULT)".into(),
                    ));
                }
                Err(error) => return Some(Outcome::VmmError(format!("KVM_RUN: {error}"))),
            };
            match exit {
                VcpuExit::MmioRead(address, data) => self.mmio.read(address, data),
                VcpuExit::MmioWrite(address, data) => self.mmio.write(address, data),
                VcpuExit::IoIn(port, data) => self.ports.read(port.into(), data),
                VcpuExit::IoOut(port, data) => self.ports.write(port.into(), data),
                VcpuExit::IoapicEoi(vector) => self.io_apic.end_of_interrupt(vector),
                VcpuExit::Intr => {}
                VcpuExit::Shutdown => {
                    return Some(Outcome::GuestCrashed("the guest's CPU had a triple fault".into()));
                }
                VcpuExit::FailEntry(reason, cpu) => {
                    return Some(Outcome::HostCannot(format!(
                        "KVM could not enter the guest: reason {reason:#x} on CPU {cpu}"
                    )));
                }
                VcpuExit::InternalError => return Some(self.internal_error()),
                other => {
                    let other = format!("{other:?}");
                    return Some(Outcome::VmmError(format!("KVM returned an unexpected exit: {other}")));
                }
            }
        }
        None
    }

    fn internal_error(&mut self) -> Outcome {
        let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
        // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, so `internal` is the member that KVM filled in; it is
        // plain integers.
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        if suberror == KVM_INTERNAL_ERROR_EMULATION && !self.has_hardware_virtualization() {
            return Outcome::HostCannot(format!(
                "this host's KVM emulates guest kernels, since the CPU has neither vmx nor svm. It can't emulate the \
                 instruction at {rip:#x}. Linux needs a KVM with hardware virtualization: use such a host, or enable \
                 nested virtualization. `cargo lab run` starts one under QEMU"
            ));
        }
        Outcome::GuestCrashed(format!("KVM internal error {suberror} at {rip:#x}"))
    }

    /// Whether the host's CPU has what KVM needs to run guest kernels at full speed.
    fn has_hardware_virtualization(&self) -> bool {
        let mut cpuinfo = String::new();
        if let Some(mut file) = self.cpuinfo.as_deref() {
            let _ = file.read_to_string(&mut cpuinfo);
        }
        let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
        flags.next().is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
    }
}
