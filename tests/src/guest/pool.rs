// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel made the restricted pool where the host put it, gives its memory to nobody else, and lets each device use it.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};

use super::machine::{self, number};
use super::options::{self, Options};
use super::report::Report;
use crate::bench::io::load::{Lock, Pool};

/// swiotlb hands out slots of 2 KiB.
const SLOT: u64 = 2048;
const PAGE: u64 = 4096;

pub(super) fn run(options: &Options, report: &Report) {
    let each = |check: fn(&Range<u64>) -> Result<String>| {
        let seen: Result<Vec<_>> = machine::pools(options)?.iter().map(check).collect();
        Ok(seen?.join("; "))
    };
    report.check("pool-created", || each(created));
    report.check("pool-assigned", assigned);
    report.check("pool-is-ram", || each(is_ram));
    report.check("pool-is-reserved", || each(is_reserved));
    report.check("pool-slots", || slots(&machine::pools(options)?));
    report.check("pool-used", used);
}

/// The pool was too small at some time, in the kernel's own words.
pub(super) fn run_full(_: &Options, report: &Report) {
    report.check("pool-was-full", || {
        let log = machine::kernel_log()?;
        let line = log.iter().find(|line| line.contains("swiotlb buffer is full"));
        Ok(format!("{}; {}", line.context("the kernel's log has no such line")?, used()?))
    });
}

fn created(pool: &Range<u64>) -> Result<String> {
    let log = machine::kernel_log()?;
    let wanted = (pool.start, (pool.end - pool.start) >> 20);
    let mut lines = log.iter().filter(|line| line.contains("created restricted DMA pool "));
    let line = lines.clone().find(|line| created_numbers(line) == Some(wanted));
    if let Some(line) = line {
        return Ok(line.clone());
    }
    let (base, size) = wanted;
    match lines.next() {
        None => bail!("the kernel's log has no 'created restricted DMA pool'"),
        Some(line) => bail!("'{line}', but there should be one at {base:#x}, size {size} MiB"),
    }
}

/// Base in bytes and size in MiB from "... pool at 0x0000000010000000, size 64 MiB", or, where ACPI describes the pool,
/// from "... pool [mem 0x10000000-0x13ffffff]".
fn created_numbers(line: &str) -> Option<(u64, u64)> {
    if let Some((_, range)) = line.split_once(" pool [mem ") {
        let (first, last) = range.split([']', ' ']).next()?.split_once('-')?;
        let (first, last) = (options::number(first).ok()?, options::number(last).ok()?);
        return Some((first, (last + 1 - first) >> 20));
    }
    let (base, size) = line.split_once(" pool at ")?.1.split_once(", size ")?;
    Some((options::number(base).ok()?, size.strip_suffix(" MiB")?.parse().ok()?))
}

/// How the kernel names a device's pool: by device tree, by ACPI, and if it is the default one of either.
const ASSIGNED: [&str; 3] = [
    ": assigned reserved memory node ",
    ": assigned restricted DMA pool ",
    ": assigned default restricted DMA pool ",
];

/// Device and pool, if `line` of the kernel's log says that the device got one.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (device, pool) = ASSIGNED.iter().find_map(|text| line.split_once(text))?;
    // A driver's name may stand before the device's.
    Some((device.rsplit(' ').next()?, pool.trim()))
}

/// The kernel goes on with ordinary memory when it cannot use the pool, so each device is looked for by name.
fn assigned() -> Result<String> {
    let log = machine::kernel_log()?;
    let devices = machine::virtio_devices()?;
    ensure!(!devices.is_empty(), "no virtio device has a driver");
    let mut seen = Vec::new();
    for device in devices {
        let pool = log
            .iter()
            .filter_map(|line| assignment(line))
            .find(|(name, _)| *name == device.parent)
            .map(|(_, pool)| pool)
            .with_context(|| format!("the kernel's log assigns no pool to {}", device.parent))?;
        seen.push(format!("{} {pool}", device.parent));
    }
    Ok(format!("each virtio device has a pool: {}", seen.join(", ")))
}

fn is_ram(pool: &Range<u64>) -> Result<String> {
    let ram = machine::ram()?;
    let around =
        ram.iter().find(|range| range.start <= pool.start && pool.end <= range.end).with_context(|| {
            format!("/proc/iomem has no RAM from {:#x} to {:#x}; RAM is {ram:x?}", pool.start, pool.end)
        })?;
    Ok(format!("inside RAM from {:#x} to {:#x}", around.start, around.end))
}

