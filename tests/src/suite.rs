// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab test`: every test of the project.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
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
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace::root()).args(["test", "--quiet", "--workspace", "--no-fail-fast", "--"]);
    command.env(host::KIND_VARIABLE, kind.word()).stdin(Stdio::null());
    let mut not_tested = 0;
    let status = match filter {
        None => stage("tests", || watched(command, &mut not_tested, |_| {}))?,
        Some(filter) => {
            let (status, run) = stage("tests", || some(command, filter, &mut not_tested))?;
            if run == 0 && status.success() {
                eprintln!(
                    "lab: there is no test whose name contains '{filter}' (rows of tables are no tests)"
                );
                return Ok(2);
            }
            status
        }
    };
    let result = if status.success() { "all tests passed" } else { "there were failures" };
    let missing = match not_tested {
        0 => String::new(),
        n => format!(", but what {n} of them are for was NOT TESTED here (see above)"),
    };
    eprintln!("lab: {result}{missing}; {} in all", seconds(started.elapsed()));
    Ok(status.code().unwrap_or(1))
}

/// Runs the tests with this in their names. Also how many they were.
fn some(mut command: Command, filter: &str, not_tested: &mut u64) -> Result<(ExitStatus, u64)> {
    command.arg(filter);
    let mut run = 0;
    let status = watched(command, not_tested, |line| run += tests_in(line).unwrap_or(0))?;
    Ok((status, run))
}

/// Runs `command`, whose lines on standard output are shown to `see`, and are printed but for those of what did nothing if
/// there is a filter. Counts the lines on standard error that say what was not tested.
fn watched(mut command: Command, not_tested: &mut u64, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
    let is_all = command.get_args().last().is_some_and(|last| last == "--");
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run cargo")?;
    let (output, errors) = child.stdout.take().zip(child.stderr.take()).context("cargo has no output")?;
    let count = thread::spawn(move || {
        let lines = BufReader::new(errors).lines().map_while(Result::ok);
        lines.inspect(|line| eprintln!("{line}")).filter(|line| is_not_tested(line)).count() as u64
    });
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        see(&line);
        if is_all || !is_idle(&line) {
            println!("{line}");
        }
    }
    *not_tested += count.join().unwrap_or(0);
    Ok(child.wait()?)
}

/// Tests say this of what the machine does not let them do.
fn is_not_tested(line: &str) -> bool {
    line.contains("NOT TESTED: ")
}

/// `running N tests`.
fn tests_in(line: &str) -> Option<u64> {
    line.strip_prefix("running ")?.split_once(" test")?.0.parse().ok()
}

/// What a binary prints that has no such test.
fn is_idle(line: &str) -> bool {
    line.is_empty() || tests_in(line) == Some(0) || line.contains(" 0 passed; 0 failed;")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_tested_is_counted() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo NOT TESTED: a >&2; echo running 2 tests; echo .NOT TESTED: b >&2; echo fine >&2",
        ]);
        let (mut not_tested, mut run) = (0, 0);
        let status = watched(command, &mut not_tested, |line| run += tests_in(line).unwrap_or(0)).unwrap();
        assert!(status.success());
        assert_eq!((not_tested, run), (2, 2));
    }

    #[test]
    fn tests_are_counted_and_the_lines_of_none_left_out() {
        let lines = [
            "",
            "running 0 tests",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 3 filtered out",
            "running 1 test",
            ".",
        ];
        assert_eq!(lines.map(is_idle), [true, true, true, false, false]);
        assert_eq!(lines.map(tests_in), [None, Some(0), None, Some(1), None]);
        assert_eq!(tests_in("running 52 tests"), Some(52));
    }
}
