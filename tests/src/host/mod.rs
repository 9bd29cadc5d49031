// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A KVM host anywhere: this machine where its KVM can run Linux, else a machine under QEMU's emulation. Both are used in
//! the same way, through an agent.
//!
//! Paths that methods take and give are paths on the KVM host, unless they say otherwise.

pub mod agent;
mod child;
mod client;
mod console;
mod emulated;
mod local;
mod process;
mod protocol;
mod resources;
mod shared;
mod transfer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, bail};

use crate::{build, initramfs, kernel, packages, workspace};
use client::Client;
use console::ConsoleLog;
use protocol::{Answer, Greeting, Request};

pub use emulated::SAFE_CPUS;
pub use process::{Control, Line, Process};
pub use protocol::{CommandLine, Exit, Received, Stream};
pub use resources::{Folder, Peer, Tap};
pub use shared::Lent;

/// The variable that chooses the kind of host.
pub const KIND_VARIABLE: &str = "CVMM_LAB_HOST";

/// Where things are on an emulated host.
const CVMM: &str = "/bin/cvmm";
const GUEST_KERNEL: &str = "/guest/kernel";
const PATCHED_KERNEL: &str = "/guest/kernel-patched";
const GUEST_INITRD: &str = "/guest/initrd";
const EMULATED_FOLDER: &str = "/lab";

/// The memory of an emulated host beyond what its files need. Only touched memory costs, so guests may be larger.
const EMULATED_MEMORY_MIB: u64 = 3072;

/// What a KVM host runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// This machine's own /dev/kvm.
    Kvm,
    /// A machine under QEMU's emulation, with KVM in it.
    Emulated,
}

impl Kind {
    /// The kind as options and variables spell it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Emulated => "emulated",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "this machine's KVM",
            Self::Emulated => "a KVM host under QEMU's emulation",
        })
    }
}

/// A running KVM host. An emulated one ends when this is dropped.
#[derive(Debug)]
pub struct Host {
    kind: Kind,
    greeting: Greeting,
    client: Arc<Client>,
    console: ConsoleLog,
    tools: Tools,
    folder: PathBuf,
    next_folder: AtomicU32,
    _machine: Option<emulated::Machine>,
    _folder: Option<tempfile::TempDir>,
}

/// A reached agent, and the machine it runs on if that is ours.
struct Connection {
    client: Client,
    greeting: Greeting,
    console: ConsoleLog,
    machine: Option<emulated::Machine>,
}

/// What a host has for running guests.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The VMM.
    pub cvmm: PathBuf,
    /// The guest kernel that comes with the project.
    pub kernel: PathBuf,
    /// The same with the project's patches.
    pub patched_kernel: PathBuf,
    /// Our guests' initial file system.
    pub initrd: PathBuf,
}

/// Which kind of host to use, and why: the one chosen by an option or by the variable, else what serves best here.
pub fn best_kind(chosen: Option<Kind>) -> Result<(Kind, String)> {
    if let Some(kind) = chosen {
        return Ok((kind, format!("--host {} was given", kind.word())));
    }
    match std::env::var(KIND_VARIABLE).ok().as_deref() {
        None | Some("") => {}
        Some("kvm") => return Ok((Kind::Kvm, format!("{KIND_VARIABLE} says so"))),
        Some("emulated") => return Ok((Kind::Emulated, format!("{KIND_VARIABLE} says so"))),
        Some(other) => bail!("{KIND_VARIABLE}={other} is unknown: it must be kvm or emulated"),
    }
    Ok(match local::obstacle() {
        None => (Kind::Kvm, "/dev/kvm can run Linux here".to_owned()),
        Some(why) => (Kind::Emulated, why),
    })
}

impl Host {
    /// A host of this kind.
    pub fn of_kind(kind: Kind) -> Result<Self> {
        match kind {
            Kind::Kvm => Self::kvm(),
            Kind::Emulated => Self::emulated(emulated::SAFE_CPUS, 0),
        }
    }

    /// This machine.
    pub fn kvm() -> Result<Self> {
        let programs = build::static_programs()?;
        let folder = tempfile::Builder::new().prefix("cvmm-lab-").tempdir()?;
        let tools = Tools {
            cvmm: programs.cvmm,
            kernel: workspace::guest_kernel(),
            patched_kernel: workspace::patched_kernel(),
            initrd: folder.path().join("guest-initrd"),
        };
        std::fs::write(&tools.initrd, initramfs::guest_initramfs(&programs.guest_init)?)?;
        let path = folder.path().to_owned();
        Self::new(Kind::Kvm, local::start()?, tools, path, Some(folder)).with_kvm()
    }

