// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest sees the memory it was given, also the part above 4 GiB, and can use it.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::machine;
use super::options::Options;
use super::physical;
use super::report::Report;
use crate::pattern;

const MIB: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;

pub(super) fn run(options: &Options, report: &Report) {
    let size = || options.number("mem")?.context("the scenario mem needs cvmm.mem=BYTES");
    report.check("mem-map", || map(size()?));
    report.check("mem-total", || total(size()?, &machine::pool(options)?));
    report.check("mem-usable", usable);
}

/// All of it is in the map; what a machine loses are the holes below 1 MiB.
fn map(size: u64) -> Result<String> {
    let ram = machine::ram()?;
    let sum: u64 = ram.iter().map(|range| range.end - range.start).sum();
    ensure!(sum <= size && size - sum <= 2 * MIB, "RAM of {sum} bytes in {ram:x?}, but {size} were given");
    let high: u64 = ram.iter().map(|range| range.end.saturating_sub(range.start.max(FOUR_GIB))).sum();
    // how much fits below 4 GiB is up to the VMM, but not all of 4 GiB and more can
    ensure!(size < FOUR_GIB || high > 0, "no RAM above 4 GiB in {ram:x?}");
    Ok(format!("{} MiB of RAM, {} MiB of it above 4 GiB", sum / MIB, high / MIB))
}

/// What the page allocator manages: all but the pool, the kernel, and one struct page (64 bytes) for each page.
fn total(size: u64, pool: &Range<u64>) -> Result<String> {
    let meminfo = machine::text("/proc/meminfo")?;
    let kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .context("/proc/meminfo has no MemTotal")?;
    let total = kib * 1024;
    let most = size - (pool.end - pool.start);
    let least = most.saturating_sub(most / 32 + 48 * MIB);
    ensure!(
        (least..=most).contains(&total),
        "MemTotal is {total} bytes; without the pool it should be from {least} to {most}"
    );
    Ok(format!("{} MiB managed, {} MiB without the pool", total / MIB, most / MIB))
}

/// Memory comes from above 4 GiB first, if there is any: use some and see where it lay.
fn usable() -> Result<String> {
    let mut memory = vec![0; 32 << 20];
    pattern::fill(pattern::SEED, 0, &mut memory);
    let highest = memory
        .chunks(1 << 20)
        .map(physical::address_of)
        .try_fold(0, |highest, address| address.map(|address| highest.max(address)))?;
    let wrong =
        memory.iter().zip(pattern::bytes(pattern::SEED, memory.len())).position(|(is, was)| *is != was);
    ensure!(wrong.is_none(), "byte {wrong:?} of 32 MiB changed");
    let above = machine::ram()?.iter().any(|range| range.end > FOUR_GIB + 64 * MIB);
    ensure!(!above || highest >= FOUR_GIB, "no page above 4 GiB was used; the highest was {highest:#x}");
    Ok(format!("32 MiB written and read; the highest page was at {highest:#x}"))
}
