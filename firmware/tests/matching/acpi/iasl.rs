// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The disassembler of ACPICA: the same code reads the table in Linux.

use std::io::ErrorKind;
use std::process::Command;

/// The ASL of a DSDT.
pub fn disassemble(table: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (aml, dsl) = (folder.path().join("dsdt.aml"), folder.path().join("dsdt.dsl"));
    std::fs::write(&aml, table).expect("a temporary file");
    let iasl = Command::new("iasl").arg("-d").arg(&aml).output();
    let iasl = iasl.unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("there is no iasl: install the package acpica-tools"),
        _ => panic!("iasl could not be started: {error}"),
    });
    let said = [iasl.stdout, iasl.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    // It does not always say so in its exit status.
    let complains = ["Error", "Warning", "Could not"].iter().any(|word| said.contains(word));
    assert!(iasl.status.success() && !complains, "iasl does not like the DSDT: {said}");
    std::fs::read_to_string(dsl).unwrap_or_else(|error| panic!("iasl wrote nothing: {error}\n{said}"))
}
