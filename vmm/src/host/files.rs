// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that options name. What is opened may be anything: opening never waits, and what is read ends.
//!
//! The signals that end a run are blocked meanwhile (see `run::control`), so a wait for the other end of a pipe would be one
//! for ever.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::stdio;

/// How long a pipe may take no byte of what is written at the end of a run.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the file at `path` with `options`, if it is of a kind that `fits`, whose name is `wanted`.
///
/// # Errors
/// What is wrong with it, for a message that names the option.
pub fn open(
    options: &mut OpenOptions,
    path: &Path,
    fits: impl Fn(FileType) -> bool,
    wanted: &str,
) -> Result<File, io::Error> {
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if fits(kind) {
        return Ok(file);
    }
    Err(io::Error::other(format!("it is {}; it must be {wanted}", name(kind))))
}

/// Opens the regular file at `path` for reading.
///
/// # Errors
/// What is wrong with it, for a message that names the option.
pub fn open_to_read(path: &Path) -> Result<File, String> {
    let file = open(File::options().read(true), path, |kind| kind.is_file(), "a regular file");
    file.map_err(|error| format!("it can't be read: {error}"))
}

/// Reads the regular file at `path`, of at most `most` bytes.
///
/// # Errors
/// What is wrong with it, for a message that names the option.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = open_to_read(path)?;
    // Not its size: files of /proc have none.
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("it can't be read: {error}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("it is longer than {} KiB, the most that cvmm reads", most >> 10));
    }
    Ok(bytes)
}

/// Whether `path` stands for standard output, in an option that names a file to be written.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Opens the file at `path` for writing, or makes it; or a terminal, or a pipe that somebody reads, as /dev/stdout may be; or
/// standard output. What is in it stays, until [`empty`].
///
/// # Errors
/// What is wrong with it, for a message that names the option.
pub fn create(path: &Path) -> Result<File, String> {
    if is_stdout(path) {
        return stdio::output().map_err(|error| format!("standard output can't be written: {error}"));
    }
    // Not a disk, which would lose what is on it.
    let fits = |kind: FileType| kind.is_file() || kind.is_char_device() || kind.is_fifo();
    let mut options = File::options();
    let file = open(options.write(true).create(true).truncate(false), path, fits, "a regular file");
    file.map_err(|error| match error.raw_os_error() {
        // open(2): a FIFO without a reader; also a socket.
        Some(libc::ENXIO) => "it can't be written: it is a pipe that nobody reads, or a socket".into(),
        _ => format!("it can't be written: {error}"),
    })
}

/// Takes out what was in a file before it was opened by [`create`] at `path`. Standard output is not ours to empty.
pub fn empty(file: &File, path: &Path) -> io::Result<()> {
    if !is_stdout(path) && file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

/// Writes all of `bytes` into what [`create`] has opened. Who reads a pipe has some time for it.
pub fn write_all(file: &File, bytes: &[u8]) -> io::Result<()> {
    write_within(PATIENCE, file, bytes)
}

/// The same, with as much patience as is said.
pub(super) fn write_within(patience: Duration, mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
    let mut since = Instant::now();
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                since = Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // What is left, so that signals do not make it longer.
                let left = patience.saturating_sub(since.elapsed());
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], timeout) {
                    Ok(0) => {
                        let what = format!("nobody has read the pipe for {patience:?}");
                        return Err(io::Error::new(io::ErrorKind::TimedOut, what));
                    }
                    Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn name(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_file() => "a regular file",
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_block_device() => "a block device",
        _ if kind.is_char_device() => "a character device",
        _ => "a socket",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_given_up() {
        use std::os::fd::OwnedFd;
        let (reader, writer) = std::io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let error = write_within(Duration::from_millis(20), &writer, &vec![1; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(reader);
        assert_eq!(write_all(&writer, &[1]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn no_more_is_read_than_there_may_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 2048]).unwrap();
        assert_eq!(read(file.path(), 2048).unwrap(), [7; 2048]);
        assert!(read(file.path(), 1024).unwrap_err().contains("longer than 1 KiB"));
        assert!(read(Path::new("/dev/zero"), 1024).unwrap_err().contains("a character device"));
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
    }
}
