// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Readable text by the standard tools, and hosts that do not have them. These tests need both.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::{MIXED, Place, assert_error, files};

const PACKAGES: &str = "this test needs the packages device-tree-compiler and acpica-tools";

#[test]
fn the_source_of_the_device_tree_means_the_same() {
    let place = Place::new();
    let source = place.text(&format!("{MIXED} --format dts"));
    assert!(source.starts_with("/dts-v1/;") && source.contains("memory-region ="), "{source}");
    let mut dtc = Command::new("dtc")
        .args(["-q", "-I", "dts", "-O", "dts", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect(PACKAGES);
    dtc.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = dtc.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), source);
}

#[test]
fn the_source_of_each_table_is_there() {
    let place = Place::new();
    let options = format!("{MIXED} --format asl");
    let source = place.text(&options);
    place.describe(&format!("{MIXED} --format acpi --output tables"));
    let tables = files(&place.path("tables"));
    for (name, bytes) in tables {
        let heading = format!("// {} at 0x", name.trim_end_matches(".aml").to_uppercase());
        let found: Vec<_> = source.lines().filter(|line| line.starts_with(&heading)).collect();
        assert_eq!(found.len(), 1, "{heading}: {source}");
        assert!(found[0].contains(&format!(", {} bytes", bytes.len())), "{found:?}");
    }
    for part in ["DefinitionBlock (", "\"LNRO0005\"", "[Fixed ACPI Description Table (FADT)]"] {
        assert!(source.contains(part), "no {part}: {source}");
    }
    // Neither the time nor a name of a temporary file is in it.
    assert_eq!(source, place.text(&options));
    assert!(!source.contains("Disassembly of"));
}

/// Exit code 3, because not the user but the administrator can mend it.
#[test]
fn a_tool_that_is_missing_is_named() {
    let place = Place::new();
    for (format, begins, package) in [
        ("dts", "--format dts: dtc can't be run: No such file", "device-tree-compiler"),
        ("asl", "--format asl: iasl can't be run: No such file", "acpica-tools"),
    ] {
        let mut command = place.command(&format!("--pool 64M --format {format} --output file"));
        let output = place.output(command.env("PATH", place.here.path()));
        assert_error(&output, 3, begins);
        assert!(String::from_utf8_lossy(&output.stderr).contains(package), "{output:?}");
        assert!(!place.path("file").exists());
    }
}

/// No package would mend that.
#[test]
fn a_tool_that_is_there_and_can_not_be_run_is_not_missing() {
    let place = Place::new();
    for (tool, format, binary) in [("dtc", "dts", "dtb"), ("iasl", "asl", "acpi")] {
        fs::write(place.path(tool), "no program").unwrap();
        let mut command = place.command(&format!("--pool 64M --format {format}"));
        let output = place.output(command.env("PATH", place.here.path()));
        let expected = format!(
            "--format {format}: {tool} can't be run: Permission denied (os error 13); --format {binary} does not need it"
        );
        assert_error(&output, 3, &expected);
    }
}

#[test]
fn without_a_place_for_temporary_files_tmpdir_is_named() {
    let place = Place::new();
    let mut command = place.command("--pool 64M --format asl");
    let output = place.output(command.env("TMPDIR", place.path("none")));
    assert_error(&output, 3, "--format asl: iasl needs files in \"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("No such file") && said.ends_with("; set TMPDIR to another folder\n"), "{said}");
}

/// Whoever started us may ignore SIGCHLD; then the kernel tells nobody how a child has ended.
#[test]
fn a_tool_is_waited_for_where_its_end_is_ignored() {
    let place = Place::new();
    for format in ["dts", "asl"] {
        let command = place.command(&format!("--pool 64M --format {format}"));
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "trap '' CHLD; exec \"$@\"", "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        let output = place.output(&mut shell);
        assert!(output.status.success(), "{output:?}");
    }
}

/// What a tool does not take is our own mistake.
#[test]
fn a_tool_that_fails_is_told() {
    let place = Place::new();
    for (tool, format) in [("dtc", "dts"), ("iasl", "asl")] {
        let script = place.path(tool);
        fs::write(&script, "#!/bin/sh\necho what is this >&2\nexit 1\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = place.command(&format!("--pool 64M --format {format}"));
        let output = place.output(command.env("PATH", place.here.path()));
        assert_error(&output, 1, &format!("{tool} rejects cvmm's output (exit status: 1): what is this"));
    }
}
