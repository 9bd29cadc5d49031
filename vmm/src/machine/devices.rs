// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opens what devices need on the host, before anything else happens: a wrong option is told first.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cvmm_devices::blk::Blk;
use cvmm_devices::net::Net;
use cvmm_devices::rng::Rng;
use cvmm_devices::virtio::DeviceType;

use crate::config::{DeviceConfig, DeviceKind, MachineConfig};
use crate::host::disk::{FileDisk, Image, LOCK_PATIENCE};
use crate::host::tap::HostTap;
use crate::{Error, Result};

/// A device type with its file on the host.
#[derive(Debug)]
pub struct Opened {
    /// Ready to run.
    pub device: Box<dyn DeviceType>,
    /// A disk to flush when the guest has ended.
    pub disk: Option<Arc<Image>>,
    /// It has a tap that is down.
    pub is_down: bool,
}

/// Makes sure that no two devices share what is for one.
///
/// # Errors
/// Names both options.
pub fn refuse_shared(devices: &[DeviceConfig]) -> Result<()> {
    refuse_shared_disks(devices)?;
    refuse_shared_taps(devices)
}

/// Makes sure that no two disks are one, unless both are only read. Their locks would say so, too, but not which option it is
/// that has the other one; and two names of a block device have two locks.
fn refuse_shared_disks(devices: &[DeviceConfig]) -> Result<()> {
    let mut seen: Vec<(&DeviceConfig, _, bool)> = Vec::new();
    for device in devices {
        let DeviceKind::Blk { path, read_only, .. } = &device.kind else { continue };
        // What is not there is told when it is opened.
        let Some(identity) = identity(path) else { continue };
        let other = seen.iter().find(|(_, other, reads)| *other == identity && !(*reads && *read_only));
        if let Some((other, ..)) = other {
            let reason =
                format!("{} names the same disk, and they can share it only if both have ,ro", other.option);
            return Err(Error::argument(&device.option, reason));
        }
        seen.push((device, identity, *read_only));
    }
    Ok(())
}

/// The kernel would say that a tap is busy, and not with what. A tap may have several names.
fn refuse_shared_taps(devices: &[DeviceConfig]) -> Result<()> {
    let mut seen: Vec<(&DeviceConfig, &str, Option<u32>)> = Vec::new();
    for device in devices {
        let DeviceKind::Net { tap, .. } = &device.kind else { continue };
        let index = HostTap::index(tap);
        let is_same = |name, of_other| name == tap || index.is_some() && of_other == index;
        if let Some((other, ..)) = seen.iter().find(|(_, name, index)| is_same(*name, *index)) {
            let reason =
                format!("{} names the same tap; each network device needs a tap of its own", other.option);
            return Err(Error::argument(&device.option, reason));
        }
        seen.push((device, tap, index));
    }
    Ok(())
}

/// What makes a disk the same one: a file's place, or a block device's number.
fn identity(path: &Path) -> Option<(bool, u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some(match metadata.file_type().is_block_device() {
        true => (true, metadata.rdev(), 0),
        false => (false, metadata.dev(), metadata.ino()),
    })
}

/// Opens the host's side of all devices. Locks of disks that somebody else holds are waited for together, not one after the
/// other.
///
/// # Errors
/// The first device that can't be opened.
pub fn open(config: &MachineConfig) -> Result<Vec<Opened>> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    let open = |device: &DeviceConfig| open_device(device, config.pools[device.pool].size, deadline);
    config.devices.iter().map(open).collect()
}

/// Opens the host's side of `config` for a device in a pool of `pool_size` bytes.
fn open_device(config: &DeviceConfig, pool_size: u64, deadline: Instant) -> Result<Opened> {
    let wrong = |reason: String| Error::argument(&config.option, reason);
    match &config.kind {
        DeviceKind::Blk { path, read_only, raw, direct, serial, queues } => {
            let disk = FileDisk::open(path, *read_only, *raw, deadline);
            let disk =
                disk.and_then(|disk| if *direct { disk.into_direct() } else { Ok(disk) }).map_err(wrong)?;
            let image = Arc::clone(disk.image());
            let device = Box::new(Blk::new(Arc::new(disk), serial, pool_size, *queues));
            Ok(Opened { device, disk: (!read_only).then_some(image), is_down: false })
        }
        DeviceKind::Net { tap, mac, queues } => {
            let opened = HostTap::open(tap, *queues).map_err(wrong)?;
            let taps = opened.queues.into_iter().map(|tap| Box::new(tap) as _).collect();
            let device = Box::new(Net::new(taps, mac.0, opened.mtu));
            Ok(Opened { device, disk: None, is_down: !opened.up })
        }
        DeviceKind::Rng => {
            let source = File::open("/dev/urandom")
                .map_err(|error| Error::Host(format!("/dev/urandom can't be opened: {error}")))?;
            Ok(Opened { device: Box::new(Rng::new(Box::new(source))), disk: None, is_down: false })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    /// Each may be held for almost as long as one is waited for. A signal waits for all of them.
    #[test]
    fn many_locks_are_not_waited_for_longer_than_one() {
        let disks = [(); 3].map(|()| tempfile::NamedTempFile::new().unwrap());
        let mut arguments = vec!["cvmm".to_owned(), "describe".into(), "--pool=2M".into()];
        for disk in &disks {
            disk.as_file().set_len(1 << 20).unwrap();
            disk.as_file().lock().unwrap();
            arguments.push(format!("--blk=path={}", disk.path().display()));
        }
        let Command::Describe(arguments) = Cli::try_parse_from(arguments).unwrap().command else { panic!() };
        let config = MachineConfig::new(&arguments.machine).unwrap();
        let opened = std::thread::scope(|threads| {
            let opened = threads.spawn(|| open(&config));
            for disk in &disks {
                std::thread::sleep(LOCK_PATIENCE * 3 / 5);
                disk.as_file().unlock().unwrap();
            }
            opened.join().unwrap().map(drop)
        });
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("is locked by"), "{error}");
    }
}
