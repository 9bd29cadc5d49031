// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ACPI tables as files, one each: `dsdt.aml`, `facp.aml`, ...

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use cvmm_firmware::AcpiTable;

use crate::host::files;
use crate::{Error, Result};

/// Writes each of `tables` to a file of its own in the folder that `--dump-acpi` names; makes the folder if it is not
/// there.
///
/// What is overwritten is only what was written before, perhaps for another machine. A table that would be left over
/// from that is an error: all that is in the folder shall belong together.
///
/// # Errors
/// The folder can't be made or written, or has other files ending in `.aml`.
pub fn write_acpi(dir: &Path, tables: &[AcpiTable]) -> Result<()> {
    write_tables("--dump-acpi", dir, tables)
}

/// [`write_acpi`] for the option `option`.
pub(super) fn write_tables(option: &str, dir: &Path, tables: &[AcpiTable]) -> Result<()> {
    let write = || {
        if files::is_stdout(dir) {
            return Err("each table is a file of its own, and standard output is one: name a folder".into());
        }
        fs::create_dir_all(dir).map_err(|error| format!("the folder can't be made: {error}"))?;
        refuse_others(dir, tables)?;
        tables.iter().try_for_each(|table| {
            let name = file_name(table);
            fs::write(dir.join(&name), &table.bytes)
                .map_err(|error| format!("{name} can't be written: {error}"))
        })
    };
    write().map_err(|reason| Error::argument(format!("{option} {}", dir.display()), reason))
}

/// Name of the file of `table`.
pub(super) fn file_name(table: &AcpiTable) -> String {
    format!("{}.aml", table.name.to_lowercase())
}

fn refuse_others(dir: &Path, tables: &[AcpiTable]) -> std::result::Result<(), String> {
    let unreadable = |error| format!("the folder can't be read: {error}");
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension() != Some(OsStr::new("aml")) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match tables.iter().find(|table| file_name(table) == name) {
            None => {
                return Err(format!(
                    "the folder has {name}, which is not a table of this machine; use an empty folder"
                ));
            }
            Some(table) if !is_table(&path, table) => {
                return Err(format!(
                    "the folder has {name}, which is not the {} table; use an empty folder",
                    table.name
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Whether `path` is a regular file that begins like `table` does: with its signature (ACPI 6.5, 5.2.5.3 and 5.2.6).
fn is_table(path: &Path, table: &AcpiTable) -> bool {
    let mut start = [0; 4];
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
        && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && table.bytes.starts_with(&start)
}
