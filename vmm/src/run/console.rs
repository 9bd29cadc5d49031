// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the guest's console output goes.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;

use super::control::ExitRequest;
use super::images::{create, with_path};
use crate::config::ConsoleConfig;
use crate::host::files;
use crate::{Error, Result};

/// What became of the console's output.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Why some of it was lost.
    pub(super) lost: OnceLock<String>,
    /// It ends in the middle of a line, on the terminal that our messages go to.
    pub(super) in_line: AtomicBool,
}

/// Opens the console's output.
pub(super) fn open_console(
    console: &ConsoleConfig,
    exit: &Arc<ExitRequest>,
) -> Result<(Box<dyn Write + Send>, Arc<Written>)> {
    let written = Arc::<Written>::default();
    let file = match console {
        ConsoleConfig::Off => return Ok((Box::new(io::sink()), written)),
        ConsoleConfig::File(path) => create("--console file=", path)?,
        ConsoleConfig::Stdio => {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            File::from(stdout.map_err(|error| Error::vmm("standard output", error))?)
        }
    };
    let with_messages = is_terminal_of_messages(&file);
    let output = ConsoleOutput { file, exit: Arc::clone(exit), written: Arc::clone(&written), with_messages };
    Ok((Box::new(output), written))
}

/// Whether `file` is the terminal that standard error is.
fn is_terminal_of_messages(file: &File) -> bool {
    let device = |file: BorrowedFd<'_>| fstat(file).map(|status| status.st_rdev).ok();
    let stderr = io::stderr();
    stderr.is_terminal() && file.is_terminal() && device(stderr.as_fd()) == device(file.as_fd())
}

/// What an earlier run has left goes when there is a guest, and not with one that does not start.
pub(super) fn begin(console: &ConsoleConfig) -> Result<()> {
    let ConsoleConfig::File(path) = console else { return Ok(()) };
    let begun = files::empty(&create("--console file=", path)?, path);
    begun.map_err(|error| Error::argument(with_path("--console file=", path), error))
}

/// Console output that nobody may be reading. The vCPU waits until somebody does, but not past the end of the run. What
/// can't be written is lost: the guest is not to blame, and goes on.
struct ConsoleOutput {
    file: File,
    exit: Arc<ExitRequest>,
    written: Arc<Written>,
    with_messages: bool,
}

impl Write for ConsoleOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let error = match self.file.write(bytes) {
            Err(error) => error,
            Ok(count) => {
                if let Some(last) = bytes.get(..count).and_then(<[u8]>::last) {
                    let in_line = self.with_messages && *last != b'\n';
                    self.written.in_line.store(in_line, Ordering::Relaxed);
                }
                return Ok(count);
            }
        };
        match error.kind() {
            // The signal that stops vCPUs ends the wait.
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock if self.exit.is_asked() => {
                return Ok(bytes.len());
            }
            io::ErrorKind::Interrupted => return Err(error),
            // Somebody else has made our standard output non-blocking: wait, and come again.
            io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                return Err(io::ErrorKind::Interrupted.into());
            }
            _ => {}
        }
        self.written.lost.get_or_init(|| {
            log::error!(
                "the console can't be written: {error}; the guest runs on, and its output there is lost"
            );
            error.to_string()
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
