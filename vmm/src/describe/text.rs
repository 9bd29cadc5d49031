// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine as a table.

use std::fmt::Write as _;

use cvmm_firmware::Machine;

use super::map::{self, Class};
use super::table_area;
use crate::config::{FirmwareKind, MachineConfig, SpecConfig};

/// What is where, a line each.
pub(super) fn text(config: &MachineConfig, machine: &Machine) -> String {
    let mut text = String::new();
    for (name, value) in summary(config, machine) {
        let _ = writeln!(text, "{name:<15}{value}");
    }
    text.push('\n');
    let names = map::reachable(machine);
    for block in map::map(machine, table_area(config)) {
        let range = format!("{:#x}-{:#x}", block.range.base(), block.range.last());
        let pool = match block.class {
            Class::Device(pool) => {
                format!(", DMA only in {}", names.get(usize::from(pool.0)).map_or("", |name| name))
            }
            _ => String::new(),
        };
        let size = map::size(block.range.size());
        let line = format!("{range:<24}{size:>12}  {:<18} {}{pool}", block.name, block.detail);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn summary(config: &MachineConfig, machine: &Machine) -> [(&'static str, String); 5] {
    let firmware = match config.firmware {
        FirmwareKind::Dt => "device tree (--firmware dt)",
        FirmwareKind::Acpi => "ACPI tables (--firmware acpi)",
    };
    [
        ("memory", map::size(config.mem)),
        ("CPUs", machine.cpus.len().to_string()),
        ("described by", firmware.into()),
        ("specification", spec(&config.spec)),
        ("command line", machine.bootargs.clone()),
    ]
}

/// What devices say of their pools.
fn spec(spec: &SpecConfig) -> String {
    let name = spec.profile.name;
    let withheld =
        if spec.restricted.withholds_access_platform { "; ACCESS_PLATFORM is withheld" } else { "" };
    let Some(bit) = spec.restricted.feature_bit else {
        return format!("{name} (--spec {name}): no feature bit{withheld}");
    };
    let unaware = if spec.restricted.required { "refused" } else { "served" };
    let named = if spec.restricted.names_pool { "; registers name the pool" } else { "" };
    format!(
        "{name} (--spec {name}): feature bit {bit}, a driver that does not accept it is {unaware}{named}{withheld}"
    )
}
