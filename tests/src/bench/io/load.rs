// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The loads, and the lines by which the guest tells of them. Guest and host share this file.
//!
//! Before each load the guest writes `guest-init: io ready NAME` and waits for a line, so that the host can read KVM's
//! counters while the guest is idle; afterwards `guest-init: io done {...}`. After the last one it is ready for `end`. The
//! host's line has the TCP port of [`stream::serve`](super::stream::serve).

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const PREFIX: &str = "guest-init: io";
/// What the guest is ready for after the last load.
pub const END: &str = "end";

/// Each disk's size. The sequential loads touch all of it.
pub const DISK_SIZE: u64 = 64 << 20;
const DISK: usize = 64 << 20;
const SMALL: usize = 4 << 10;
/// The largest request.
pub const LARGE: usize = 128 << 10;

/// The host's address on the tap.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 91, 1);
/// The guest's, and the bits of the network's mask.
pub const GUEST: (Ipv4Addr, u32) = (Ipv4Addr::new(192, 168, 91, 2), 24);

/// What the bytes go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The first disk, by direct I/O.
    Disk,
    /// The first two disks: half of the threads use one, half the other.
    TwoDisks,
    /// A TCP connection to the host; a request is a call of `write` or `read`.
    Tcp,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// One word.
    pub name: &'static str,
    /// As the table says it.
    pub title: &'static str,
    /// Over what.
    pub over: Over,
    /// Whether the guest writes, or sends.
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
    over: Over::Disk,
    write: false,
    random: false,
    bytes: SMALL,
    depth: 1,
    requests: 0,
};
const RANDOM_READ: Load =
    Load { name: "random-read", title: "4 KiB random read", random: true, requests: 1024, ..NOTHING };
const RANDOM_READ_8: Load =
    Load { name: "random-read-8", title: "4 KiB random read, 8 threads", depth: 8, ..RANDOM_READ };
const RANDOM_WRITE: Load =
    Load { name: "random-write", title: "4 KiB random write", write: true, ..RANDOM_READ };
const SEQUENTIAL_READ: Load = Load {
    name: "sequential-read",
    title: "128 KiB sequential read",
    bytes: LARGE,
    requests: (DISK / LARGE) as u64,
    ..NOTHING
};
const SEQUENTIAL_WRITE: Load =
    Load { name: "sequential-write", title: "128 KiB sequential write", write: true, ..SEQUENTIAL_READ };
const LARGE_READ_8: Load = Load {
    name: "large-read-8",
    title: "128 KiB random read, 8 threads",
    random: true,
    depth: 8,
    ..SEQUENTIAL_READ
};
const SEND: Load = Load {
    name: "tcp-send",
    title: "TCP from the guest",
    over: Over::Tcp,
    write: true,
    bytes: 64 << 10,
    requests: 512,
    ..NOTHING
};
const RECEIVE: Load = Load { name: "tcp-receive", title: "TCP to the guest", write: false, ..SEND };
const TWO_DISKS: Load = Load {
    name: "two-disks",
    title: "4 KiB random read, 4 threads on each of two disks",
    over: Over::TwoDisks,
    requests: 4096,
    ..RANDOM_READ_8
};

/// Of `cvmm.io=disk`, in their order.
pub const DISK_LOADS: [Load; 6] =
    [NOTHING, RANDOM_READ, RANDOM_READ_8, RANDOM_WRITE, SEQUENTIAL_READ, SEQUENTIAL_WRITE];
/// Of `cvmm.io=bounce`.
pub const BOUNCE_LOADS: [Load; 8] =
    [NOTHING, RANDOM_READ, RANDOM_WRITE, SEQUENTIAL_READ, SEQUENTIAL_WRITE, LARGE_READ_8, SEND, RECEIVE];
/// Of `cvmm.io=contend`.
pub const CONTEND_LOADS: [Load; 2] = [NOTHING, TWO_DISKS];

/// The loads of a word `cvmm.io=WORD`; those of a disk without one.
pub fn loads(word: Option<&str>) -> Option<&'static [Load]> {
    match word {
        None | Some("disk") => Some(&DISK_LOADS),
        Some("bounce") => Some(&BOUNCE_LOADS),
        Some("contend") => Some(&CONTEND_LOADS),
        Some(_) => None,
    }
}

/// One load's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The load's name.
    pub load: String,
    /// How many requests were made.
    pub requests: u64,
    /// In how much time, by the guest's clock.
    pub time: Duration,
    /// What Linux counted of the bounce buffer of the first disk, if it has one.
    pub pool: Option<Pool>,
    /// What it counted of the locks of all bounce buffers, if it does (CONFIG_LOCK_STAT).
    pub lock: Option<Lock>,
}

/// A bounce buffer's use during a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Slots of 2 KiB it has.
    pub slots: u64,
    /// Most slots used at one time.
    pub most: u64,
    /// How often it had no room, as far as the kernel's log tells: the last ones may not be in it yet.
    pub full: u64,
}

/// How often the lock of a bounce buffer was taken, and how often somebody else had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Taken.
    pub acquired: u64,
    /// Of them, only after waiting.
    pub contended: u64,
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
            Self::Done(done) => {
                let done = serde_json::to_string(done).map_err(|_| fmt::Error)?;
                write!(f, "{PREFIX} done {done}")
            }
        }
    }
}

impl Line {
    /// Reads a line of the console; `None` for all others.
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(PREFIX)?;
        let (word, rest) = rest.trim().split_once(' ')?;
        match word {
            "ready" => Some(Self::Ready(rest.to_owned())),
            "done" => serde_json::from_str(rest).ok().map(Self::Done),
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
            pool: Some(Pool { slots: 8192, most: 70, full: 0 }),
            lock: None,
        };
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
            "guest-init: io done",
            "guest-init: io done {\"load\":\"random-read\",\"requests\":-1}",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }

    #[test]
    fn loads_fit_the_disk_and_their_threads() {
        for load in ["disk", "bounce", "contend"].into_iter().flat_map(|word| loads(Some(word)).unwrap()) {
            assert_eq!(DISK_SIZE % load.bytes as u64, 0, "{}", load.name);
            assert_eq!(load.requests % load.depth, 0, "{}", load.name);
            assert!(load.bytes <= LARGE);
        }
        assert_eq!(DISK as u64, DISK_SIZE);
        assert!(loads(Some("other")).is_none());
    }
}
