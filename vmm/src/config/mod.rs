// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the user asked for, parsed and checked as far as that goes without touching the host.

mod keys;
mod mac;
mod size;

use std::path::PathBuf;

pub use mac::Mac;

use crate::cli::RunArgs;
use crate::{Error, Result};
use cvmm_arch::native::layout;
use keys::Keys;

/// Kernel command line of every guest: the UART by its address (as `ttyS0`, Linux would first talk to a PC's port that
/// is not there), the reset that an x86 machine without ACPI has, and a reset after a panic instead of a halt.
pub fn default_cmdline() -> String {
    format!("console=uart8250,mmio,{:#x},115200 reboot=k panic=-1", layout::UART.base())
}

/// Longest `serial=`, in bytes: what fits the device ID string (virtio 1.3, 5.2.6).
const MAX_SERIAL: usize = cvmm_devices::blk::ID_LEN;

/// Longest name of a pool.
const MAX_POOL_NAME: usize = 32;

/// A guest to run.
#[derive(Debug)]
pub struct VmConfig {
    /// bzImage or ELF kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The whole kernel command line.
    pub cmdline: String,
    /// Bytes of guest memory.
    pub mem: u64,
    /// Number of vCPUs, not 0.
    pub cpus: u8,
    /// The pool.
    pub pool: PoolConfig,
    /// Devices, in the order of their kinds: disks, network, entropy.
    pub devices: Vec<DeviceConfig>,
    /// Where the console goes.
    pub console: ConsoleConfig,
    /// Where the report goes.
    pub report: Option<PathBuf>,
    /// Where a copy of the device tree goes.
    pub dump_dtb: Option<PathBuf>,
    /// A device tree to use instead of ours.
    pub dtb: Option<PathBuf>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The option as it was given.
    pub option: String,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Guest-physical address, if the user wants a certain one.
    pub base: Option<u64>,
}

/// A virtio device.
#[derive(Debug)]
pub struct DeviceConfig {
    /// The option as it was given, for messages.
    pub option: String,
    /// Its name in the report: `blk0`.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
}

/// What a device is.
#[derive(Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A disk.
    Blk {
        /// File or block device.
        path: PathBuf,
        /// The guest may not write.
        read_only: bool,
        /// Its ID string.
        serial: String,
    },
    /// A network device.
    Net {
        /// Name of a tap.
        tap: String,
        /// The guest's address.
        mac: Mac,
    },
    /// An entropy device.
    Rng,
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
        let mem = size::parse(&args.mem).map_err(|e| Error::argument(format!("--mem {}", args.mem), e))?;
        if !(layout::MIN_MEMORY..=layout::MAX_MEMORY).contains(&mem) || !mem.is_multiple_of(2 << 20) {
            let reason = "guest memory is a multiple of 2M, from 32M to 63G";
            return Err(Error::argument(format!("--mem {}", args.mem), reason));
        }
        let cpus = args.cpus.parse().ok().filter(|cpus| *cpus > 0).ok_or_else(|| {
            Error::argument(
                format!("--cpus {}", args.cpus),
                "the number of CPUs is at least 1, and at most 254",
            )
        })?;
        let mut cmdline = default_cmdline();
        if let Some(more) = &args.cmdline {
            if more.contains(['\0', '\n']) {
                return Err(Error::argument("--cmdline", "it may not contain zero bytes or line breaks"));
            }
            cmdline = format!("{cmdline} {more}");
        }
        Ok(Self {
            kernel: args.kernel.clone(),
            initrd: args.initrd.clone(),
            cmdline,
            mem,
            cpus,
            pool: pool(&args.pool, mem)?,
            devices: devices(args)?,
            console: console(&args.console)?,
            report: args.report.clone(),
            dump_dtb: args.dump_dtb.clone(),
            dtb: args.dtb.clone(),
        })
    }
}

