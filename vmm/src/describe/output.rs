// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a description goes: a file, or standard output.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{DeviceKind, MachineConfig};
use crate::host::files;
use crate::{Error, Result};

/// Where a description goes.
#[derive(Debug)]
pub(super) enum Target<'a> {
    Stdout,
    File(&'a Path),
}

impl<'a> Target<'a> {
    /// The file `path`, or standard output, also where that is `-`. Refuses a place that would suffer from what is written.
    pub(super) fn new(path: Option<&'a Path>, binary: bool, config: &MachineConfig) -> Result<Self> {
        let Some(path) = path.filter(|path| !files::is_stdout(path)) else {
            if binary && io::stdout().is_terminal() {
                let reason =
                    "it is binary, and standard output is a terminal: name a file with --output FILE";
                return Err(Error::argument("--format dtb", reason));
            }
            return Ok(Self::Stdout);
        };
        let disk = config.devices.iter().find(|device| match &device.kind {
            DeviceKind::Blk { path: disk, .. } => same_file(disk, path),
            _ => false,
        });
        match disk {
            Some(disk) => Err(wrong(path, format!("{} names the same file", disk.option))),
            None => Ok(Self::File(path)),
        }
    }

    /// Writes it.
    pub(super) fn write(&self, contents: &[u8]) -> Result<()> {
        match self {
            Self::File(path) => {
                let file = files::create(path).map_err(|reason| wrong(path, reason))?;
                let written = files::empty(&file, path).and_then(|()| files::write_all(&file, contents));
                written.map_err(|error| wrong(path, format!("it can't be written: {error}")))
            }
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                match stdout.write_all(contents).and_then(|()| stdout.flush()) {
                    // Who reads it has seen enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                    result => result.map_err(|error| Error::vmm("standard output can't be written", error)),
                }
            }
        }
    }
}

fn wrong(path: &Path, reason: String) -> Error {
    Error::argument(format!("--output {}", path.display()), reason)
}

fn same_file(a: &Path, b: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(a).is_some_and(|a| Some(a) == identity(b))
}
