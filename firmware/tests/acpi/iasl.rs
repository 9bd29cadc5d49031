// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ACPICA's compiler, with its own reader and its own checks, takes every table without a warning or remark.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use cvmm_firmware::{AcpiTable, Machine, acpi_tables};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use crate::common::any::any_machine;
use crate::common::usual::{Bus, machine};
use crate::guest::BASE;

/// Where the header of a table has its checksum, and who compiled it (ACPI 6.5, table 5.4).
const CHECKSUM: std::ops::Range<usize> = 9..10;
const COMPILER: std::ops::Range<usize> = 28..36;

/// The text of each table compiles to the table: nothing was lost, and nothing read differently from how it was meant.
/// No message is ignored.
#[test]
fn iasl_has_nothing_to_say() {
    for machine in &machines() {
        let written = acpi_tables(machine, BASE).expect("every machine can be described");
        // iasl does not read an RSDP.
        let tables = written.into_iter().filter(|table| table.name != "RSDP");
        let tables: Vec<_> = tables.map(|table| table.bytes).collect();
        let files = Files::new(&tables);
        files.disassemble();
        assert_eq!(files.compile(), "", "for {machine:#?}");
        for (path, table) in files.paths("aml").iter().zip(tables) {
            assert_eq!(difference(&read(path), &table), None, "{}, for {machine:#?}", path.display());
        }
    }
}

/// Were iasl's messages not seen, the test above could not fail.
#[test]
fn iasl_speaks_up() {
    let mut spoiled = dsdt(&machine(1, Bus::Mmio, 1, false, 1));
    let hid = b"LNRO0005";
    let at = spoiled.windows(hid.len()).position(|bytes| bytes == hid).expect("a virtio-mmio device");
    spoiled[at + hid.len() - 1] = b'*';
    let files = Files::new(&[spoiled]);
    files.disassemble();
    let said = files.compile();
    assert!(said.contains("LNRO000*"), "{said:?}");
}

/// A DSDT that was written by hand, for reading: ours has the same bytes.
#[test]
fn the_example_is_the_dsdt_of_its_machine() {
    let ours = dsdt(&machine(3, Bus::Both, 2, true, 3));
    let files = Files::empty(1);
    std::fs::write(&files.paths("dsl")[0], include_str!("example.asl")).expect("a file");
    assert_eq!(files.compile(), "");
    let compiled = read(&files.paths("aml")[0]);
    assert_eq!(difference(&compiled, &ours), None);
}

/// Usual machines, and random ones that are always the same.
fn machines() -> Vec<Machine> {
    let mut machines = vec![
        machine(0, Bus::Mmio, 1, false, 1),
        machine(8, Bus::Mmio, 8, true, 3),
        machine(0, Bus::Pci, 1, false, 1),
        machine(8, Bus::Pci, 2, false, 3),
        machine(8, Bus::Both, 4, true, 3),
    ];
    let mut runner = TestRunner::deterministic();
    machines.extend((0..32).map(|_| any_machine().new_tree(&mut runner).expect("a machine").current()));
    machines
}

fn dsdt(machine: &Machine) -> Vec<u8> {
    let tables = acpi_tables(machine, BASE).expect("the machine can be described");
    let is_dsdt = |table: &AcpiTable| table.name == "DSDT";
    tables.into_iter().find(is_dsdt).expect("there is a DSDT").bytes
}

/// Where two tables first differ, and what they have there; the header's word on the compiler does not count.
fn difference(a: &[u8], b: &[u8]) -> Option<(usize, Option<u8>, Option<u8>)> {
    (0..a.len().max(b.len()))
        .filter(|at| !CHECKSUM.contains(at) && !COMPILER.contains(at))
        .map(|at| (at, a.get(at).copied(), b.get(at).copied()))
        .find(|(_, a, b)| a != b)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files for iasl, in a folder of their own. One invocation takes them all; of the DSDT there can only be one, as iasl
/// keeps the names of each for the next.
struct Files {
    folder: TempDir,
    number: usize,
}

impl Files {
    fn empty(number: usize) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), number }
    }

    fn new(tables: &[Vec<u8>]) -> Self {
        let files = Self::empty(tables.len());
        for (path, table) in files.paths("dat").iter().zip(tables) {
            std::fs::write(path, table).expect("a file");
        }
        files
    }

    fn paths(&self, extension: &str) -> Vec<PathBuf> {
        (0..self.number).map(|index| self.folder.path().join(format!("{index:03}.{extension}"))).collect()
    }

    /// Makes text (`dsl`) of each table (`dat`).
    fn disassemble(&self) {
        let (said, success) = iasl(&["-d"], &self.paths("dat"));
        assert!(success, "iasl could not disassemble:\n{said}");
    }

    /// Makes a table (`aml`) of each text (`dsl`); what iasl said while it did so.
    fn compile(&self) -> String {
        // -oa: as it is written, -vi: a line for a message.
        let (said, _) = iasl(&["-oa", "-vi"], &self.paths("dsl"));
        let is_message = |line: &&str| {
            [": error ", ": warning ", ": remark "].iter().any(|kind| line.to_lowercase().contains(kind))
        };
        let messages: Vec<_> = said.lines().filter(is_message).collect();
        let summary = said.lines().any(|line| line.contains(" 0 Errors, 0 Warnings, 0 Remarks"));
        assert!(summary || !messages.is_empty(), "iasl did not say how it ended:\n{said}");
        messages.join("\n")
    }
}

/// Calls iasl: what it said, and whether it succeeded.
fn iasl(options: &[&str], files: &[PathBuf]) -> (String, bool) {
    let output = Command::new("iasl").args(options).args(files).output();
    let output = output.unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("there is no iasl: install the package acpica-tools"),
        _ => panic!("iasl could not be started: {error}"),
    });
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (said.into_owned(), output.status.success())
}
