// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the guest's console output goes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::control::ExitRequest;
use super::images::create;
use crate::config::ConsoleConfig;
use crate::{Error, Result};

/// Opens the console's output.
pub(super) fn open_console(
    console: &ConsoleConfig,
    exit: &Arc<ExitRequest>,
) -> Result<Box<dyn Write + Send>> {
    let file = match console {
        ConsoleConfig::Off => return Ok(Box::new(io::sink())),
        ConsoleConfig::File(path) => create("--console", path)?,
        ConsoleConfig::Stdio => {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            File::from(stdout.map_err(|error| Error::vmm("standard output", error))?)
        }
    };
    Ok(Box::new(ConsoleOutput { file, exit: Arc::clone(exit) }))
}

/// Console output that nobody may be reading. The vCPU waits until somebody does, but not past the end of the run.
struct ConsoleOutput {
    file: File,
    exit: Arc<ExitRequest>,
}

impl Write for ConsoleOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            // The signal that stops vCPUs ends the wait.
            Err(error) if error.kind() == io::ErrorKind::Interrupted && self.exit.is_asked() => {
                Ok(bytes.len())
            }
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
