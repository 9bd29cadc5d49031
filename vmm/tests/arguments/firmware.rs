// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The form in which the guest is told of its machine, and copies of it.

use std::fs;
use std::path::Path;

use crate::bench::Bench;

#[test]
fn forms() {
    let bench = Bench::new();
    for value in ["", "ACPI", "uefi", "dt,acpi"] {
        let option = format!("--firmware={value}");
        bench.refuse(&[&option], &format!("--firmware {value}"), "it must be dt or acpi");
    }
    // What is about the form that the guest does not get.
    let (file, folder) = (bench.path("new"), bench.path("folder"));
    for option in ["--dtb", "--dump-dtb"] {
        let options = ["--firmware", "acpi", option, &file];
        bench.refuse(&options, &format!("{option} {file}"), "the guest gets no device tree");
    }
    for options in [vec!["--dump-acpi", &folder], vec!["--dump-acpi", &folder, "--firmware", "dt"]] {
        bench.refuse(&options, &format!("--dump-acpi {folder}"), "the guest gets no ACPI tables");
    }
    bench.refuse(&["--dsdt", &file], &format!("--dsdt {file}"), "the guest gets no ACPI tables");
}

/// What is read in the place of our own.
#[test]
fn a_dsdt_is_one() {
    let bench = Bench::new();
    let table = |name: &str, bytes: &[u8]| {
        let path = bench.path(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let no_table = "it is not a DSDT (dsdt.aml), or it is truncated";
    for (path, reason) in [
        (bench.path("none"), "No such file"),
        (table("empty", b""), no_table),
        (table("other", b"SSDT\x08\0\0\0"), no_table),
        (table("short", b"DSDT\x09\0\0\0"), no_table),
        (table("long", b"DSDT\x08\0\0\0\0"), no_table),
        (table("sum", b"DSDT\x08\0\0\0"), "its bytes add up to 0x37 modulo 256, instead of 0"),
        (table("large", &[0; 100_000]), "it is longer than 96 KiB"),
    ] {
        bench.refuse(&["--firmware", "acpi", "--dsdt", &path], &format!("--dsdt {path}"), reason);
    }
}

/// Other people's files are no tables of ours to overwrite, and tables of another machine would mislead.
#[test]
fn folders_for_tables() {
    let bench = Bench::new();
    let folder = |name: &str, files: &[(&str, &[u8])]| {
        let path = bench.path(name);
        fs::create_dir(&path).unwrap();
        for (name, content) in files {
            fs::write(Path::new(&path).join(name), content).unwrap();
        }
        path
    };
    let file = bench.file("file", 1);
    for (path, reason) in [
        (file.clone(), "the folder can't be made: File exists"),
        (format!("{file}/folder"), "the folder can't be made: Not a directory"),
        (
            folder("other", &[("dsdt.aml", b"something else")]),
            "the folder has dsdt.aml, which is not the DSDT table",
        ),
        (folder("empty", &[("xsdt.aml", b"")]), "the folder has xsdt.aml, which is not the XSDT table"),
        (
            folder("left", &[("ssdt.aml", b"SSDT")]),
            "the folder has ssdt.aml, which is not a table of this machine",
        ),
    ] {
        let options = ["--firmware", "acpi", "--dump-acpi", &path];
        bench.refuse(&options, &format!("--dump-acpi {path}"), reason);
    }
    // A folder in place of the file, which bench does not look into.
    let path = folder("folders", &[]);
    fs::create_dir(format!("{path}/facp.aml")).unwrap();
    let options = ["--firmware", "acpi", "--dump-acpi", &path];
    bench.refuse(
        &options,
        &format!("--dump-acpi {path}"),
        "the folder has facp.aml, which is not the FACP table",
    );
}
