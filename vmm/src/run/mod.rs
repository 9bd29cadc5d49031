// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cvmm run`: from a configuration to the end of the guest.

mod control;
mod io_thread;
mod vcpu;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use cvmm_arch::native::boot::{self, Image, Images};
use cvmm_arch::native::cpu;
use cvmm_firmware::{Machine, device_tree};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;

use crate::config::{ConsoleConfig, VmConfig};
use crate::host::terminal::RawTerminal;
use crate::machine::{self, GuestMemory, Loaded, Opened, Parts, Vm};
use crate::report::Report;
use crate::{Error, Outcome, Result};
use control::{Control, ExitRequest};
use io_thread::IoThread;
use vcpu::Vcpus;

/// Runs the guest that `config` describes, and writes the report.
pub fn run(config: &VmConfig) -> Outcome {
    let mut report = None;
    let outcome = match open_report(config) {
        Ok(file) => {
            report = file;
            run_guest(config).unwrap_or_else(|error| (error.outcome(), None))
        }
        Err(error) => (error.outcome(), None),
    };
    let (mut outcome, described) = outcome;
    if let Some(mut file) = report {
        let report = described.unwrap_or_else(|| Report::without_machine(&outcome));
        let written = serde_json::to_writer_pretty(&file, &report).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| writeln!(file)) {
            outcome = Outcome::VmmError(format!("--report: it can't be written: {error}"));
        }
    }
    outcome
}

/// Opens what can be wrong before the guest starts, starts it, waits for its end.
fn run_guest(config: &VmConfig) -> Result<(Outcome, Option<Report>)> {
    let machine = machine::describe(config)?;
    let devices: Vec<Opened> =
        config.devices.iter().map(|device| machine::open(device, config.pool.size)).collect::<Result<_>>()?;
    let images = open_images(config, &machine)?;
    let exit = Arc::new(ExitRequest::new()?);
    let console = open_console(&config.console, &exit)?;
    let Loaded { private, pools, entry } =
        GuestMemory::new(&machine)?.load(&machine, images).map_err(|error| loader_error(config, &error))?;

    let kvm = Kvm::new().map_err(|error| {
        Error::Host(format!("/dev/kvm can't be opened: {error}; is KVM loaded, and may this user open it?"))
    })?;
    let most = kvm.get_max_vcpus().min(254);
    if usize::from(config.cpus) > most {
        let reason = format!("KVM of this host allows {most} CPUs");
        return Err(Error::argument(format!("--cpus {}", config.cpus), reason));
    }
    let vm = Arc::new(machine::create(&kvm)?);
    private.register(&vm)?;

    let mut disks = Vec::new();
    let devices = devices.into_iter().map(|mut opened| {
        disks.extend(opened.disk.take());
        opened
    });
    let parts = Parts { devices: devices.collect(), private, pools, console, on_event: exit.handler() };
    let (vm, workers) = Vm::new(vm, &machine, parts)?;

    let vcpus = {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| Error::Host(format!("KVM does not tell its CPUID: {error}")))?;
        // vCPUs are made in order: the first is the boot processor.
        (0..config.cpus)
            .map(|id| {
                let vcpu = vm.fd.create_vcpu(u64::from(id))?;
                cpu::configure(&vcpu, &supported, id, config.cpus, entry)?;
                Ok(vcpu)
            })
            .collect::<std::result::Result<Vec<_>, kvm_ioctls::Error>>()
            .map_err(|error| Error::Host(format!("KVM can't make the vCPUs: {error}")))?
    };

    // Signals are blocked before the first thread starts, so that only the control loop sees them. The terminal is
    // restored when `_terminal` goes, whichever way.
    let mut control = Control::new(config.console == ConsoleConfig::Stdio, &vm, Arc::clone(&exit))?;
    let _terminal = match config.console {
        ConsoleConfig::Stdio => {
            RawTerminal::new(io::stdin()).map_err(|error| Error::vmm("terminal", error))?
        }
        _ => None,
    };
    let names = machine.virtio.iter().map(|device| device.name.as_str());
    let io = names
        .zip(workers)
        .map(|(name, worker)| IoThread::start(name, worker, Arc::clone(&exit)))
        .collect::<Result<Vec<_>>>()?;
    let running = Vcpus::start(vcpus, &vm, &exit)?;

    let outcome = control.wait();
    running.stop();
    io.into_iter().for_each(IoThread::stop);
    let outcome = flush(&disks).map_or_else(Outcome::VmmError, |()| outcome);
    let report = Report::new(&outcome, &machine, &vm.devices);
    Ok((outcome, Some(report)))
}

