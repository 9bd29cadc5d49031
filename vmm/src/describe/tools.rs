// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Descriptions as readable text, decoded by the standard tools: dtc and iasl.

#![allow(unsafe_code)]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use cvmm_firmware::AcpiTable;
use nix::sys::signal::{SigHandler, Signal, signal};

use super::acpi::file_name;
use crate::{Error, Result};

/// The device tree `dtb` as source.
pub(super) fn dts(dtb: &[u8]) -> Result<Vec<u8>> {
    let mut dtc = Command::new("dtc");
    dtc.args(["-q", "-I", "dtb", "-O", "dts", "-o", "-", "-"]);
    let output = run(&mut dtc, dtb).map_err(|error| not_run("dts", "dtc", "device-tree-compiler", &error))?;
    if output.status.success() { Ok(output.stdout) } else { Err(failed("dtc", &output)) }
}

/// `tables` as source, one after the other.
pub(super) fn asl(tables: &[AcpiTable]) -> Result<Vec<u8>> {
    // iasl knows files only. The folder goes away with `folder`, also after an error.
    let no_room = |error| {
        let place = env::temp_dir();
        let reason = format!("iasl needs files in {place:?}, and they can't be written: {error}");
        Error::Describe(format!("--format asl: {reason}; set TMPDIR to another folder"))
    };
    let folder = tempfile::tempdir().map_err(no_room)?;
    // iasl has no text form of the RSDP, which is no table in the sense of ACPI 6.5, 5.2.6.
    let (with_text, without): (Vec<_>, Vec<_>) = tables.iter().partition(|table| table.name != "RSDP");
    for table in &with_text {
        fs::write(folder.path().join(file_name(table)), &table.bytes).map_err(no_room)?;
    }
    let mut iasl = Command::new("iasl");
    iasl.current_dir(folder.path()).arg("-d").args(with_text.iter().map(|table| file_name(table)));
    let output = run(&mut iasl, &[]).map_err(|error| not_run("asl", "iasl", "acpica-tools", &error))?;

    let mut text = String::new();
    for table in without {
        let _ =
            writeln!(text, "{}: iasl has no text for it; --format acpi writes its bytes\n", heading(table));
    }
    for table in with_text {
        let path = folder.path().join(file_name(table)).with_extension("dsl");
        let source = fs::read_to_string(path).map_err(|_| failed("iasl", &output))?;
        let _ = writeln!(text, "{}\n", heading(table));
        // The time of decoding would make two descriptions of one machine differ.
        for line in source.lines().filter(|line| !line.starts_with(" * Disassembly of")) {
            let _ = writeln!(text, "{line}");
        }
        text.push('\n');
    }
    Ok(text.into_bytes())
}

fn heading(table: &AcpiTable) -> String {
    format!("// {} at {:#x}, {} bytes", table.name, table.address, table.bytes.len())
}

/// Runs `command` with `input`. It takes all input before it writes anything.
fn run(command: &mut Command, input: &[u8]) -> io::Result<Output> {
    // Whoever started us may ignore it; then nobody could be told how a child has ended (wait(2), ECHILD).
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn()?;
    // If it does not want its input, it says why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    child.wait_with_output()
}

fn not_run(format: &str, tool: &str, package: &str, error: &io::Error) -> Error {
    let binary = if format == "dts" { "dtb" } else { "acpi" };
    // Anything else, such as too many processes, no package mends.
    let package = match error.kind() {
        io::ErrorKind::NotFound => format!("Debian's package {package} has it, and "),
        _ => String::new(),
    };
    Error::Describe(format!(
        "--format {format}: {tool} can't be run: {error}; {package}--format {binary} does not need it"
    ))
}

fn failed(tool: &str, output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Error::Vmm(format!("{tool} rejects cvmm's output ({}): {said}", output.status))
}
