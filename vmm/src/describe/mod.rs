// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cvmm describe`: what a guest would be told of its machine. Needs no KVM, and opens no disk and no tap.

mod acpi;
mod json;
mod map;
mod output;
mod svg;
mod text;
mod tools;

use std::str::FromStr;

use cvmm_arch::native::layout;
use cvmm_firmware::{AcpiTable, Machine, Range, acpi_tables, device_tree};

pub use acpi::write_acpi;

use crate::cli::DescribeArgs;
use crate::config::{FirmwareKind, MachineConfig};
use crate::host::limits::need_open_files;
use crate::{Error, Result, machine};

/// How the machine is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Dts,
    Dtb,
    Asl,
    Acpi,
    Json,
    Svg,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "text" => Self::Text,
            "dts" => Self::Dts,
            "dtb" => Self::Dtb,
            "asl" => Self::Asl,
            "acpi" => Self::Acpi,
            "json" => Self::Json,
            "svg" => Self::Svg,
            _ => {
                let reason = "it must be text, dts, dtb, asl, acpi, json or svg";
                return Err(Error::argument(format!("--format {text}"), reason));
            }
        })
    }
}

/// Files that are open at most: standard streams of a decoder, and the output.
const OPEN_FILES: usize = 16;

/// Describes the machine that `args` ask for.
///
/// # Errors
/// A wrong option, an output that can't be written, or a decoder that this host does not have.
pub fn describe(args: &DescribeArgs) -> Result<()> {
    need_open_files(OPEN_FILES).map_err(Error::Describe)?;
    let format = args.format.parse()?;
    let config = MachineConfig::new(&args.machine)?;
    let machine = machine::describe(&config)?;
    let output = args.output.as_deref();
    if format == Format::Acpi {
        let reason = "each table is a file of its own: name a folder for them with --output DIR";
        let dir = output.ok_or_else(|| Error::argument("--format acpi", reason))?;
        return acpi::write_tables("--output", dir, &tables(&machine)?);
    }
    let target = output::Target::new(output, format == Format::Dtb, &config)?;
    target.write(&contents(format, &config, &machine)?)
}

fn contents(format: Format, config: &MachineConfig, machine: &Machine) -> Result<Vec<u8>> {
    match format {
        Format::Text => Ok(text::text(config, machine).into_bytes()),
        Format::Dtb => dtb(machine),
        Format::Dts => tools::dts(&dtb(machine)?),
        Format::Acpi | Format::Asl => tools::asl(&tables(machine)?),
        Format::Json => {
            let tables = (config.firmware == FirmwareKind::Acpi).then(|| tables(machine)).transpose()?;
            json::json(config, machine, tables.as_deref())
        }
        Format::Svg => svg::svg(config, machine),
    }
}

fn dtb(machine: &Machine) -> Result<Vec<u8>> {
    device_tree(machine).map_err(|error| Error::vmm("device tree", error))
}

fn tables(machine: &Machine) -> Result<Vec<AcpiTable>> {
    acpi_tables(machine, layout::ACPI_TABLES.base()).map_err(|error| Error::vmm("ACPI tables", error))
}

/// Private memory that holds the ACPI tables, if the guest gets them.
fn table_area(config: &MachineConfig) -> Option<Range> {
    (config.firmware == FirmwareKind::Acpi).then_some(layout::ACPI_TABLES)
}
