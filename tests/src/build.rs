// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The programs that run on a KVM host or in a guest: one file each, nothing else needed beside it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use cvmm_hostile::build as bare_metal;

use crate::workspace;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The static programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The VMM.
    pub cvmm: PathBuf,
    /// The lab's agent on an emulated KVM host, and its /init.
    pub host_agent: PathBuf,
    /// The guests' /init.
    pub guest_init: PathBuf,
}

/// Builds the programs, or finds them up to date.
pub fn static_programs() -> Result<Programs> {
    let target_dir = workspace::static_target_dir();
    let release = target_dir.join(TARGET).join("release");
    let programs = Programs {
        cvmm: release.join("cvmm"),
        host_agent: release.join("host-agent"),
        guest_init: release.join("guest-init"),
    };
    let time = if programs.cvmm.exists() { "" } else { " (the first time takes some minutes)" };
    eprintln!("lab: building the static programs{time}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace::root())
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .args(["--package", "cvmm", "--package", "cvmm-tests"])
        .args(["--bin", "cvmm", "--bin", "host-agent", "--bin", "guest-init"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // They are carried into every guest and host: debug information would be most of it.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the static programs do not build (see cargo's messages above)");
    }
    Ok(programs)
}

/// Builds the bare-metal guest, or finds it up to date.
pub fn bare_metal_guest() -> Result<PathBuf> {
    let target_dir = workspace::bare_metal_target_dir();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace::root())
        .args(bare_metal::ARGUMENTS)
        .arg("--target-dir")
        .arg(&target_dir)
        .envs(bare_metal::ENVIRONMENT)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the bare-metal guest does not build (see cargo's messages above)");
    }
    Ok(target_dir.join(bare_metal::TARGET).join(bare_metal::PROGRAM))
}
