// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtio devices: `--blk`, `--net`, `--rng`.

use std::ffi::OsStr;
use std::path::PathBuf;

use cvmm_arch::native::layout;

use super::keys::Keys;
use super::{Mac, PoolConfig, pool};
use crate::cli::MachineArgs;
use crate::{Error, Result};

/// Longest `serial=`, in bytes: what fits the device ID string (virtio 1.3, 5.2.6).
const MAX_SERIAL: usize = cvmm_devices::blk::ID_LEN;

/// Most request queues of a disk, and pairs of queues of a network device.
pub const MAX_QUEUES: u16 = 8;

/// A virtio device.
#[derive(Debug)]
pub struct DeviceConfig {
    /// The option as it was given, for messages.
    pub option: String,
    /// Its name in the report: `blk0`.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Where its registers are.
    pub transport: TransportKind,
    /// Index of its pool among those of the machine.
    pub pool: usize,
    /// The user bound it to that pool; otherwise it is the default one.
    pub pool_is_named: bool,
}

/// How the driver reaches a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// virtio-mmio.
    Mmio,
    /// virtio-pci.
    Pci,
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
        /// Its bytes are the disk's, even if they look like a container format.
        raw: bool,
        /// The host's page cache is not used.
        direct: bool,
        /// Its ID string.
        serial: String,
        /// Number of request queues.
        queues: u16,
    },
    /// A network device.
    Net {
        /// Name of a tap.
        tap: String,
        /// The guest's address.
        mac: Mac,
        /// Number of pairs of queues.
        queues: u16,
    },
    /// An entropy device.
    Rng,
}

const BLK_KEYS: &[&str] = &["path", "ro", "format", "direct", "serial", "queues", "transport", "pool"];
const NET_KEYS: &[&str] = &["tap", "mac", "queues", "transport", "pool"];

type Parsed<T> = std::result::Result<T, String>;

/// The devices, in the order of their kinds: disks, network, entropy.
pub(super) fn parse(args: &MachineArgs, pools: &[PoolConfig]) -> Result<Vec<DeviceConfig>> {
    let mut devices = Vec::new();
    for (index, text) in args.blk.iter().enumerate() {
        devices.push(device("blk", index, text, pools, |name, keys| {
            let path = keys.take_path("path").filter(|path| !path.is_empty());
            let kind = DeviceKind::Blk {
                path: path.ok_or_else(|| missing("blk", "path", keys, BLK_KEYS))?.into(),
                read_only: keys.take_flag("ro")?,
                raw: raw(keys)?,
                direct: keys.take_flag("direct")?,
                serial: serial(keys)?.unwrap_or_else(|| name.into()),
                queues: queues(keys)?,
            };
            Ok((kind, BLK_KEYS))
        })?);
    }
    for (index, text) in args.net.iter().enumerate() {
        devices.push(device("net", index, text, pools, |_, keys| {
            let tap = keys.take("tap").filter(|tap| !tap.is_empty());
            let tap = tap.ok_or_else(|| missing("net", "tap", keys, NET_KEYS))?;
            let mac = keys.take("mac").map_or_else(|| Ok(Mac::of_tap(&tap)), |mac| mac.parse())?;
            let kind = DeviceKind::Net { tap, mac, queues: queues(keys)? };
            Ok((kind, NET_KEYS))
        })?);
    }
    for (index, text) in args.rng.iter().enumerate() {
        devices
            .push(device("rng", index, text, pools, |_, _| Ok((DeviceKind::Rng, &["transport", "pool"])))?);
    }
    for (transport, name, most) in [
        (TransportKind::Mmio, "mmio", layout::MAX_VIRTIO_MMIO),
        (TransportKind::Pci, "pci", layout::MAX_VIRTIO_PCI),
    ] {
        let mut there = devices.iter().filter(|device| device.transport == transport);
        if let Some(device) = there.nth(most) {
            let reason = format!("a machine has room for {most} devices on {name}; this is one too many");
            return Err(Error::argument(&device.option, reason));
        }
    }
    Ok(devices)
}

/// One device of the sort that `--sort` makes. `rest` takes all keys but transport and pool, and names those there are.
fn device(
    sort: &str,
    index: usize,
    text: impl AsRef<OsStr>,
    pools: &[PoolConfig],
    rest: impl FnOnce(&str, &mut Keys) -> Parsed<(DeviceKind, &'static [&'static str])>,
) -> Result<DeviceConfig> {
    let name = format!("{sort}{index}");
    let text = text.as_ref();
    let option = format!("--{sort} {}", text.display()).trim_end().to_owned();
    let parse = || -> Parsed<_> {
        let mut keys = if text.is_empty() && sort == "rng" { Keys::none() } else { Keys::parse(text, None)? };
        let (kind, known) = rest(&name, &mut keys)?;
        let transport = transport(&mut keys)?;
        let named = keys.take("pool");
        keys.finish(known)?;
        let pool = pool::find(pools, named.as_deref())?;
        Ok((kind, transport, pool, named.is_some()))
    };
    match parse() {
        Ok((kind, transport, pool, pool_is_named)) => {
            Ok(DeviceConfig { option, name, kind, transport, pool, pool_is_named })
        }
        Err(reason) => Err(Error::argument(option, reason)),
    }
}

/// That `--sort` needs `key`. A word that is no key is likely its value.
fn missing(sort: &str, key: &str, keys: &Keys, known: &[&str]) -> String {
    let write = keys.stray(known).map(|word| format!("; write --{sort} {key}={word}"));
    format!("{key}=... is missing{}", write.unwrap_or_default())
}

fn raw(keys: &mut Keys) -> Parsed<bool> {
    match keys.take("format").as_deref() {
        None => Ok(false),
        Some("raw") => Ok(true),
        Some(other) => Err(format!(
            "format: '{other}' is not supported; images are raw: convert with qemu-img convert -O raw OLD NEW"
        )),
    }
}

fn serial(keys: &mut Keys) -> Parsed<Option<String>> {
    match keys.take("serial") {
        Some(text) if text.len() > MAX_SERIAL || !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
            Err(format!("serial: it must have at most {MAX_SERIAL} characters, all of printable ASCII"))
        }
        serial => Ok(serial),
    }
}

fn queues(keys: &mut Keys) -> Parsed<u16> {
    let Some(text) = keys.take("queues") else { return Ok(1) };
    let plain = text.bytes().all(|c| c.is_ascii_digit());
    let number = text.parse().ok().filter(|number| plain && (1..=MAX_QUEUES).contains(number));
    number.ok_or_else(|| format!("queues: '{text}' is not a number from 1 to {MAX_QUEUES}"))
}

fn transport(keys: &mut Keys) -> Parsed<TransportKind> {
    match keys.take("transport").as_deref() {
        None | Some("mmio") => Ok(TransportKind::Mmio),
        Some("pci") => Ok(TransportKind::Pci),
        Some(other) => Err(format!("transport: '{other}' is unknown; use mmio or pci")),
    }
}
