// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cvmm.test=io`: the loads of `cargo lab bench --io`, `--bounce` (`cvmm.io=bounce`) or `--contend` (`cvmm.io=contend`). It
//! overwrites the disks, and waits for a line on the console before each load (see [`load`](crate::bench::io::load)).

use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::options::Options;
use super::report::{Report, say};
use super::{machine, net, pool};
use crate::bench::io::load::{DISK_SIZE, Done, END, GUEST, HOST, LARGE, Line, Load, Over, loads};
use crate::bench::io::stream;
use crate::pattern;

const DISKS: [&str; 2] = ["vda", "vdb"];
/// Part of each load that runs first and does not count: the guest then has the memory that it needs.
const WARM_UP: u64 = 16;

/// Direct I/O wants memory aligned like the disk's blocks; a page is enough for all.
#[repr(align(4096))]
struct Buffer([u8; LARGE]);

pub(super) fn run(options: &Options, report: &Report) {
    report.check("io", || {
        let loads = loads(options.get("io")).context("cvmm.io is not disk, bounce or contend")?;
        if loads.iter().any(|load| load.over == Over::Tcp) {
            net::bring_up(options, GUEST)?;
        }
        // The port is not known before the first line.
        for load in loads.iter().filter(|load| load.over != Over::Tcp) {
            perform(load, load.requests / WARM_UP, 0).context(load.name)?;
        }
        pool::count_locks();
        for load in loads {
            let port = wait_before(load.name)?;
            if load.over == Over::Tcp {
                perform(load, load.requests / WARM_UP, port).context(load.name)?;
            }
            let before = pool::Counts::begin();
            let time = perform(load, load.requests, port).context(load.name)?;
            let (pool, lock) = before.end();
            let (load, requests) = (load.name.to_owned(), load.requests);
            say(&Line::Done(Done { load, requests, time, pool, lock }).to_string());
        }
        wait_before(END)?;
        Ok(format!("{} loads", loads.len()))
    });
}

/// Says that the guest is ready, and waits for the host's line; the port in it.
fn wait_before(load: &str) -> Result<u16> {
    say(&Line::Ready(load.to_owned()).to_string());
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("the console")?;
    line.trim().parse().with_context(|| format!("'{line}' is no TCP port"))
}

/// Makes the requests, and returns how long they took.
fn perform(load: &Load, requests: u64, port: u16) -> Result<Duration> {
    let disks = match load.over {
        Over::Tcp => return over_tcp(load, requests, port),
        Over::Disk => &DISKS[..1],
        Over::TwoDisks => &DISKS,
    };
    let disks: Vec<_> = disks.iter().map(|disk| open(disk)).collect::<Result<_>>()?;
    let [first, ..] = &disks[..] else { unreachable!("there is a first disk") };
    if load.depth == 1 {
        return one_by_one(first, load, requests, pattern::SEED);
    }
    let started = Instant::now();
    thread::scope(|scope| {
        let seeds = pattern::SEED..pattern::SEED + load.depth;
        let one = |disk, seed| one_by_one(disk, load, requests / load.depth, seed);
        let threads: Vec<_> = disks
            .iter()
            .cycle()
            .zip(seeds)
            .map(|(disk, seed)| scope.spawn(move || one(disk, seed)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?.map(drop))
    })?;
    Ok(started.elapsed())
}

fn open(disk: &str) -> Result<File> {
    let size = machine::number(format!("/sys/block/{disk}/size"))? * 512;
    ensure!(size == DISK_SIZE, "{disk} has {size} bytes, not {DISK_SIZE}");
    let path = format!("/dev/{disk}");
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).context(path)
}

fn over_tcp(load: &Load, requests: u64, port: u16) -> Result<Duration> {
    let stream = TcpStream::connect((HOST, port)).context("the host's port")?;
    let bytes = requests * load.bytes as u64;
    let (sent, wanted) = if load.write { (bytes, 0) } else { (0, bytes) };
    Ok(stream::transfer(stream, sent, wanted)?)
}

fn one_by_one(disk: &File, load: &Load, requests: u64, seed: u64) -> Result<Duration> {
    let mut buffer = Box::new(Buffer([0x5a; LARGE]));
    let bytes = &mut buffer.0[..load.bytes];
    let blocks = DISK_SIZE / load.bytes as u64;
    let started = Instant::now();
    for index in 0..requests {
        let block = if load.random { random(seed, index) } else { index } % blocks;
        let offset = block * load.bytes as u64;
        if load.write { disk.write_all_at(bytes, offset) } else { disk.read_exact_at(bytes, offset) }
            .with_context(|| format!("{} bytes at {offset}", load.bytes))?;
    }
    Ok(started.elapsed())
}

/// The same places for each VMM.
fn random(seed: u64, index: u64) -> u64 {
    let mut word = [0; 8];
    pattern::fill(seed, index * 8, &mut word);
    u64::from_le_bytes(word)
}
