// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opens what devices need on the host, before anything else happens: a wrong option is told first.

use std::fs::File;
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
}

/// Opens the host's side of `config` for a device in a pool of `pool_size` bytes.
pub fn open(config: &DeviceConfig, pool_size: u64) -> Result<Opened> {
    let wrong = |reason: String| Error::argument(&config.option, reason);
    match &config.kind {
        DeviceKind::Blk { path, read_only, serial, queues } => {
            let disk = FileDisk::open(path, *read_only).map_err(wrong)?;
            let image = Arc::clone(disk.image());
            let device = Box::new(Blk::new(Box::new(disk), serial, pool_size, *queues));
            Ok(Opened { device, disk: (!read_only).then_some(image) })
        }
        DeviceKind::Net { tap, mac, queues } => {
            let taps = HostTap::open(tap, *queues).map_err(wrong)?;
            let taps = taps.into_iter().map(|tap| Box::new(tap) as _).collect();
            Ok(Opened { device: Box::new(Net::new(taps, mac.0)), disk: None })
        }
        DeviceKind::Rng => {
            let source = File::open("/dev/urandom")
                .map_err(|error| Error::Host(format!("/dev/urandom can't be opened: {error}")))?;
            Ok(Opened { device: Box::new(Rng::new(Box::new(source))), disk: None })
        }
    }
}
