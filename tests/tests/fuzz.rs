// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A minute of fresh search in all fuzz targets. (Their stored inputs are run by tests/fuzz/tests.)

use std::io::{Write, stderr};
use std::process::Command;

use cvmm_tests::{fuzz, workspace};

/// For each target: nine make a minute.
const SECONDS: u32 = 7;

/// Of the commit: it is searched in the same way each time, and the next one elsewhere. 1 where there is no repository.
fn seed() -> u32 {
    let command = Command::new("git").current_dir(workspace::root()).args(["rev-parse", "HEAD"]).output();
    let commit =
        command.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    commit.get(..7).and_then(|start| u32::from_str_radix(start, 16).ok()).unwrap_or(1)
}

/// What is found is printed with the command that runs it again.
#[test]
fn a_fresh_search_finds_nothing() {
    let programs = fuzz::build().expect("the fuzz targets build");
    let targets = fuzz::targets().expect("there are targets");
    let seed = seed();
    let search = |target: &String| fuzz::search(&programs, target, SECONDS, seed).expect("it runs");
    let searches: Vec<_> = targets.iter().map(search).collect();
    // Figures are worth seeing without a failure, too.
    let _ = writeln!(stderr(), "seed {seed}\n{}", fuzz::table(&searches));
    let found: Vec<_> = searches.iter().filter_map(|search| search.found.as_deref()).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    for search in &searches {
        assert!(search.executions > 0, "{} executed nothing", search.target);
    }
}
