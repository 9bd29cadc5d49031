// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line, one argument a line: a machine that can be described, or an error that names an option.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use clap::Parser;
use cvmm::cli::{Cli, Command};
use cvmm::config::{MachineConfig, VmConfig};
use cvmm::machine::describe;
use cvmm_arch::native::layout;
use cvmm_devices::virtio::RestrictedDma;
use cvmm_firmware::{Binding, Machine, Range, Transport, acpi_tables, device_tree};

/// Arguments of one run that count.
const MAX_ARGUMENTS: usize = 100;

/// Runs one input.
pub fn run(data: &[u8]) {
    // A path need not be text.
    let lines = data.strip_suffix(b"\n").unwrap_or(data).split(|byte| *byte == b'\n');
    let arguments = lines.take(MAX_ARGUMENTS).map(OsStr::from_bytes);
    let Ok(cli) = Cli::try_parse_from(std::iter::once(OsStr::new("cvmm")).chain(arguments)) else { return };
    let machine = match cli.command {
        Command::Run(arguments) => VmConfig::new(&arguments).map(|config| config.machine),
        Command::Describe(arguments) => MachineConfig::new(&arguments.machine),
    };
    let described = machine.and_then(|config| describe(&config).map(|machine| (config.spec, machine)));
    match described {
        Ok((spec, machine)) => {
            check(&machine);
            check_spec(&spec.restricted, spec.profile.name, &machine);
        }
        Err(error) => {
            let said = error.to_string();
            let option = said.strip_prefix("--").unwrap_or_default();
            assert!(option.starts_with(|c: char| c.is_ascii_lowercase()), "no option is named: {said}");
            assert!(!said.contains(char::is_control), "not one line: {said}");
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

/// The table of `--spec` in resources/guide/specifications.md; and VIRTIO_F_RESTRICTED_DMA has a number that no feature of
/// the standard has (virtio 1.3, 2.2 and 6), but for 27, which only transitional devices have.
fn check_spec(restricted: &RestrictedDma, name: &str, machine: &Machine) {
    let RestrictedDma { feature_bit, required, names_pool, withholds_access_platform: _ } = *restricted;
    assert_eq!(feature_bit.is_some(), name != "upstream", "a feature bit with --spec {name}");
    assert!(feature_bit.is_some() || !required, "a driver can't accept a bit that is not there");
    let free = |bit: u8| matches!(bit, 25..=27 | 31 | 44..=49);
    assert!(feature_bit.is_none_or(free), "the feature bit {feature_bit:?} is taken");
    assert_eq!(names_pool, name == "plan", "registers name the pool with --spec {name}");
    let defaults = machine.pools.iter().filter(|pool| pool.dma_default).count();
    assert!(defaults == 0 || name == "plan" && defaults == 1, "{defaults} default pools with --spec {name}");
    let mut own: Vec<Range> = Vec::new();
    for device in &machine.virtio {
        let pool = &machine.pools[usize::from(device.pool.0)];
        let on_pci = matches!(device.transport, Transport::Pci { .. });
        match device.binding {
            Binding::Reference => assert!(name != "rfc" || !on_pci, "{}: no memory of its own", device.name),
            Binding::Default => assert!(pool.dma_default, "{}: names no pool", device.name),
            Binding::OnDevice(bar) => {
                assert!(name == "rfc" && on_pci, "{}: memory of its own", device.name);
                let host = machine.pci.expect("a PCI host");
                let size = pool.range.size().next_power_of_two();
                assert_eq!(bar.size(), size, "{}: BAR 2", device.name);
                assert!(
                    bar.base() % size == 0 && host.memory.contains(&bar),
                    "{}: BAR 2 at {bar}",
                    device.name
                );
                own.push(bar);
            }
        }
    }
    let registers = machine.virtio.iter().filter_map(|device| match device.transport {
        Transport::Pci { bar, .. } => Some(bar),
        Transport::Mmio { .. } => None,
    });
    let all: Vec<_> = registers.chain(own).collect();
    for (index, bar) in all.iter().enumerate() {
        assert!(!all[..index].iter().any(|other| other.overlaps(bar)), "two BARs at {bar}");
    }
}
