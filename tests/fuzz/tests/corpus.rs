// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every stored input through its target, and what dtc and iasl say to the machines among them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cvmm_firmware::{Machine, acpi_tables, device_tree};
use cvmm_fuzz::{TARGETS, acpi, described, targets};

/// Where a PC's firmware has its tables.
const TABLES: u64 = 0xe_0000;
/// Machines that are made up beside the stored ones.
const FRESH: u8 = 24;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn names(folder: &str) -> BTreeSet<String> {
    let folder = package().join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| name(entry.expect("an entry").path())).collect()
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = package().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no inputs", folder.display());
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("it can be read"))).collect()
}

/// Runs the inputs of one target; the name of the file is in the message of a failure.
fn replay(target: &str) {
    let (_, run) = TARGETS.iter().find(|(name, _)| *name == target).expect("there is such a target");
    for (path, data) in inputs(target) {
        let result = std::panic::catch_unwind(|| run(&data));
        assert!(result.is_ok(), "the message above is about {}", path.display());
    }
}

macro_rules! targets {
    ($($target:ident),* $(,)?) => {
        $(#[test] fn $target() { replay(stringify!($target)); })*

        /// A target that is not run here or has no program for libFuzzer would go unnoticed.
        #[test]
        fn each_target_is_everywhere() {
            let here: BTreeSet<_> = [$(stringify!($target).to_owned()),*].into();
            let listed = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(here, listed);
            assert_eq!(here, names("fuzz_targets"));
            assert_eq!(here, names("corpus"));
        }
    };
}

targets!(chain, blk, net, mmio, pci, pci_config, loader, options, machine);

/// The stored machines that can be, and some more that are always the same.
fn machines() -> Vec<Machine> {
    let stored = inputs("machine").into_iter().map(|(_, data)| data);
    let fresh = (0..FRESH).map(|seed| vec![seed, 1, 2, 3]);
    let machine = |data: Vec<u8>| targets::machine::machine(&data);
    let possible = |(possible, machine)| if possible { Some(machine) } else { None };
    stored.chain(fresh).filter_map(machine).filter_map(possible).collect()
}

/// ACPICA's disassembler reads each DSDT, and what it reads is what the machine has.
#[test]
fn iasl_reads_what_the_machine_has() {
    for machine in machines() {
        let tables = acpi_tables(&machine, TABLES).expect("ACPI tables");
        let tables: Vec<_> = tables.iter().map(|table| (table.address, table.bytes.as_slice())).collect();
        let (model, only) = acpi::read(&tables, TABLES);
        assert_eq!(model, described::model(&machine), "ACPI (left), the description (right)");
        assert_eq!(only, described::acpi_only(&machine), "ACPI (left), the description (right)");
    }
}

/// The device tree compiler reads each tree. (Its warnings are the matter of firmware/tests/device_tree.)
#[test]
fn dtc_reads_each_tree() {
    for machine in machines() {
        let blob = device_tree(&machine).expect("a device tree");
        let dtc = Command::new("dtc")
            .args(["-q", "-I", "dtb", "-O", "dts", "-o", "/dev/null", "-"])
            .stdin(Stdio::piped())
            .spawn();
        let mut dtc = dtc.unwrap_or_else(|error| panic!("dtc (package device-tree-compiler): {error}"));
        dtc.stdin.take().expect("a pipe").write_all(&blob).expect("dtc reads its input");
        assert!(dtc.wait().expect("dtc ends").success(), "dtc does not read the tree of {machine:#?}");
    }
}