    /// A machine under QEMU's emulation with `cpus` CPUs, that can hold `file_bytes` of files beside the guests.
    pub fn emulated(cpus: u32, file_bytes: u64) -> Result<Self> {
        let programs = build::static_programs()?;
        let memory_mib = EMULATED_MEMORY_MIB + file_bytes.div_ceil(1 << 20);
        let connection = emulated::start(&programs, cpus, memory_mib)?;
        let tools = Tools {
            cvmm: CVMM.into(),
            kernel: GUEST_KERNEL.into(),
            patched_kernel: PATCHED_KERNEL.into(),
            initrd: GUEST_INITRD.into(),
        };
        Self::new(Kind::Emulated, connection, tools, EMULATED_FOLDER.into(), None).with_kvm()
    }

    fn new(
        kind: Kind,
        connection: Connection,
        tools: Tools,
        folder: PathBuf,
        temporary: Option<tempfile::TempDir>,
    ) -> Self {
        let Connection { client, greeting, console, machine } = connection;
        Self {
            kind,
            greeting,
            client: Arc::new(client),
            console,
            tools,
            folder,
            next_folder: AtomicU32::new(0),
            _machine: machine,
            _folder: temporary,
        }
    }

    fn with_kvm(self) -> Result<Self> {
        match &self.greeting.kvm_error {
            None => Ok(self),
            Some(error) => Err(self.error(anyhow!("{} has no usable /dev/kvm: {error}", self.kind))),
        }
    }

    /// What it runs on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The release of its kernel.
    pub fn kernel_release(&self) -> &str {
        &self.greeting.kernel
    }

    /// What it has for running guests.
    pub fn tools(&self) -> Result<&Tools> {
        for kernel in [workspace::guest_kernel(), workspace::patched_kernel()] {
            if !kernel.exists() {
                bail!("the guest kernel {} is missing (see resources/guest-kernel)", kernel.display());
            }
        }
        Ok(&self.tools)
    }

    /// The VMM's path.
    pub fn cvmm(&self) -> &Path {
        &self.tools.cvmm
    }

    /// Starts a program.
    pub fn spawn(&self, command: CommandLine) -> Result<Process> {
        let name = command.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (job, events) = self.client.new_job();
        let started = match self.request(&Request::Spawn { job, command }, &[])? {
            (Answer::Spawned { pid, at }, _) => (pid, at),
            (other, _) => bail!("the agent answered {other:?} to a spawn"),
        };
        Ok(Process::new(self.client.clone(), self.console.clone(), name, (job, events), started))
    }

    /// Starts a program with arguments.
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Process> {
        let arguments = arguments.iter().map(Into::into).collect();
        self.spawn(CommandLine { program: program.as_ref().to_owned(), arguments, ..CommandLine::default() })
    }

    /// A new empty folder, removed when dropped.
    pub fn folder(&self) -> Result<Folder> {
        let number = self.next_folder.fetch_add(1, Ordering::Relaxed);
        Folder::make(self.client.clone(), self.folder.join(number.to_string()))
    }

    /// A tap interface with an address such as 192.168.77.1/24; removed when dropped.
    pub fn tap(&self, name: &str, address: &str) -> Result<Tap> {
        Tap::make(self.client.clone(), name, Some(address), false, None).map_err(|error| self.error(error))
    }

    /// The same, with this MTU.
    pub fn tap_with_mtu(&self, name: &str, address: &str, mtu: u16) -> Result<Tap> {
        let tap = Tap::make(self.client.clone(), name, Some(address), false, Some(mtu));
        tap.map_err(|error| self.error(error))
    }

    /// The same, for devices with several queues.
    pub fn multi_queue_tap(&self, name: &str, address: &str) -> Result<Tap> {
        Tap::make(self.client.clone(), name, Some(address), true, None).map_err(|error| self.error(error))
    }

    /// Listens on a TCP port, or on any free one for 0, for the guest's end of a transfer.
    pub fn peer(&self, port: u16) -> Result<Peer> {
        Peer::listen(self.client.clone(), port).map_err(|error| self.error(error))
    }

    /// Whether it is still there.
    fn answers(&self) -> bool {
        let nothing = Request::Remove { path: self.folder.join("nothing") };
        self.client.request(&nothing, &[]).is_ok()
    }

    fn request(&self, request: &Request, bytes: &[u8]) -> Result<(Answer, Vec<u8>)> {
        self.client.request(request, bytes).map_err(|error| self.error(error))
    }

    /// An error that shows the host's console.
    fn error(&self, error: anyhow::Error) -> anyhow::Error {
        anyhow!(self.console.explain(format!("{error:#}")))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.client.close();
    }
}

/// Gets what starting a host of this kind needs, without starting it.
pub fn prepare(kind: Kind) -> Result<()> {
    match kind {
        Kind::Kvm => Ok(()),
        Kind::Emulated => {
            packages::require(&[packages::QEMU]).context("the emulated KVM host needs QEMU")?;
            kernel::DebianKernel::get(kernel::Flavour::Cloud).map(drop)
        }
    }
}

#[cfg(test)]
mod tests;
