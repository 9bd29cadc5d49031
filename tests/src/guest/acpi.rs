// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ACPI as the kernel found it: the tables, and the devices in the namespace.

use anyhow::{Result, ensure};

use super::machine::{self, names, text};
use super::options::Options;
use super::report::Report;

const TABLES: &str = "/sys/firmware/acpi/tables";
const DEVICES: &str = "/sys/bus/acpi/devices";

pub(super) fn run(_options: &Options, report: &Report) {
    report.check("acpi-tables", tables);
    report.check("acpi-devices", devices);
    report.check("acpi-no-complaints", no_complaints);
}

fn tables() -> Result<String> {
    let there = names(TABLES);
    for wanted in ["APIC", "DSDT", "FACP"] {
        ensure!(there.iter().any(|name| name == wanted), "no {wanted} among {there:?}");
    }
    let tree = text("/proc/device-tree/model");
    ensure!(tree.is_err(), "there is a device tree, too, of {tree:?}");
    let tables: Vec<_> =
        there.into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_uppercase())).collect();
    Ok(tables.join(" "))
}

/// The devices that are present, by hardware ID; the number of each is for the host to compare.
fn devices() -> Result<String> {
    let mut ids: Vec<String> =
        names(DEVICES).iter().filter_map(|name| text(format!("{DEVICES}/{name}/hid")).ok()).collect();
    ids.sort();
    ensure!(!ids.is_empty(), "the ACPI namespace is empty");
    Ok(ids.join(" "))
}

/// The interpreter has words for what it does not like.
fn no_complaints() -> Result<String> {
    let complaints: Vec<_> = machine::kernel_log()?
        .into_iter()
        .filter(|line| {
            ["ACPI Error", "ACPI BIOS Error", "ACPI Warning", "[Firmware Bug]", "ACPI Exception"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect();
    ensure!(complaints.is_empty(), "{complaints:#?}");
    Ok("the log has no complaint about the tables".to_owned())
}
