// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab fuzz`: libFuzzer on the targets in tests/fuzz.
//!
//! The programs are built by the stable compiler: its pass `sancov-module` counts what is executed, and libFuzzer comes
//! as source with the crate libfuzzer-sys. (Address sanitizing would need a nightly compiler, and there is next to no
//! unsafe code to find something in.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{packages, workspace};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What `cargo fuzz` passes, without a sanitizer.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                         -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Seconds after which one input is a failure: work is bounded.
const TIMEOUT: u32 = 20;
/// Longest input, in bytes.
const MAX_LEN: u32 = 3000;

/// How a search ended.
#[derive(Debug)]
pub struct Search {
    /// Name of the target.
    pub target: String,
    /// Inputs that were executed.
    pub executions: u64,
    /// How long it took.
    pub time: Duration,
    /// What to do about what was found.
    pub found: Option<String>,
}

/// Names of all targets.
pub fn targets() -> Result<Vec<String>> {
    let folder = package().join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds the programs, and returns their folder.
pub fn build() -> Result<PathBuf> {
    packages::require(&[packages::CXX])?;
    let target_dir = workspace::fuzz_target_dir();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace::root())
        .args(["build", "--quiet", "--package", "cvmm-fuzz", "--features", "libfuzzer", "--bins"])
        .args(["--profile", "fuzz", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", RUSTFLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the fuzz targets do not build (see cargo's messages above)");
    Ok(target_dir.join(TARGET).join("fuzz"))
}

/// Searches for so many seconds, beginning with the stored inputs; libFuzzer's random numbers follow from `seed`, if it is not 0. What is new is kept in .lab, for the next search.
pub fn search(programs: &Path, target: &str, seconds: u32, seed: u32) -> Result<Search> {
    let folder = workspace::lab_dir().join("fuzz").join(target);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let started = Instant::now();
    let output = command(programs, target)
        .args([format!("-max_total_time={seconds}"), "-print_final_stats=1".into(), format!("-seed={seed}")])
        .arg(format!("-artifact_prefix={}/../{target}-", folder.display()))
        .args([folder, package().join("corpus").join(target)])
        .output()
        .with_context(|| format!("cannot run the fuzz target {target}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let executions = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executions = executions.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    let found = (!output.status.success()).then(|| {
        let input = said.lines().find_map(|line| line.strip_prefix("Base64: ")).unwrap_or("-");
        format!("{said}\nfuzz target {target} failed; again:\n  cargo lab fuzz {target} --input {input}")
    });
    Ok(Search { target: target.to_owned(), executions, time: started.elapsed(), found })
}

/// `cargo lab fuzz`: searches in one target or all, so many seconds each; returns the exit code.
pub fn fuzz(target: Option<&str>, seconds: u32) -> Result<i32> {
    let programs = build()?;
    let mut searches = Vec::new();
    for name in chosen(target)? {
        eprintln!("lab: fuzzing {name} ...");
        searches.push(search(&programs, &name, seconds, 0)?);
    }
    println!("{}", table(&searches));
    let mut failures = searches.iter().filter_map(|search| search.found.as_ref()).peekable();
    let code = i32::from(failures.peek().is_some());
    failures.for_each(|failure| eprintln!("{failure}"));
    Ok(code)
}

/// Runs one input, as a failure prints it; returns the exit code.
pub fn reproduce(target: Option<&str>, input: &str) -> Result<i32> {
    let Some(target) = target else { bail!("--input needs the name of a target") };
    let [target] = &chosen(Some(target))?[..] else { bail!("one target") };
    let bytes = data_encoding::BASE64.decode(input.as_bytes()).context("--input is base64")?;
    let mut file = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut file, &bytes)?;
    let status =
        command(&build()?, target).arg(file.path()).status().context("cannot run the fuzz target")?;
    Ok(i32::from(!status.success()))
}

/// The figures, a line for each target.
pub fn table(searches: &[Search]) -> String {
    let mut lines = vec![format!("{:12} {:>12} {:>9}  found", "target", "executions", "a second")];
    for Search { target, executions, time, found } in searches {
        let rate = u128::from(*executions) * 1000 / time.as_millis().max(1);
        let found = if found.is_some() { "a failure" } else { "nothing" };
        lines.push(format!("{target:12} {executions:>12} {rate:>9}  {found}"));
    }
    lines.join("\n")
}

fn command(programs: &Path, target: &str) -> Command {
    let mut command = Command::new(programs.join(target));
    command.args([format!("-timeout={TIMEOUT}"), format!("-max_len={MAX_LEN}")]);
    let dictionary = package().join("dictionaries").join(target);
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.stdin(Stdio::null());
    command
}

fn chosen(target: Option<&str>) -> Result<Vec<String>> {
    let all = targets()?;
    match target {
        None => Ok(all),
        Some(target) if all.iter().any(|name| name == target) => Ok(vec![target.to_owned()]),
        Some(target) => bail!("there is no fuzz target {target}; there are {}", all.join(", ")),
    }
}

fn package() -> PathBuf {
    workspace::root().join("tests/fuzz")
}
