// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line, one argument a line: a machine that can be described, or an error that names an option.

use clap::Parser;
use cvmm::cli::{Cli, Command};
use cvmm::config::{MachineConfig, VmConfig};
use cvmm::machine::describe;
use cvmm_arch::native::layout;
use cvmm_firmware::{Machine, Transport, acpi_tables, device_tree};

/// Arguments of one run that count.
const MAX_ARGUMENTS: usize = 100;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let arguments = text.lines().take(MAX_ARGUMENTS);
    let Ok(cli) = Cli::try_parse_from(std::iter::once("cvmm").chain(arguments)) else { return };
    let machine = match cli.command {
        Command::Run(arguments) => VmConfig::new(&arguments).map(|config| config.machine),
        Command::Describe(arguments) => MachineConfig::new(&arguments.machine),
    };
    match machine.and_then(|config| describe(&config)) {
        Ok(machine) => check(&machine),
        Err(error) => {
            let said = error.to_string();
            let option = said.strip_prefix("--").unwrap_or_default();
            assert!(option.starts_with(|c: char| c.is_ascii_lowercase()), "no option is named: {said}");
            let control = text.lines().any(|argument| argument.contains(char::is_control));
            assert!(control || !said.contains(char::is_control), "not one line: {said}");
        }
    }
}

/// Whatever was asked for, the machine is one that can be.
fn check(machine: &Machine) {
    let Machine { memory, pools, virtio, .. } = machine;
    for (index, pool) in pools.iter().enumerate() {
        let range = pool.range;
        assert!(memory.iter().any(|ram| ram.contains(&range)), "the pool at {range} is memory");
        assert!(range.base() % layout::POOL_ALIGN == 0 && range.size() % layout::POOL_ALIGN == 0, "{range}");
        assert!(!pools[..index].iter().any(|other| other.range.overlaps(&range)), "two pools at {range}");
    }
    let window = |transport: &Transport| match transport {
        Transport::Mmio { window, .. } => *window,
        Transport::Pci { bar, .. } => *bar,
    };
    let windows: Vec<_> = virtio.iter().map(|device| window(&device.transport)).collect();
    for (index, window) in windows.iter().enumerate() {
        assert!(!memory.iter().any(|ram| ram.overlaps(window)), "{window} is memory");
        assert!(!windows[..index].iter().any(|other| other.overlaps(window)), "two devices at {window}");
    }
    assert!(virtio.iter().all(|device| usize::from(device.pool.0) < pools.len()), "each device has a pool");
    device_tree(machine).expect("a device tree");
    let tables = acpi_tables(machine, layout::ACPI_TABLES.base()).expect("ACPI tables");
    let end = tables.iter().map(|table| table.address + table.bytes.len() as u64).max();
    assert!(end <= Some(layout::ACPI_TABLES.end()), "the ACPI tables fit");
}