/// A pool that nobody reserved works, until the page allocator hands out the same memory. Its pages must have the flag
/// of pages that the allocator never got.
fn is_reserved(pool: &Range<u64>) -> Result<String> {
    const RESERVED: u64 = 1 << 32;
    let pages = (pool.end - pool.start) / PAGE;
    let mut flags = vec![0; usize::try_from(pages * 8)?];
    File::open("/proc/kpageflags")
        .and_then(|file| file.read_exact_at(&mut flags, pool.start / PAGE * 8))
        .context("/proc/kpageflags")?;
    let first_free = flags.chunks_exact(8).position(|entry| {
        let entry = entry.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        entry & RESERVED == 0
    });
    if let Some(page) = first_free {
        bail!("the page at {:#x} belongs to the page allocator", pool.start + page as u64 * PAGE);
    }
    Ok(format!("all {pages} pages are kept from the page allocator"))
}

/// Of each pool that a device has.
fn slots(pools: &[Range<u64>]) -> Result<String> {
    let mut wanted: Vec<u64> = pools.iter().map(|pool| (pool.end - pool.start) / SLOT).collect();
    for folder in debugfs_folders()? {
        let slots = number(format!("{folder}/io_tlb_nslabs"))?;
        let place = wanted.iter().position(|wanted| *wanted == slots);
        let place = place.with_context(|| {
            format!("{folder}: {slots} slots of 2 KiB, but pools have room for {wanted:?}")
        })?;
        wanted.remove(place);
    }
    Ok("as many slots of 2 KiB as have room".into())
}

fn used() -> Result<String> {
    let mut seen = Vec::new();
    for folder in debugfs_folders()? {
        let used = number(format!("{folder}/io_tlb_used"))?;
        let most = number(format!("{folder}/io_tlb_used_hiwater"))?;
        ensure!(used > 0, "{folder}: no slot is used: not even the rings are in the pool");
        ensure!(most >= used, "{folder}: {used} slots are used, but at most {most} ever were");
        seen.push(format!("{used} slots used now, {most} at most"));
    }
    Ok(seen.join("; "))
}

/// Slots of the pool that are used now.
pub(super) fn slots_used() -> Result<u64> {
    number(format!("{}/io_tlb_used", debugfs_folder()?))
}

/// What Linux counted of the first device's bounce buffer, and of the locks of all.
#[derive(Debug)]
pub(super) struct Counts {
    folder: Option<String>,
    full: u64,
    lock: Option<Lock>,
}

impl Counts {
    /// Begins to count.
    pub(super) fn begin() -> Self {
        // Without a pool of its own a device may use the one that `swiotlb=force` makes.
        let folder = debugfs_folder().ok().or_else(|| Some("/sys/kernel/debug/swiotlb".to_owned()));
        let folder = folder.filter(|folder| number(format!("{folder}/io_tlb_nslabs")).is_ok());
        if let Some(folder) = &folder {
            // 0 is the only number that it takes; where it can't be set, the most since boot is what is told.
            let _ = fs::write(format!("{folder}/io_tlb_used_hiwater"), "0");
        }
        Self { folder, full: times_full(), lock: locks() }
    }

    /// What was counted since.
    pub(super) fn end(self) -> (Option<Pool>, Option<Lock>) {
        let pool = self.folder.and_then(|folder| {
            let slots = number(format!("{folder}/io_tlb_nslabs")).ok()?;
            let most = number(format!("{folder}/io_tlb_used_hiwater")).ok()?;
            Some(Pool { slots, most, full: times_full().saturating_sub(self.full) })
        });
        let lock = locks().zip(self.lock).map(|(now, before)| Lock {
            acquired: now.acquired.saturating_sub(before.acquired),
            contended: now.contended.saturating_sub(before.contended),
        });
        (pool, lock)
    }
}

/// Has the kernel count what is done with locks, if it can.
pub(super) fn count_locks() {
    // Without CONFIG_LOCK_STAT there is no such file.
    let _ = fs::write("/proc/sys/kernel/lock_stat", "1");
}

fn locks() -> Option<Lock> {
    locks_in(&fs::read_to_string("/proc/lock_stat").ok()?)
}

