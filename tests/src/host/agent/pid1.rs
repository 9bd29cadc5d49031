// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What /init of an emulated KVM host does before it serves the lab, and at the end.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use super::tap;
use crate::modules;

/// The virtio-serial port to the lab, the first one after the console's.
const PORT: &str = "/dev/vport0p1";

/// Sets the host up and opens the channel to the lab.
pub fn be_init() -> Result<File> {
    // The tmpfs has no size limit of its own: guests' disks are sparse, and the memory is the host's whole purpose.
    for (kind, target, options) in [
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        // KVM's counters, for the benchmark.
        ("debugfs", "/sys/kernel/debug", ""),
        ("devtmpfs", "/dev", ""),
        ("devpts", "/dev/pts", ""),
        ("tmpfs", "/tmp", "size=0"),
        ("tmpfs", "/lab", "size=0"),
    ] {
        std::fs::create_dir_all(target)?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("cannot mount {target}"))?;
    }
    // A guest may have more memory than this host, as long as it does not touch it all.
    std::fs::write("/proc/sys/vm/overcommit_memory", "1").context("cannot set overcommit_memory")?;
    // Every page that a guest touches first is a fault in two hypervisors: large ones save most of a guest's boot.
    let huge = "/sys/kernel/mm/transparent_hugepage";
    for (file, value) in [("enabled", "always"), ("shmem_enabled", "advise")] {
        std::fs::write(format!("{huge}/{file}"), value).with_context(|| format!("cannot set {file}"))?;
    }
    modules::load()?;
    tap::bring_up_loopback()?;
    open_port()
}

/// Ends the emulated host.
pub fn power_off() -> ! {
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(error) => panic!("cannot power off: {error}"),
    }
}

/// Opens the port. Its driver works in the background: the node appears late, and is of use a moment later still (ENXIO).
fn open_port() -> Result<File> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let error = match OpenOptions::new().read(true).write(true).open(PORT) {
            Ok(port) => return Ok(port),
            Err(error) => error,
        };
        let early = error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENXIO);
        if !early || Instant::now() > deadline {
            return Err(error).with_context(|| format!("cannot open {PORT}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
