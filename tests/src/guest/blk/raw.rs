// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A disk without a file system, by direct I/O. Afterwards the first MiB holds the pattern, the second and third are
//! zeros; the host can look.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use super::disk::{Disk, holds_pattern, same};
use crate::guest::report::Report;
use crate::pattern;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// Each worker owns a region, the first of them after the other tests' regions.
const WORKERS: u64 = 4;
const FIRST_REGION: u64 = 4 * MIB;
const REGION: u64 = 2 * MIB;
const ROUNDS: u64 = 24;
/// More than 1 MiB, or Linux submits each request by itself.
const BATCH: usize = 4 << 20;

pub(super) fn run(disk: &Disk, seed: u64, report: &Report) {
    let name = &disk.name;
    report.check(&format!("blk-{name}-pattern"), || write_pattern(disk, seed));
    report.check(&format!("blk-{name}-write-zeroes"), || {
        let limit = disk.attribute_number("queue/write_zeroes_max_bytes")?;
        ensure!(limit > 0, "the device does not offer it");
        becomes_zero(disk, seed, MIB, Disk::write_zeroes)
    });
    report.check(&format!("blk-{name}-discard"), || {
        let limit = disk.attribute_number("queue/discard_max_bytes")?;
        ensure!(limit > 0, "the device does not offer it");
        becomes_zero(disk, seed, 2 * MIB, Disk::discard)
    });
    report.check(&format!("blk-{name}-parallel"), || parallel(disk, seed));
    report.check(&format!("blk-{name}-batch"), || batch(disk, seed));
}

fn write_pattern(disk: &Disk, seed: u64) -> Result<String> {
    let size = disk.size()?;
    ensure!(size >= 16 * MIB, "{size} bytes; the test needs 16 MiB");
    // one sector, an odd number of them, more than one segment, and up to the end of the MiB
    let mut offset = 0;
    for length in [SECTOR, 7 * SECTOR, 300 * 1024, MIB - 8 * SECTOR - 300 * 1024] {
        let mut data = vec![0; usize::try_from(length)?];
        pattern::fill(seed, offset, &mut data);
        disk.write(offset, &data).with_context(|| format!("write {length} bytes at {offset}"))?;
        offset += length;
    }
    let mut last = vec![0; 4096];
    pattern::fill(seed, size - 4096, &mut last);
    disk.write(size - 4096, &last).context("write the last sectors")?;
    disk.flush().context("flush")?;
    holds_pattern(&disk.name, seed, 0, 1 << 20)?;
    holds_pattern(&disk.name, seed, size - 4096, 4096)?;
    Ok("the first MiB and the last sectors were written, flushed and read back".into())
}

fn becomes_zero(
    disk: &Disk,
    seed: u64,
    offset: u64,
    erase: impl FnOnce(&Disk, u64, u64) -> Result<()>,
) -> Result<String> {
    let mut data = vec![0; 1 << 20];
    pattern::fill(seed, offset, &mut data);
    disk.write(offset, &data)?;
    disk.flush()?;
    erase(disk, offset, MIB)?;
    same(&disk.read(offset, 1 << 20)?, &vec![0; 1 << 20], offset)?;
    Ok("1 MiB reads as zeros".into())
}

/// Several threads read and write at random places at once, each comparing with what it knows to be there.
fn parallel(disk: &Disk, seed: u64) -> Result<String> {
    let moved = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..WORKERS).map(|worker| scope.spawn(move || work(disk, seed, worker))).collect();
        workers.into_iter().try_fold(0, |moved, worker| {
            let bytes = worker.join().map_err(|_| anyhow!("a worker panicked"))??;
            anyhow::Ok(moved + bytes)
        })
    })?;
    Ok(format!("{WORKERS} threads moved {moved} bytes"))
}

/// One system call with many requests, of which all are in the queue before the device is told of any: without merging,
/// Linux collects up to 32 and then submits them at once.
fn batch(disk: &Disk, seed: u64) -> Result<String> {
    disk.set_attribute("queue/nomerges", "2")?;
    let mut data = vec![0; BATCH];
    pattern::fill(seed, FIRST_REGION, &mut data);
    disk.write(FIRST_REGION, &data).context("write")?;
    same(&disk.read(FIRST_REGION, BATCH)?, &data, FIRST_REGION)?;
    Ok(format!("{BATCH} bytes were written and read by one call each"))
}

fn work(disk: &Disk, seed: u64, worker: u64) -> Result<usize> {
    let start = FIRST_REGION + worker * REGION;
    let mut known = disk.read(start, usize::try_from(REGION)?)?;
    let mut moved = known.len();
    for round in 0..ROUNDS {
        let mut choice = [0; 16];
        pattern::fill(seed + worker + 1, round * 16, &mut choice);
        let (place, data) = random_range(choice, known.len())?;
        if choice[15] % 4 == 0 {
            same(&disk.read(start + place as u64, data)?, &known[place..place + data], start)?;
        } else {
            pattern::fill(seed + round, start + place as u64, &mut known[place..place + data]);
            disk.write(start + place as u64, &known[place..place + data])?;
        }
        moved += data;
    }
    same(&disk.read(start, known.len())?, &known, start)?;
    Ok(moved + known.len())
}

/// A range of sectors, up to 512 KiB: larger than one segment may be.
fn random_range(choice: [u8; 16], size: usize) -> Result<(usize, usize)> {
    let sector = usize::try_from(SECTOR)?;
    let place = usize::from(u16::from_le_bytes([choice[0], choice[1]])) % (size / sector) * sector;
    let length = (usize::from(u16::from_le_bytes([choice[2], choice[3]])) % 1024 + 1) * sector;
    Ok((place, length.min(size - place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ranges_stay_inside() {
        for seed in 0..200 {
            let mut choice = [0; 16];
            pattern::fill(seed, 0, &mut choice);
            let (place, length) = random_range(choice, 2 << 20).unwrap();
            assert!(length > 0 && place + length <= 2 << 20);
            assert_eq!((place % 512, length % 512), (0, 0));
        }
    }
}
