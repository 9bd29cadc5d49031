// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab test`: every test of the project.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::host::{self, Kind};
use crate::{build, packages, workspace};

/// Runs the tests whose names contain `filter`, or all; returns the exit code.
pub fn test(chosen: Option<Kind>, filter: Option<&str>) -> Result<i32> {
    let started = Instant::now();
    let (kind, why) = host::best_kind(chosen)?;
    eprintln!("lab: {why}; guests run on {kind}");

    stage("packages and kernel", || {
        packages::require(&packages::ALL)?;
        host::prepare(kind)
    })?;
    stage("static programs", build::static_programs)?;
    let status = stage("tests", || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Command::new(cargo)
            .current_dir(workspace::root())
            .args(["test", "--quiet", "--workspace", "--no-fail-fast", "--"])
            .args(filter)
            .env(host::KIND_VARIABLE, kind.word())
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo")
    })?;
    let result = if status.success() { "all tests passed" } else { "there were failures" };
    eprintln!("lab: {result}; {} in all", seconds(started.elapsed()));
    Ok(status.code().unwrap_or(1))
}

fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("lab: {name} ...");
    let started = Instant::now();
    let result = work()?;
    eprintln!("lab: {name}: {}", seconds(started.elapsed()));
    Ok(result)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
