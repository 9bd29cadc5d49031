// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab pages`: cvmm's man pages and shell completions.
//!
//! Another program makes them (vmm/pages), so that the lab is built without cvmm.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::workspace;

/// Writes the pages to `folder`; returns the exit code.
pub fn write(folder: &Path) -> Result<i32> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "cvmm-pages", "--manifest-path"])
        .arg(workspace::root().join("Cargo.toml"))
        .arg("--")
        .arg(std::path::absolute(folder).context("the folder has no name")?)
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    Ok(status.code().unwrap_or(1))
}
