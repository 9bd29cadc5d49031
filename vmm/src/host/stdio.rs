// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Standard input, output and error, such that no thread of cvmm waits for whoever is at the other end.
//!
//! They may be shared with other processes, and with each other. To make them non-blocking would do it to all who share
//! them; so they are opened again.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Duration;

use nix::sys::socket::sockopt;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv};

use super::files;

/// How long the last words of a run wait for a reader.
const PATIENCE: Duration = Duration::from_secs(1);

/// Standard input. Where it is a pipe, a terminal or a socket, reads find [`ErrorKind::WouldBlock`] if there is nothing.
#[derive(Debug)]
pub struct Stdin {
    file: File,
    /// Of a socket.
    kind: Option<SockType>,
}

impl Stdin {
    /// Standard input.
    pub fn open() -> io::Result<Self> {
        let file = unblocking(io::stdin().as_fd(), File::options().read(true))?;
        let is_socket = file.metadata()?.file_type().is_socket();
        let kind = is_socket.then(|| getsockopt(&file, sockopt::SockType)).transpose()?;
        Ok(Self { file, kind })
    }

    /// Whether a read gets one message, and loses what it has no room for.
    pub fn has_messages(&self) -> bool {
        self.kind.is_some_and(|kind| kind != SockType::Stream)
    }
}

impl Read for Stdin {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.kind {
            // It can't be opened again.
            Some(_) => Ok(recv(self.file.as_raw_fd(), to, MsgFlags::MSG_DONTWAIT)?),
            None => self.file.read(to),
        }
    }
}

impl AsRawFd for Stdin {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Standard output, for what an option puts there instead of into a file.
pub(super) fn output() -> io::Result<File> {
    unblocking(io::stdout().as_fd(), File::options().write(true))
}

/// Standard error; what finds no room there is lost.
#[derive(Debug)]
pub struct Messages(File);

impl Messages {
    /// Standard error.
    pub fn open() -> io::Result<Self> {
        unblocking(io::stderr().as_fd(), File::options().write(true)).map(Self)
    }

    /// Tells how the run ended, with some patience, but without waiting for ever.
    pub fn last(&self, line: &str) {
        // Nobody may be there to read it: the exit code says it, too.
        let _ = files::write_within(PATIENCE, &self.0, line.as_bytes());
    }
}

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A description of our own of the file behind `stream`, which does not wait. Only pipes and terminals can make us wait; a
/// file opened again would begin at its start. Where there is no /proc, or a terminal is another user's, it is the same
/// description.
fn unblocking(stream: BorrowedFd<'_>, options: &mut OpenOptions) -> io::Result<File> {
    let same = File::from(stream.try_clone_to_owned()?);
    let kind = same.metadata()?.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        return Ok(same);
    }
    let again = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    Ok(again.open(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap_or(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One who reads from a pipe that is shared does not wait, and those who share it still do.
    #[test]
    fn a_pipe_is_opened_again() {
        let (reader, writer) = io::pipe().unwrap();
        let mut input = unblocking(reader.as_fd(), File::options().read(true)).unwrap();
        let mut byte = [0];
        assert_eq!(input.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
        let flags = nix::fcntl::fcntl(reader.as_fd(), nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        // What finds no room is lost, and does not wait.
        let mut messages = Messages(unblocking(writer.as_fd(), File::options().write(true)).unwrap());
        let line = [b'x'; 4096];
        (0..100).for_each(|_| messages.write_all(&line).unwrap());
        messages.last("the end");
        assert!(input.read(&mut byte).is_ok_and(|n| n == 1));
    }

    /// It goes on where it was.
    #[test]
    fn a_file_is_not_opened_again() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        let mut messages = Messages(unblocking(file.as_fd(), File::options().write(true)).unwrap());
        messages.write_all(b", after").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 13);
    }
}
