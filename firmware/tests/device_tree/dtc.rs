// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device tree compiler, with its own reader and its own checks, takes every tree without a warning.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use cvmm_firmware::device_tree;

use crate::common::usual::{Bus, grid, machine};

#[test]
fn dtc_has_nothing_to_say() {
    for machine in &grid() {
        let blob = device_tree(machine).expect("every machine can be described");
        assert_eq!(warnings(&blob), "", "for {machine:#?}");
    }
}

/// Were dtc's checks off, the test above could not fail.
#[test]
fn dtc_speaks_up_when_a_unit_address_is_missing() {
    let mut blob = device_tree(&machine(1, Bus::Pci, 1, false, 1)).expect("every machine can be described");
    let name = b"memory@0\0";
    let at = blob.windows(name.len()).position(|bytes| bytes == name).expect("memory begins at 0");
    blob[at..at + name.len()].copy_from_slice(b"memory_0\0");
    let warnings = warnings(&blob);
    assert!(warnings.contains("memory_0"), "{warnings:?}");
}

/// What dtc says about a blob while it decompiles it.
fn warnings(blob: &[u8]) -> String {
    let spawned = Command::new("dtc")
        .args(["-I", "dtb", "-O", "dts", "-o", "/dev/null", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut dtc = spawned.unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("there is no dtc: install the package device-tree-compiler"),
        _ => panic!("dtc could not be started: {error}"),
    });
    dtc.stdin.take().expect("stdin is a pipe").write_all(blob).expect("dtc reads its input");
    let output = dtc.wait_with_output().expect("dtc ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "dtc refused the blob: {said}");
    // dtc 1.6 wants #address-cells in every interrupt controller; the closed schemas of these two forbid it. dtc 1.7
    // asks for it only where an interrupt-map leads, and takes 0 for it, as Linux does.
    let forbidden = [
        "Missing #address-cells in interrupt provider",
        "Missing property '#address-cells' in node /interrupt-controller@",
    ];
    said.lines().filter(|line| !forbidden.iter().any(|forbidden| line.contains(forbidden))).collect()
}