/// The lines of the areas' locks: name, con-bounces, contentions, four waiting times, acq-bounces, acquisitions, ...
/// (Linux, Documentation/locking/lockstat.rst). A lock that was never waited for has no line.
fn locks_in(text: &str) -> Option<Lock> {
    let mut lines = text.lines();
    lines.find(|line| line.starts_with("lock_stat version"))?;
    let areas = lines.filter_map(|line| {
        let (name, numbers) = line.rsplit_once(':')?;
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        let (contended, acquired) = (numbers.get(1)?.parse().ok()?, numbers.get(7)?.parse().ok()?);
        name.contains("areas[i].lock").then_some(Lock { acquired, contended })
    });
    Some(areas.fold(Lock { acquired: 0, contended: 0 }, |sum, one| Lock {
        acquired: sum.acquired + one.acquired,
        contended: sum.contended + one.contended,
    }))
}

/// How often a bounce buffer had no room, in the kernel's own words: a line each time, of which some are left out and
/// counted in the next.
fn times_full() -> u64 {
    let log = machine::kernel_log().unwrap_or_default();
    log.iter().map(|line| times_full_in(line)).sum()
}

fn times_full_in(line: &str) -> u64 {
    match line.split_once(" callbacks suppressed") {
        Some((before, _)) if before.contains("swiotlb") => {
            before.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
        }
        _ => u64::from(line.contains("swiotlb buffer is full")),
    }
}

/// The pool's folder in debugfs has the name of its node in the device tree. Where it is depends on whether the first
/// device came before debugfs' turn at boot.
/// That of the first device that was given a pool, with a driver or without.
fn debugfs_folder() -> Result<String> {
    let log = machine::kernel_log()?;
    let pool = log.iter().find_map(|line| assignment(line).map(|(_, pool)| pool));
    folder_of(pool.context("the kernel's log assigns no pool to any device")?)
}

/// One for each pool that a device with a driver has.
fn debugfs_folders() -> Result<Vec<String>> {
    let (log, devices) = (machine::kernel_log()?, machine::virtio_devices()?);
    let assigned = log.iter().filter_map(|line| assignment(line));
    let mut pools: Vec<&str> = assigned
        .filter(|(name, _)| devices.iter().any(|device| device.parent == *name))
        .map(|(_, pool)| pool)
        .collect();
    pools.sort_unstable();
    pools.dedup();
    ensure!(!pools.is_empty(), "the kernel's log assigns no pool to any device with a driver");
    pools.into_iter().map(folder_of).collect()
}

fn folder_of(pool: &str) -> Result<String> {
    ["/sys/kernel/debug", "/sys/kernel/debug/swiotlb"]
        .iter()
        .map(|parent| format!("{parent}/{pool}"))
        .find(|folder| fs::metadata(format!("{folder}/io_tlb_nslabs")).is_ok())
        .with_context(|| format!("debugfs has no folder '{pool}' with io_tlb_nslabs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_created_message() {
        let line = "Reserved memory: created restricted DMA pool at 0x0000000010000000, size 64 MiB";
        assert_eq!(created_numbers(line), Some((0x1000_0000, 64)));
        assert_eq!(created_numbers("created restricted DMA pool somewhere"), None);
        let line = "acpi PRP0001:00: created restricted DMA pool [mem 0x06000000-0x067fffff]";
        assert_eq!(created_numbers(line), Some((0x600_0000, 8)));
    }

    #[test]
    fn lines_of_the_log_and_of_lock_stat() {
        let lines = [
            "virtio_blk virtio0: swiotlb buffer is full (sz: 65536 bytes), total 512 (slots), used 512 (slots)",
            "swiotlb_tbl_map_single: 12 callbacks suppressed",
            "net_ratelimit: 3 callbacks suppressed",
        ];
        assert_eq!(lines.map(times_full_in), [1, 12, 0]);
        let text = "lock_stat version 0.4\n class name con-bounces contentions\n\n \
                    &mem->areas[i].lock:  3  5  0.1 2.0 9.0 1.8  40  5000  0.2 3.0 900.0 0.2\n \
                    -------------------\n &mem->areas[i].lock  5 [<0>] swiotlb_find_slots+0x1\n \
                    &other:  9  9  0.1 2.0 9.0 1.8  40  7000  0.2 3.0 900.0 0.2\n";
        assert_eq!(locks_in(text), Some(Lock { acquired: 5000, contended: 5 }));
        assert_eq!(locks_in("nothing"), None);
    }

    #[test]
    fn a_device_and_its_pool() {
        let line = "virtio-pci 0000:00:01.0: assigned restricted DMA pool PRP0001:00";
        assert_eq!(assignment(line), Some(("0000:00:01.0", "PRP0001:00")));
        let line = "virtio-mmio d0000000.virtio: assigned reserved memory node pool@6000000";
        assert_eq!(assignment(line), Some(("d0000000.virtio", "pool@6000000")));
        assert_eq!(assignment("nothing"), None);
    }
}
