// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cvmm run`: from a configuration to the end of the guest.

mod console;
mod control;
mod images;
mod input;
mod io_thread;
mod open_files;
mod pace;
mod prefault;
mod register_page;
mod signals;
mod vcpu;
mod warnings;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cvmm_arch::native::boot::Entry;
use cvmm_arch::native::cpu;
use cvmm_firmware::Machine;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VcpuFd};

use crate::config::{ConsoleConfig, MachineConfig, VmConfig};
use crate::host::disk::Image;
use crate::host::{files, limits};
use crate::machine::{self, GuestMemory, Loaded, Parts, Vm};
use crate::report::{Report, Told};
use crate::sandbox::{self, Sandbox, ThreadKind, Violation};
use crate::{Error, Outcome, Result};
use console::{Written, open_console};
use control::{Control, ExitRequest};
use images::{create, loader_error, open_images, refuse_overwriting, with_path, write_copies};
use io_thread::IoThread;
pub(crate) use prefault::MADV_COLLAPSE;
use prefault::Prefault;
use register_page::RegisterPage;
use signals::Signals;
use vcpu::{Shared, Vcpus};

/// How a run ended, for the last message.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The guest's output ends in the middle of a line of the terminal that the message goes to.
    pub in_line: bool,
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, in_line: false }
    }
}

/// Runs the guest that `config` describes, and writes the report.
pub fn run(config: &VmConfig) -> Ended {
    // First of all: a run whose report has no place does not start.
    let open = || {
        limits::need_open_files(open_files::most(&config.machine)).map_err(Error::Host)?;
        let signals = Signals::block()?;
        refuse_overwriting(config)?;
        let report = config.report.as_deref().map(open_report).transpose()?;
        Ok((signals, report))
    };
    let (signals, file) = match open() {
        Ok(opened) => opened,
        Err(error) => return Error::outcome(&error).into(),
    };
    let (ended, report) = match Guest::start(config, signals) {
        Ok(guest) => guest.wait(),
        Err(error) => {
            let outcome = error.outcome();
            let report = Report::without_machine(&outcome);
            (outcome.into(), report)
        }
    };
    let Ended { outcome, in_line } = ended;
    let outcome = match file.map_or(Ok(()), |file| write_report(&file, &report)) {
        // The way out is confined, too.
        Ok(()) => with_violation(outcome, sandbox::violation()),
        Err(error) => outcome.after(&format!("--report: it can't be written: {error}")),
    };
    Ended { outcome, in_line }
}

/// In place of an older one: there is a report of a guest that does not start, too.
fn open_report(path: &Path) -> Result<File> {
    let file = create("--report", path)?;
    files::empty(&file, path).map_err(|error| Error::argument(with_path("--report", path), error))?;
    Ok(file)
}

fn write_report(file: &File, report: &Report) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    files::write_all(file, &text)
}

/// A running guest.
struct Guest {
    machine: Machine,
    vm: Vm,
    vcpus: Vcpus,
    io: Vec<IoThread>,
    prefault: Prefault,
    register_page: Option<RegisterPage>,
    /// Disks that the guest may have written.
    disks: Vec<Arc<Image>>,
    console: Arc<Written>,
    control: Control,
    sandbox: Sandbox,
    told: Told,
}