fn pool(pools: &[String], mem: u64) -> Result<PoolConfig> {
    let text = match pools {
        [one] => one,
        [] => {
            return Err(Error::argument(
                "--pool",
                "it is missing. cvmm has no mode in which devices see all of guest memory: say how much of it they \
                 may reach, for example --pool 64M",
            ));
        }
        [_, second, ..] => {
            return Err(Error::argument(format!("--pool {second}"), "a guest has one pool so far"));
        }
    };
    let option = format!("--pool {text}");
    let wrong = |reason: String| Error::argument(&option, reason);
    let mut keys = Keys::parse(text, Some("size")).map_err(wrong)?;
    let size = keys.take("size").ok_or_else(|| wrong("size=SIZE is missing".into()))?;
    let size = size::parse(&size).map_err(|reason| wrong(format!("size: {reason}")))?;
    let base = keys.take("base").map(|base| size::parse(&base)).transpose();
    let base = base.map_err(|reason| wrong(format!("base: {reason}")))?;
    let name = keys.take("name").unwrap_or_else(|| "pool".into());
    keys.finish(&["size", "name", "base"]).map_err(wrong)?;
    if name.is_empty()
        || name.len() > MAX_POOL_NAME
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        let reason = format!("a name is made of letters, digits, '-', '_' and '.', at most {MAX_POOL_NAME}");
        return Err(wrong(reason));
    }
    if size > mem {
        return Err(wrong(format!(
            "the pool is part of guest memory, and larger than that ({mem} bytes, --mem)"
        )));
    }
    Ok(PoolConfig { option, name, size, base })
}

fn devices(args: &RunArgs) -> Result<Vec<DeviceConfig>> {
    let mut devices = Vec::new();
    for (index, text) in args.blk.iter().enumerate() {
        let name = format!("blk{index}");
        devices.push(device("--blk", text, "path", &name, |keys, path| {
            let serial = keys.take("serial").unwrap_or_else(|| name.clone());
            if serial.len() > MAX_SERIAL || !serial.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
                return Err(format!("serial: at most {MAX_SERIAL} printable characters"));
            }
            let read_only = keys.take_flag("ro")?;
            Ok((DeviceKind::Blk { path: path.into(), read_only, serial }, &["path", "ro", "serial"]))
        })?);
    }
    for (index, text) in args.net.iter().enumerate() {
        devices.push(device("--net", text, "tap", &format!("net{index}"), |keys, tap| {
            let mac = keys.take("mac").map_or_else(|| Ok(Mac::of_tap(&tap)), |mac| mac.parse())?;
            Ok((DeviceKind::Net { tap, mac }, &["tap", "mac"]))
        })?);
    }
    if args.rng {
        devices.push(DeviceConfig { option: "--rng".into(), name: "rng0".into(), kind: DeviceKind::Rng });
    }
    if devices.len() > layout::MAX_VIRTIO_MMIO {
        let reason = format!("a machine has room for {} devices on mmio", layout::MAX_VIRTIO_MMIO);
        return Err(Error::argument(&devices[layout::MAX_VIRTIO_MMIO].option, reason));
    }
    Ok(devices)
}

/// One `--blk` or `--net`: the key `main` is needed, `transport` is common to all, `rest` takes the others and names
/// all that there are.
fn device(
    flag: &str,
    text: &str,
    main: &str,
    name: &str,
    rest: impl FnOnce(&mut Keys, String) -> std::result::Result<(DeviceKind, &'static [&'static str]), String>,
) -> Result<DeviceConfig> {
    let option = format!("{flag} {text}");
    let parse = || {
        let mut keys = Keys::parse(text, None)?;
        let value = keys.take(main).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| format!("{main}=... is missing"))?;
        if let Some(transport) = keys.take("transport")
            && transport != "mmio"
        {
            return Err(format!("transport: '{transport}' is unknown; there is mmio"));
        }
        let (kind, known) = rest(&mut keys, value)?;
        let known: Vec<_> = known.iter().copied().chain(["transport"]).collect();
        keys.finish(&known)?;
        Ok(kind)
    };
    let kind = parse().map_err(|reason| Error::argument(&option, reason))?;
    Ok(DeviceConfig { option, name: name.into(), kind })
}

fn console(text: &str) -> Result<ConsoleConfig> {
    match text.split_once('=') {
        None if text == "stdio" => Ok(ConsoleConfig::Stdio),
        None if text == "off" => Ok(ConsoleConfig::Off),
        Some(("file", path)) if !path.is_empty() => Ok(ConsoleConfig::File(path.into())),
        _ => Err(Error::argument(format!("--console {text}"), "it is stdio, file=PATH or off")),
    }
}

#[cfg(test)]
mod tests;
