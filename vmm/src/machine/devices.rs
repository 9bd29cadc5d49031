// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opens what devices need on the host, before anything else happens: a wrong option is told first.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use cvmm_devices::blk::Blk;
use cvmm_devices::net::Net;
use cvmm_devices::rng::Rng;
use cvmm_devices::virtio::DeviceType;

use crate::config::{DeviceConfig, DeviceKind};
use crate::host::disk::{FileDisk, Image};
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

/// The kernel would say that a tap is busy, and not with what.
fn refuse_shared_taps(devices: &[DeviceConfig]) -> Result<()> {
    let mut seen: Vec<(&DeviceConfig, &str)> = Vec::new();
    for device in devices {
        let DeviceKind::Net { tap, .. } = &device.kind else { continue };
        if let Some((other, _)) = seen.iter().find(|(_, other)| other == tap) {
            let reason =
                format!("{} names the same tap; each network device needs a tap of its own", other.option);
            return Err(Error::argument(&device.option, reason));
        }
        seen.push((device, tap));
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

/// Opens the host's side of `config` for a device in a pool of `pool_size` bytes.
pub fn open(config: &DeviceConfig, pool_size: u64) -> Result<Opened> {
    let wrong = |reason: String| Error::argument(&config.option, reason);
    match &config.kind {
        DeviceKind::Blk { path, read_only, raw, serial, queues } => {
            let disk = FileDisk::open(path, *read_only, *raw).map_err(wrong)?;
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