impl Guest {
    /// Opens everything that can be wrong, loads the guest, and starts it.
    fn start(config: &VmConfig, signals: Signals) -> Result<Self> {
        let machine = machine::describe(&config.machine)?;
        machine::refuse_shared(&config.machine.devices)?;
        let mut devices = machine::open(&config.machine)?;
        let warnings = warnings::of(&config.machine, &machine, &devices);
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let MachineConfig { firmware, spec, .. } = config.machine;
        let told = Told { firmware, spec, warnings };
        let disks = devices.iter_mut().filter_map(|opened| opened.disk.take()).collect();
        let images = open_images(config, &machine)?;
        let exit = Arc::new(ExitRequest::new()?);
        let (output, console) = open_console(&config.console, &exit)?;
        let Loaded { private, pools, entry } = GuestMemory::new(&machine, &config.machine.pools)?
            .load(&machine, images)
            .map_err(|error| loader_error(config, &error))?;
        console::begin(&config.console)?;
        write_copies(config, &machine)?;

        let kvm = open_kvm(config)?;
        let vm = Arc::new(machine::create(&kvm)?);
        private.register(&vm)?;
        let restricted = config.machine.spec.restricted;
        let resets = config.machine.cmdline.split_whitespace().filter(|word| word.starts_with("reboot="));
        let warm_is_panic = resets.count() == 1;
        let parts = Parts {
            devices,
            restricted,
            private,
            pool_options: &config.machine.pools,
            pools,
            console: output,
            on_event: exit.handler(warm_is_panic),
        };
        let (vm, workers) = Vm::new(vm, &machine, parts)?;
        let vcpus = create_vcpus(&kvm, &vm, config.machine.cpus, entry)?;

        let stdio = config.console == ConsoleConfig::Stdio;
        let control = Control::new(signals, stdio, &vm, Arc::clone(&exit))?;
        let cpuinfo = File::open("/proc/cpuinfo").ok();

        // All is open. Nothing runs on behalf of the guest before each thread is confined.
        let sandbox = if config.sandbox { exit.sandbox()? } else { Sandbox::off() };
        let mut io = Vec::new();
        for (device, worker) in vm.devices.iter().zip(workers) {
            let kind = device.transport.with_core(cvmm_devices::virtio::Core::kind);
            io.extend(IoThread::start_all((&device.name, kind), worker, &exit, &sandbox)?);
        }
        let prefault = Prefault::start(&vm.pools, &sandbox)?;
        let register_page = RegisterPage::open(&vm, machine.system.uart.0, &exit, &sandbox)?;
        let moves_memory = machine.virtio.iter().any(|device| device.own_memory().is_some());
        let shared = Shared { vm: &vm, exit: &exit, moves_memory, cpuinfo };
        let mut vcpus = Vcpus::start(vcpus, shared, &sandbox)?;
        sandbox.confine(ThreadKind::Main)?;
        vcpus.go();
        prefault.go();
        Ok(Self { machine, vm, vcpus, io, prefault, register_page, disks, console, control, sandbox, told })
    }

    /// Waits for the end. What the guest wrote is on stable storage when this returns, however it ended.
    fn wait(mut self) -> (Ended, Report) {
        let outcome = self.control.wait();
        self.control.give_back_terminal();
        self.vcpus.stop();
        self.io.into_iter().for_each(IoThread::stop);
        self.prefault.stop();
        if let Some(page) = self.register_page.take() {
            page.close(&self.vm.console);
        }
        // Whatever else it led to: this is why. What comes of it below is told, too.
        let mut outcome = sandbox::violation().map_or(outcome, Outcome::from);
        for disk in &self.disks {
            if let Err(error) = disk.flush() {
                outcome = outcome.after(&format!("{} can't be flushed: {error}", disk.path().display()));
            }
        }
        if let Some(error) = self.console.lost.get() {
            outcome = outcome.after(&format!("some console output was lost: {error}"));
        }
        let outcome = with_violation(outcome, sandbox::violation());
        let report = Report::new(&outcome, &self.machine, &self.vm.devices, self.sandbox);
        let report =
            report.with_told(self.told).with_exits([("mmio", &self.vm.mmio), ("ports", &self.vm.ports)]);
        (Ended { outcome, in_line: self.console.in_line.load(Ordering::Relaxed) }, report)
    }
}

/// The same end, if there was a violation that it does not tell of yet.
fn with_violation(outcome: Outcome, violation: Option<Violation>) -> Outcome {
    let news = violation.map(|violation| violation.to_string());
    match news.filter(|news| !outcome.detail().contains(news)) {
        Some(news) => outcome.after(&news),
        None => outcome,
    }
}

fn open_kvm(config: &VmConfig) -> Result<Kvm> {
    let kvm = Kvm::new().map_err(|error| {
        Error::Host(format!(
            "/dev/kvm can't be opened: {error}; is the KVM module loaded, and may this user open /dev/kvm?"
        ))
    })?;
    let most = kvm.get_max_vcpus();
    if usize::from(config.machine.cpus) > most {
        let reason = format!("KVM on this host allows at most {most} CPUs");
        return Err(Error::argument(format!("--cpus {}", config.machine.cpus), reason));
    }
    Ok(kvm)
}

fn create_vcpus(kvm: &Kvm, vm: &Vm, count: u8, entry: Entry) -> Result<Vec<VcpuFd>> {
    let create = || {
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        // In order: the first is the boot processor.
        (0..count)
            .map(|id| {
                let vcpu = vm.fd.create_vcpu(u64::from(id))?;
                cpu::configure(&vcpu, &supported, id, count, entry)?;
                Ok(vcpu)
            })
            .collect::<std::result::Result<Vec<_>, kvm_ioctls::Error>>()
    };
    create().map_err(|error| Error::Host(format!("KVM can't make the vCPUs: {error}")))
}
