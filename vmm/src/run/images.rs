// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The files that a run reads before its guest starts, and the ones that it opens to write.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use cvmm_arch::native::boot::{self, Firmware, Image, Images};
use cvmm_arch::native::layout;
use cvmm_firmware::{AcpiTable, Machine, acpi_tables, acpi_tables_with_dsdt, device_tree};

use crate::config::{ConsoleConfig, DeviceKind, FirmwareKind, VmConfig};
use crate::describe;
use crate::host::files;
use crate::{Error, Result};

/// Makes sure that no file that is written is one that is read, a disk, or written for another option, too: opening it
/// would empty it.
pub(super) fn refuse_overwriting(config: &VmConfig) -> Result<()> {
    let console = match &config.console {
        ConsoleConfig::File(path) => Some(path.as_path()),
        _ => None,
    };
    let read = [
        ("--kernel", Some(config.kernel.as_path())),
        ("--initrd", config.initrd.as_deref()),
        ("--dtb", config.dtb.as_deref()),
        ("--dsdt", config.dsdt.as_deref()),
    ];
    let disks = config.machine.devices.iter().filter_map(|device| match &device.kind {
        DeviceKind::Blk { path, .. } => Some(("--blk", Some(path.as_path()))),
        _ => None,
    });
    let written = [
        ("--report", config.report.as_deref()),
        ("--dump-dtb", config.dump_dtb.as_deref()),
        ("--console file=", console),
    ];
    refuse_mixing(config, &written)?;
    // What the guest prints, and what we say, goes there meanwhile.
    let stdout = (config.console == ConsoleConfig::Stdio).then_some(Path::new(STDOUT));
    let streams = [("standard output", stdout), ("standard error", Some(Path::new(STDERR)))];
    let mut others: Vec<_> = read.into_iter().chain(disks).chain(streams).filter_map(named).collect();
    // `-` goes on where standard output is, also where standard error has the same file: `> log 2>&1`.
    let shared = |other: &Path, path: &Path| other == Path::new(STDERR) && files::is_stdout(path);
    for (option, path) in written.into_iter().filter_map(named) {
        let same = |(_, other): &&(&str, &Path)| same_file(other, path) && !shared(other, path);
        if let Some((other, _)) = others.iter().find(same) {
            return Err(Error::argument(with_path(option, path), format!("{other} names the same file")));
        }
        others.push((option, path));
    }
    Ok(())
}

const STDOUT: &str = "/proc/self/fd/1";
const STDERR: &str = "/proc/self/fd/2";

type Named<'a> = (&'a str, Option<&'a Path>);

fn named<'a>((option, path): Named<'a>) -> Option<(&'a str, &'a Path)> {
    path.map(|path| (option, path))
}

