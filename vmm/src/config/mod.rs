// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the user asked for, parsed and checked as far as that goes without touching the host.

mod devices;
mod keys;
mod mac;
mod pool;
mod size;
mod spec;
mod split;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

pub use devices::{DeviceConfig, DeviceKind, MAX_QUEUES, TransportKind};
pub use mac::Mac;
pub use pool::PoolConfig;
pub use spec::{PLAN_BIT, PROFILES, Profile, RFC_BIT, SpecConfig};

use crate::cli::{MachineArgs, RunArgs};
use crate::{Error, Result};
use cvmm_arch::native::layout;
use serde::Serialize;

/// Kernel command line of every guest.
///
/// The UART by its address: as `ttyS0`, Linux would first talk to a PC's port that is not there. Its `r` is flow
/// control: without it, Linux drops input that nobody reads, instead of holding it back. `reboot=p`, by a PC's reset
/// control register: without ACPI there is no other way but the keyboard controller; and with hardware-reduced ACPI, a kernel
/// with EFI support would take EFI's reset, which is not there, and then the BIOS's (arch/x86/kernel/reboot.c, `reboot_init`).
/// After a panic a reset instead of a halt, and a warm one: that tells it from another reset where the kernel has no driver for
/// pvpanic.
pub fn default_cmdline() -> String {
    format!("console=uart8250,mmio,{:#x},115200n8r reboot=p,panic_warm panic=-1", layout::UART.base())
}

/// A guest to run.
#[derive(Debug)]
pub struct VmConfig {
    /// bzImage or ELF kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its machine.
    pub machine: MachineConfig,
    /// Where the console goes.
    pub console: ConsoleConfig,
    /// Where the report goes.
    pub report: Option<PathBuf>,
    /// Where a copy of the device tree goes. None with [`FirmwareKind::Acpi`].
    pub dump_dtb: Option<PathBuf>,
    /// A device tree to use instead of ours. None with [`FirmwareKind::Acpi`].
    pub dtb: Option<PathBuf>,
    /// Folder for copies of the ACPI tables. None with [`FirmwareKind::Dt`].
    pub dump_acpi: Option<PathBuf>,
    /// A DSDT to use instead of ours. None with [`FirmwareKind::Dt`].
    pub dsdt: Option<PathBuf>,
    /// Whether the VMM is confined while the guest runs.
    pub sandbox: bool,
}

/// What the machine of a guest is to be.
#[derive(Debug)]
pub struct MachineConfig {
    /// The whole kernel command line.
    pub cmdline: String,
    /// Bytes of guest memory.
    pub mem: u64,
    /// Number of vCPUs, not 0.
    pub cpus: u8,
    /// The pools, in the order of the command line; at least one.
    pub pools: Vec<PoolConfig>,
    /// Devices, in the order of their kinds: disks, network, entropy.
    pub devices: Vec<DeviceConfig>,
    /// What tells the guest of its machine.
    pub firmware: FirmwareKind,
    /// What the guest is told of the pools.
    pub spec: SpecConfig,
}

/// Local APIC identifiers have 8 bits, and the last one means "all" (Intel SDM 3A, 11.6.2).
const MAX_CPUS: u8 = 254;

/// What tells the guest of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareKind {
    /// A device tree.
    Dt,
    /// ACPI tables.
    Acpi,
}

/// Where the console goes.
#[derive(Debug, PartialEq, Eq)]
pub enum ConsoleConfig {
    /// Standard input and output.
    Stdio,
    /// A file; there is no input.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl VmConfig {
    /// Reads the options.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub fn new(args: &RunArgs) -> Result<Self> {
        let machine = MachineConfig::new(&args.machine)?;
        refuse_other_form(args, machine.firmware)?;
        Ok(Self {
            kernel: args.kernel.clone(),
            initrd: args.initrd.clone(),
            machine,
            console: console(&args.console)?,
            report: args.report.clone(),
            dump_dtb: args.dump_dtb.clone(),
            dtb: args.dtb.clone(),
            dump_acpi: args.dump_acpi.clone(),
            dsdt: args.dsdt.clone(),
            sandbox: !args.no_sandbox,
        })
    }
}

impl MachineConfig {
    /// Reads the options.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub fn new(args: &MachineArgs) -> Result<Self> {
        let firmware = firmware(&args.firmware)?;
        let mem = size::parse(&args.mem).map_err(|e| Error::argument(format!("--mem {}", args.mem), e))?;
        if !(layout::MIN_MEMORY..=layout::MAX_MEMORY).contains(&mem) || !mem.is_multiple_of(2 << 20) {
            let (least, most) = (layout::MIN_MEMORY >> 20, layout::MAX_MEMORY >> 30);
            let reason = format!("guest memory must be a multiple of 2M, from {least}M to {most}G");
            return Err(Error::argument(format!("--mem {}", args.mem), reason));
        }
        let cpus = args.cpus.parse().ok().filter(|cpus| (1..=MAX_CPUS).contains(cpus)).ok_or_else(|| {
            Error::argument(
                format!("--cpus {}", args.cpus),
                format!("it must be a number from 1 to {MAX_CPUS}"),
            )
        })?;
        let mut cmdline = default_cmdline();
        if let Some(more) = &args.cmdline {
            if more.contains(['\0', '\n']) {
                return Err(Error::argument("--cmdline", "it must not contain zero bytes or line breaks"));
            }
            cmdline = format!("{cmdline} {more}");
        }
        let pools = pool::parse(&args.pool)?;
        let devices = devices::parse(args, &pools)?;
        Ok(Self { cmdline, mem, cpus, pools, devices, firmware, spec: spec::parse(args)? })
    }
}

/// Refuses options that are about the form of description that this guest does not get.
fn refuse_other_form(args: &RunArgs, firmware: FirmwareKind) -> Result<()> {
    let (given, reason) = match firmware {
        FirmwareKind::Acpi => (
            [("--dtb", &args.dtb), ("--dump-dtb", &args.dump_dtb)],
            "with --firmware acpi, the guest gets no device tree; 'cvmm describe --format dtb' writes the one that it \
             would get without",
        ),
        FirmwareKind::Dt => (
            [("--dump-acpi", &args.dump_acpi), ("--dsdt", &args.dsdt)],
            "without --firmware acpi, the guest gets no ACPI tables; 'cvmm describe --format acpi' writes those that it \
             would get with it",
        ),
    };
    match given.into_iter().find_map(|(option, path)| path.as_ref().map(|path| (option, path))) {
        None => Ok(()),
        Some((option, path)) => Err(Error::argument(format!("{option} {}", path.display()), reason)),
    }
}

fn firmware(text: &str) -> Result<FirmwareKind> {
    match text {
        "dt" => Ok(FirmwareKind::Dt),
        "acpi" => Ok(FirmwareKind::Acpi),
        _ => Err(Error::argument(format!("--firmware {text}"), "it must be dt or acpi")),
    }
}

fn console(text: &OsStr) -> Result<ConsoleConfig> {
    match (text.as_bytes(), text.as_bytes().strip_prefix(b"file=")) {
        (b"stdio", _) => Ok(ConsoleConfig::Stdio),
        (b"off", _) => Ok(ConsoleConfig::Off),
        (_, Some(path)) if !path.is_empty() => Ok(ConsoleConfig::File(OsStr::from_bytes(path).into())),
        _ => Err(Error::argument(
            format!("--console {}", text.display()),
            "it must be stdio, file=PATH or off",
        )),
    }
}

#[cfg(test)]
mod tests;
