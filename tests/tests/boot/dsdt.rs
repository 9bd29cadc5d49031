// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A DSDT that is not what cvmm would give: its own as source, with some of it changed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use cvmm_tests::host::Host;
use cvmm_tests::packages;

use crate::guest::Guest;

/// A guest that gets the DSDT of `guest`, changed by `edit`.
pub fn edited<'h>(
    host: &Host,
    guest: impl Fn(&str) -> Guest<'h>,
    edit: impl Fn(&str) -> String,
) -> Guest<'h> {
    let donor = guest("");
    let folder = donor.file("tables");
    let mut run = donor.option(format!("--dump-acpi={folder}")).start();
    // They are written before the guest starts.
    run.wait_for("Linux version");
    let dsdt = host.read(format!("{folder}/dsdt.aml")).unwrap();
    drop(run.process);
    let guest = guest("cvmm.end=poweroff");
    let path = guest.file("dsdt.aml");
    host.write(&path, &rebuilt(&dsdt, edit)).unwrap();
    guest.option(format!("--dsdt={path}"))
}

/// `source` with all of `from` replaced by `to`.
pub fn replaced(source: &str, from: &str, to: &str) -> String {
    assert!(source.contains(from), "the source has no {from}:\n{source}");
    source.replace(from, to)
}

fn rebuilt(dsdt: &[u8], edit: impl Fn(&str) -> String) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("old.aml"), dsdt).unwrap();
    iasl(folder.path(), &["-d", "old.aml"]);
    let source = fs::read_to_string(path("old.dsl")).unwrap();
    fs::write(path("new.dsl"), edit(&source)).unwrap();
    iasl(folder.path(), &["-p", "new", "new.dsl"]);
    fs::read(path("new.aml")).unwrap()
}

fn iasl(folder: &Path, arguments: &[&str]) {
    let program = packages::find(packages::IASL.program).expect("the lab has iasl");
    let output =
        Command::new(program).current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