/// Standard output takes one thing: two in each other's middle can't be told apart.
fn refuse_mixing(config: &VmConfig, written: &[Named<'_>]) -> Result<()> {
    let console = "the guest's console is there, too; add --console off, or --console file=PATH";
    let mut other = (config.console == ConsoleConfig::Stdio).then(|| console.to_owned());
    for (option, path) in written.iter().copied().filter_map(named).filter(|(_, path)| files::is_stdout(path))
    {
        if let Some(other) = other {
            return Err(Error::argument(with_path(option, path), format!("it is standard output: {other}")));
        }
        other = Some(format!("{option} is there, too"));
    }
    Ok(())
}

/// Whether two paths lead to one file that has contents: not, say, /dev/null.
fn same_file(a: &Path, b: &Path) -> bool {
    let [a, b] = [a, b].map(|path| if files::is_stdout(path) { Path::new(STDOUT) } else { path });
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        let kind = metadata.file_type();
        (kind.is_file() || kind.is_block_device()).then(|| (metadata.dev(), metadata.ino()))
    };
    match (identity(a), identity(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => match (place(a), place(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
        _ => false,
    }
}

/// Links that may lead from one to the next (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Where a file that is not there yet would be. None for one that is there: it has no contents to lose.
fn place(path: &Path) -> Option<PathBuf> {
    if path.exists() {
        return None;
    }
    // A link to what is not there leads to where it would be.
    let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(next) = fs::read_link(&path) else { break };
        path = folder(&path).join(next);
    }
    let path = path.as_path();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(folder.canonicalize().ok()?.join(path.file_name()?))
}

/// Opens the file that `option` names for writing.
pub(super) fn create(option: &str, path: &Path) -> Result<File> {
    files::create(path).map_err(|reason| Error::argument(with_path(option, path), reason))
}

fn open_file(option: &str, path: &Path) -> Result<File> {
    files::open_to_read(path).map_err(|reason| Error::argument(with_path(option, path), reason))
}

/// Opens kernel and initrd, and makes what describes the machine.
pub(super) fn open_images(config: &VmConfig, machine: &Machine) -> Result<Images> {
    let kernel = open_file("--kernel", &config.kernel)?;
    let initrd = config.initrd.as_deref().map(|path| open_file("--initrd", path)).transpose()?;
    let firmware = match config.machine.firmware {
        FirmwareKind::Dt => Firmware::DeviceTree(open_device_tree(config, machine)?),
        FirmwareKind::Acpi => Firmware::Acpi(open_acpi_tables(config, machine)?),
    };
    Ok(Images { kernel, initrd, firmware })
}

/// Makes the device tree, or reads the one to use instead.
fn open_device_tree(config: &VmConfig, machine: &Machine) -> Result<Vec<u8>> {
    match &config.dtb {
        None => our_device_tree(machine),
        Some(path) => read_dtb(path).map_err(|reason| Error::argument(with_path("--dtb", path), reason)),
    }
}

fn our_device_tree(machine: &Machine) -> Result<Vec<u8>> {
    device_tree(machine).map_err(|error| Error::Vmm(error.to_string()))
}

fn our_acpi_tables(machine: &Machine) -> Result<Vec<AcpiTable>> {
    acpi_tables(machine, layout::ACPI_TABLES.base()).map_err(|error| Error::Vmm(error.to_string()))
}

/// Writes the copies of our device tree, or of our ACPI tables, that were asked for.
pub(super) fn write_copies(config: &VmConfig, machine: &Machine) -> Result<()> {
    if let Some(path) = &config.dump_dtb {
        let (file, ours) = (create("--dump-dtb", path)?, our_device_tree(machine)?);
        files::empty(&file, path).and_then(|()| files::write_all(&file, &ours)).map_err(|error| {
            Error::argument(with_path("--dump-dtb", path), format!("it can't be written: {error}"))
        })?;
    }
    match &config.dump_acpi {
        Some(folder) => describe::write_acpi(folder, &our_acpi_tables(machine)?),
        None => Ok(()),
    }
}

/// Makes the ACPI tables, with the DSDT to use instead if there is one.
fn open_acpi_tables(config: &VmConfig, machine: &Machine) -> Result<Vec<AcpiTable>> {
    let Some(path) = &config.dsdt else { return our_acpi_tables(machine) };
    let dsdt = read_dsdt(path).map_err(|reason| Error::argument(with_path("--dsdt", path), reason))?;
    acpi_tables_with_dsdt(machine, layout::ACPI_TABLES.base(), dsdt)
        .map_err(|error| Error::Vmm(error.to_string()))
}

/// What is left of [`layout::ACPI_TABLES`] when all other tables are there, with the most CPUs.
const MAX_DSDT: u64 = 96 << 10;

fn read_dsdt(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let dsdt = files::read(path, MAX_DSDT)?;
    // ACPI 6.5, 5.2.6: signature, length; all bytes add up to 0.
    let whole = match dsdt.first_chunk::<8>() {
        Some([b'D', b'S', b'D', b'T', length @ ..]) => {
            dsdt.len() as u64 == u64::from(u32::from_le_bytes(*length))
        }
        _ => false,
    };
    if !whole {
        return Err("it is not a DSDT (dsdt.aml), or it is truncated; iasl can compile one".into());
    }
    match dsdt.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) {
        0 => Ok(dsdt),
        sum => Err(format!("its checksum is wrong: its bytes add up to {sum:#x} modulo 256, instead of 0")),
    }
}

/// More than the loader has room for, which says how much that is.
const MAX_DTB: u64 = 1 << 20;

fn read_dtb(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let dtb = files::read(path, MAX_DTB)?;
    // Devicetree Specification 0.4, 5.2: magic and total size, big endian.
    match dtb.first_chunk::<8>() {
        Some([0xd0, 0x0d, 0xfe, 0xed, size @ ..])
            if dtb.len() as u64 >= u64::from(u32::from_be_bytes(*size)) =>
        {
            Ok(dtb)
        }
        _ => Err("it is not a flattened device tree (dtb), or it is truncated; dtc can compile one".into()),
    }
}

/// Names the option that a loader's error is about.
pub(super) fn loader_error(config: &VmConfig, error: &boot::Error) -> Error {
    let option = match (error.image(), &config.initrd, &config.dtb) {
        (Image::Kernel, ..) => with_path("--kernel", &config.kernel),
        (Image::Initrd, Some(path), _) => with_path("--initrd", path),
        (Image::Cmdline, ..) => "--cmdline".into(),
        (Image::DeviceTree, _, Some(path)) => with_path("--dtb", path),
        _ => return Error::Vmm(error.to_string()),
    };
    Error::argument(option, error)
}

/// An option that names a file, for a message, as the user wrote it: `--report PATH`, `--console file=PATH`.
pub(super) fn with_path(option: &str, path: &Path) -> String {
    let space = if option.ends_with('=') { "" } else { " " };
    format!("{option}{space}{}", path.display())
}
