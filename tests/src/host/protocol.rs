// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the lab and the agent on a KVM host say to each other.
//!
//! A frame is two little-endian u32 lengths, then a message in JSON, then raw bytes that belong to it (a piece of a file, a
//! program's output). Requests are answered in their order; events of processes and transfers come in between.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Names a process or a transfer; chosen by the lab, so that it can listen before the first event.
pub type JobId = u64;

/// A frame's parts are smaller than this; more is a broken channel.
const LIMIT: u32 = 16 << 20;

/// From the lab to the agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Writes the frame's bytes at `offset`, creating the file; `mode` sets its permissions.
    Write {
        #[serde(with = "any_path")]
        path: PathBuf,
        offset: u64,
        mode: Option<u32>,
    },
    /// Reads at most `length` bytes; answered with fewer only at the end of the file.
    Read {
        #[serde(with = "any_path")]
        path: PathBuf,
        offset: u64,
        length: usize,
    },
    /// Makes the file this long, creating it; what is new is a hole.
    Resize {
        #[serde(with = "any_path")]
        path: PathBuf,
        size: u64,
    },
    /// Asks where the file has data.
    Layout {
        #[serde(with = "any_path")]
        path: PathBuf,
    },
    /// Makes a folder and those above it.
    MakeFolder {
        #[serde(with = "any_path")]
        path: PathBuf,
    },
    /// Removes a file, or a folder with all that is in it. What is not there is no error.
    Remove {
        #[serde(with = "any_path")]
        path: PathBuf,
    },
    /// Starts a program.
    Spawn { job: JobId, command: CommandLine },
    /// Feeds the frame's bytes to a program's standard input; `end` closes it afterwards.
    Input { job: JobId, end: bool },
    /// Sends a signal to a program, or to its children too.
    Signal { job: JobId, signal: i32, children: bool },
    /// Makes a tap interface, and gives it an address such as 192.168.77.1/24.
    MakeTap { name: String, address: Option<String>, multi_queue: bool, mtu: Option<u16> },
    /// Removes a tap interface.
    RemoveTap { name: String },
    /// Listens on a TCP port, or on any free one for 0, and takes part in one transfer.
    Transfer { job: JobId, port: u16 },
}

/// A path that need not be text.
mod any_path {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(from).map(PathBuf::from)
    }
}

/// A program to start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CommandLine {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its folder.
    pub folder: Option<PathBuf>,
    /// Variables added to its environment.
    pub environment: Vec<(String, String)>,
    /// Whether standard input and output are a terminal.
    pub terminal: bool,
}

/// From the agent to the lab.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// The first message.
    Ready(Greeting),
    /// The answer to the oldest request that has none yet.
    Answer(Result<Answer, String>),
    /// Something happened to a process or a transfer.
    Event { job: JobId, event: Event },
}

/// What the agent found when it started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Greeting {
    /// The running kernel's release.
    pub kernel: String,
    /// Why /dev/kvm cannot be opened, if so.
    pub kvm_error: Option<String>,
}

/// What a request came to.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done; with `Read`, the frame's bytes are the content.
    Done,
    /// A file's size, the bytes that it occupies, and its extents with data.
    Layout { size: u64, allocated: u64, extents: Vec<(u64, u64)> },
    /// A program runs. `at` is the time immediately before it was started.
    Spawned { pid: i32, at: Time },
    /// The port of a transfer.
    Listening { port: u16 },
}

/// Microseconds since the agent started.
pub type Time = u64;

/// What happens to a process or a transfer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// The program wrote the frame's bytes.
    Output { stream: Stream, at: Time },
    /// The program ended, and all that it wrote was sent before.
    Exited { exit: Exit, at: Time },
    /// The transfer ended: what came from the guest, or what went wrong.
    Transferred(Result<Received, String>),
}

/// What a guest sent in a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// Where a program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Writes one frame.
pub fn send(to: &mut impl Write, message: &impl Serialize, bytes: &[u8]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut frame = Vec::with_capacity(8 + text.len() + bytes.len());
    frame.extend(length(text.len())?.to_le_bytes());
    frame.extend(length(bytes.len())?.to_le_bytes());
    frame.extend(text);
    frame.extend(bytes);
    to.write_all(&frame)?;
    to.flush()
}

/// Reads one frame; `None` where the other side closed the channel between two frames.
pub fn receive<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<(M, Vec<u8>)>> {
    let mut header = [0; 8];
    if from.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..])?;
    let [a, b, c, d, e, f, g, h] = header;
    let text = read_vec(from, u32::from_le_bytes([a, b, c, d]))?;
    let bytes = read_vec(from, u32::from_le_bytes([e, f, g, h]))?;
    Ok(Some((serde_json::from_slice(&text)?, bytes)))
}

fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length).ok().filter(|&length| length < LIMIT).ok_or_else(|| too_long(length as u64))
}

fn read_vec(from: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    if length >= LIMIT {
        return Err(too_long(length.into()));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn too_long(length: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a frame's part of {length} bytes (the limit is {LIMIT})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut channel = Vec::new();
        send(&mut channel, &Request::Signal { job: 7, signal: 15, children: false }, &[]).unwrap();
        send(&mut channel, &Request::Input { job: 8, end: true }, b"\0bytes\n").unwrap();

        let mut from = channel.as_slice();
        let (first, bytes) = receive::<Request>(&mut from).unwrap().unwrap();
        assert!(matches!(first, Request::Signal { job: 7, signal: 15, children: false }));
        assert!(bytes.is_empty());
        let (second, bytes) = receive::<Request>(&mut from).unwrap().unwrap();
        assert!(matches!(second, Request::Input { job: 8, end: true }));
        assert_eq!(bytes, b"\0bytes\n");
        assert!(receive::<Request>(&mut from).unwrap().is_none());
    }

    #[test]
    fn paths_and_arguments_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;

        let odd = OsString::from_vec(b"a\xff\"".to_vec());
        let command = CommandLine { arguments: vec![odd.clone()], ..CommandLine::default() };
        let mut channel = Vec::new();
        send(&mut channel, &Request::Layout { path: odd.clone().into() }, &[]).unwrap();
        send(&mut channel, &Request::Spawn { job: 1, command }, &[]).unwrap();
        let mut from = channel.as_slice();
        let (first, _) = receive::<Request>(&mut from).unwrap().unwrap();
        assert!(matches!(first, Request::Layout { path } if path.as_os_str() == odd));
        let (second, _) = receive::<Request>(&mut from).unwrap().unwrap();
        assert!(matches!(second, Request::Spawn { command, .. } if command.arguments == [odd]));
    }

    #[test]
    fn a_cut_or_senseless_frame_is_an_error() {
        let mut channel = Vec::new();
        send(&mut channel, &Request::Input { job: 1, end: false }, b"abc").unwrap();
        assert!(receive::<Request>(&mut &channel[..channel.len() - 1]).is_err());
        assert!(receive::<Request>(&mut &channel[..3]).is_err());
        let error = receive::<Request>(&mut [0xff; 64].as_slice()).unwrap_err();
        assert!(error.to_string().contains("limit"), "{error}");
    }
}