/// What the guest wrote is on stable storage when the process ends, however it ended.
fn flush(disks: &[File]) -> std::result::Result<(), String> {
    disks
        .iter()
        .try_for_each(|disk| disk.sync_data().map_err(|error| format!("a disk can't be flushed: {error}")))
}

fn open_report(config: &VmConfig) -> Result<Option<File>> {
    config.report.as_deref().map(|path| create("--report", path)).transpose()
}

fn create(option: &str, path: &Path) -> Result<File> {
    File::create(path)
        .map_err(|error| Error::argument(with_path(option, path), format!("it can't be written: {error}")))
}

fn open_file(option: &str, path: &Path) -> Result<File> {
    let wrong = |reason: String| Error::argument(with_path(option, path), reason);
    let file = File::open(path).map_err(|error| wrong(format!("it can't be read: {error}")))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(wrong("it is a directory".into())),
        _ => Ok(file),
    }
}

fn open_images(config: &VmConfig, machine: &Machine) -> Result<Images> {
    let kernel = open_file("--kernel", &config.kernel)?;
    let initrd = config.initrd.as_deref().map(|path| open_file("--initrd", path)).transpose()?;
    let ours = device_tree(machine).map_err(|error| Error::Vmm(error.to_string()))?;
    if let Some(path) = &config.dump_dtb {
        create("--dump-dtb", path)?.write_all(&ours).map_err(|error| {
            Error::argument(with_path("--dump-dtb", path), format!("it can't be written: {error}"))
        })?;
    }
    let dtb = match &config.dtb {
        None => ours,
        Some(path) => read_dtb(path).map_err(|reason| Error::argument(with_path("--dtb", path), reason))?,
    };
    Ok(Images { kernel, initrd, dtb })
}

fn read_dtb(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let dtb = fs::read(path).map_err(|error| format!("it can't be read: {error}"))?;
    // Devicetree Specification 0.4, 5.2: magic and total size, big endian.
    match dtb.first_chunk::<8>() {
        Some([0xd0, 0x0d, 0xfe, 0xed, size @ ..])
            if dtb.len() as u64 >= u64::from(u32::from_be_bytes(*size)) =>
        {
            Ok(dtb)
        }
        _ => Err("it is no flattened device tree (dtb), or truncated; dtc makes one".into()),
    }
}

/// Names the option that a loader's error is about.
fn loader_error(config: &VmConfig, error: &boot::Error) -> Error {
    let option = match (error.image(), &config.initrd, &config.dtb) {
        (Image::Kernel, ..) => with_path("--kernel", &config.kernel),
        (Image::Initrd, Some(path), _) => with_path("--initrd", path),
        (Image::Cmdline, ..) => "--cmdline".into(),
        (Image::DeviceTree, _, Some(path)) => with_path("--dtb", path),
        _ => return Error::Vmm(error.to_string()),
    };
    Error::argument(option, error)
}

fn with_path(option: &str, path: &Path) -> String {
    format!("{option} {}", path.display())
}

fn open_console(console: &ConsoleConfig, exit: &Arc<ExitRequest>) -> Result<Box<dyn Write + Send>> {
    let file = match console {
        ConsoleConfig::Off => return Ok(Box::new(io::sink())),
        ConsoleConfig::File(path) => create("--console", path)?,
        ConsoleConfig::Stdio => {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            File::from(stdout.map_err(|error| Error::vmm("standard output", error))?)
        }
    };
    Ok(Box::new(ConsoleOutput { file, exit: Arc::clone(exit) }))
}

/// Console output that nobody may be reading. The vCPU waits until somebody does, but not past the end of the run.
struct ConsoleOutput {
    file: File,
    exit: Arc<ExitRequest>,
}

impl Write for ConsoleOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            // The signal that stops vCPUs ends the wait.
            Err(error) if error.kind() == io::ErrorKind::Interrupted && self.exit.is_asked() => {
                Ok(bytes.len())
            }
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
