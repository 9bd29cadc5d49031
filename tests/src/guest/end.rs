// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ends a guest can come to: `cvmm.end=poweroff|reset|panic|hang|idle|write`.

use std::convert::Infallible;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::reboot::{RebootMode, reboot};

use super::blk;
use super::options::Options;
use super::report::say;

/// Ends the machine. Comes back only with an error.
pub(super) fn end(options: &Options) -> Result<Infallible> {
    nix::unistd::sync();
    match options.get("end") {
        None | Some("poweroff") => Ok(reboot(RebootMode::RB_POWER_OFF).context("power off")?),
        Some("reset") => Ok(reboot(RebootMode::RB_AUTOBOOT).context("reset")?),
        Some("panic") => {
            fs::write("/proc/sysrq-trigger", "c").context("/proc/sysrq-trigger")?;
            bail!("the kernel did not crash");
        }
        Some("hang") => {
            say("guest-init: hanging");
            loop {
                std::hint::spin_loop();
            }
        }
        Some("idle") => {
            say("guest-init: idle");
            loop {
                thread::sleep(Duration::from_secs(3600));
            }
        }
        Some("write") => blk::write_for_ever(options),
        Some(other) => bail!("no such end: cvmm.end={other}"),
    }
}

/// The end when nothing else is possible.
pub(super) fn power_off() -> ! {
    nix::unistd::sync();
    // The kernel stops this CPU or refuses; in either case there is nothing left to do but wait.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
