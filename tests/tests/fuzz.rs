// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A minute of fresh search in all fuzz targets. (Their stored inputs are run by tests/fuzz/tests.)

use std::io::{Write, stderr};

use cvmm_tests::fuzz;

/// For each target.
const SECONDS: u32 = 6;

/// So that a change is blamed for what it does, and not for luck: `cargo lab fuzz` searches elsewhere each time.
const SEED: u32 = 1;

/// What is found is printed with the command that runs it again.
#[test]
fn a_fresh_search_finds_nothing() {
    let programs = fuzz::build().expect("the fuzz targets build");
    let targets = fuzz::targets().expect("there are targets");
    let search = |target: &String| fuzz::search(&programs, target, SECONDS, SEED).expect("it runs");
    let searches: Vec<_> = targets.iter().map(search).collect();
    // Figures are worth seeing without a failure, too.
    let _ = writeln!(stderr(), "{}", fuzz::table(&searches));
    let found: Vec<_> = searches.iter().filter_map(|search| search.found.as_deref()).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    for search in &searches {
        assert!(search.executions > 0, "{} executed nothing", search.target);
    }
}
