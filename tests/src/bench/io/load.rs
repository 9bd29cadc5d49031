// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The loads, and the lines by which the guest tells of them. Guest and host share this file.
//!
//! Before each load the guest writes `guest-init: io ready NAME` and waits for a line, so that the host can read KVM's
//! counters while the guest is idle; afterwards `guest-init: io NAME requests=N nanoseconds=N`. After the last one it is
//! ready for `end`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const PREFIX: &str = "guest-init: io";
/// What the guest is ready for after the last load.
pub const END: &str = "end";

/// The disk's size. The sequential loads touch all of it.
pub const DISK_SIZE: u64 = 64 << 20;
const DISK: usize = 64 << 20;
const SMALL: usize = 4 << 10;
/// The largest request.
pub const LARGE: usize = 128 << 10;

/// What is done to the disk, by direct I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// One word.
    pub name: &'static str,
    /// As the table says it.
    pub title: &'static str,
    /// Whether it writes.
    pub write: bool,
    /// Whether each request is at a random place; else they follow each other.
    pub random: bool,
    /// Bytes of a request.
    pub bytes: usize,
    /// How many threads share the requests, each with one at a time.
    pub depth: u64,
    /// How many requests in all.
    pub requests: u64,
}

/// No request at all: what the lines and the waiting cost.
pub const NOTHING: Load = Load {
    name: "nothing",
    title: "nothing",
    write: false,
    random: false,
    bytes: SMALL,
    depth: 1,
    requests: 0,
};

/// All, in their order.
pub const LOADS: [Load; 6] = [
    NOTHING,
    Load { name: "random-read", title: "4 KiB random read", random: true, requests: 1024, ..NOTHING },
    Load {
        name: "random-read-8",
        title: "4 KiB random read, 8 threads",
        random: true,
        depth: 8,
        requests: 1024,
        ..NOTHING
    },
    Load {
        name: "random-write",
        title: "4 KiB random write",
        random: true,
        write: true,
        requests: 1024,
        ..NOTHING
    },
    Load {
        name: "sequential-read",
        title: "128 KiB sequential read",
        bytes: LARGE,
        requests: (DISK / LARGE) as u64,
        ..NOTHING
    },
    Load {
        name: "sequential-write",
        title: "128 KiB sequential write",
        bytes: LARGE,
        write: true,
        requests: (DISK / LARGE) as u64,
        ..NOTHING
    },
];

/// One load's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The load's name.
    pub load: String,
    /// How many requests were made.
    pub requests: u64,
    /// In how much time, by the guest's clock.
    pub time: Duration,
}

/// What the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// It waits to begin this load.
    Ready(String),
    /// It has done it.
    Done(Done),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(load) => write!(f, "{PREFIX} ready {load}"),
            Self::Done(Done { load, requests, time }) => {
                write!(f, "{PREFIX} {load} requests={requests} nanoseconds={}", time.as_nanos())
            }
        }
    }
}

impl Line {
    /// Reads a line of the console; `None` for all others.
    pub fn parse(line: &str) -> Option<Self> {
        let (_, words) = line.split_once(PREFIX)?;
        let words: Vec<_> = words.split_whitespace().collect();
        match words[..] {
            ["ready", load] => Some(Self::Ready(load.to_owned())),
            [load, requests, nanoseconds] => {
                let requests = requests.strip_prefix("requests=")?.parse().ok()?;
                let nanoseconds = nanoseconds.strip_prefix("nanoseconds=")?.parse().ok()?;
                let time = Duration::from_nanos(nanoseconds);
                Some(Self::Done(Done { load: load.to_owned(), requests, time }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let done = Done {
            load: "random-read".into(),
            requests: 1024,
            time: Duration::from_nanos(1_234_567_890_123),
        };
        assert_eq!(
            Line::Done(done.clone()).to_string(),
            "guest-init: io random-read requests=1024 nanoseconds=1234567890123"
        );
        for line in [Line::Done(done), Line::Ready(END.into())] {
            assert_eq!(Line::parse(&line.to_string()), Some(line.clone()));
            // The terminal's echo of our line, and its line end.
            assert_eq!(Line::parse(&format!("\r{line}\r")), Some(line));
        }
    }

    #[test]
    fn other_lines_are_none_of_ours() {
        for line in [
            "guest-init: started",
            "ok io: 6 loads",
            "guest-init: io",
            "guest-init: io random-read requests=2048",
            "guest-init: io random-read requests=2048 nanoseconds=-1",
            "guest-init: io random-read requests= nanoseconds=1",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }

    #[test]
    fn loads_fit_the_disk_and_their_threads() {
        for load in LOADS {
            assert_eq!(DISK_SIZE % load.bytes as u64, 0, "{}", load.name);
            assert_eq!(load.requests % load.depth, 0, "{}", load.name);
            assert!(load.bytes <= LARGE);
        }
        assert_eq!(DISK as u64, DISK_SIZE);
    }
}
