// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cvmm.test=io`: the loads of `cargo lab bench --io`, on the first disk. It overwrites the disk, and waits for a line on the
//! console before each load (see [`load`](crate::bench::io::load)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::machine;
use super::options::Options;
use super::report::{Report, say};
use crate::bench::io::load::{DISK_SIZE, Done, END, LARGE, LOADS, Line, Load};
use crate::pattern;

const DISK: &str = "vda";
/// Part of each load that runs first and does not count: the guest then has the memory that it needs.
const WARM_UP: u64 = 16;

/// Direct I/O wants memory aligned like the disk's blocks; a page is enough for all.
#[repr(align(4096))]
struct Buffer([u8; LARGE]);

pub(super) fn run(_: &Options, report: &Report) {
    report.check("io", || {
        let size = machine::number(format!("/sys/block/{DISK}/size"))? * 512;
        ensure!(size == DISK_SIZE, "{DISK} has {size} bytes, not {DISK_SIZE}");
        for load in LOADS {
            perform(&load, load.requests / WARM_UP).context(load.name)?;
        }
        for load in LOADS {
            wait_before(load.name)?;
            let time = perform(&load, load.requests).context(load.name)?;
            let (load, requests) = (load.name.to_owned(), load.requests);
            say(&Line::Done(Done { load, requests, time }).to_string());
        }
        wait_before(END)?;
        Ok(format!("{} loads", LOADS.len()))
    });
}

/// Says that the guest is ready, and waits for the host's line.
fn wait_before(load: &str) -> Result<()> {
    say(&Line::Ready(load.to_owned()).to_string());
    io::stdin().read_line(&mut String::new()).context("the console")?;
    Ok(())
}

/// Makes the requests, and returns how long they took.
fn perform(load: &Load, requests: u64) -> Result<Duration> {
    let path = format!("/dev/{DISK}");
    let disk = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    let disk = disk.context(path)?;
    if load.depth == 1 {
        return one_by_one(&disk, load, requests, pattern::SEED);
    }
    let started = Instant::now();
    thread::scope(|scope| {
        let seeds = pattern::SEED..pattern::SEED + load.depth;
        let one = |seed| one_by_one(&disk, load, requests / load.depth, seed);
        let threads: Vec<_> = seeds.map(|seed| scope.spawn(move || one(seed))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?.map(drop))
    })?;
    Ok(started.elapsed())
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
