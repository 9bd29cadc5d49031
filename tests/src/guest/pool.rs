// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel made the restricted pool where the host put it, gives its memory to nobody else, and lets each device use it.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};

use super::machine::{self, number};
use super::options::{self, Options};
use super::report::Report;

/// swiotlb hands out slots of 2 KiB.
const SLOT: u64 = 2048;
const PAGE: u64 = 4096;

pub(super) fn run(options: &Options, report: &Report) {
    let pool = || machine::pool(options);
    report.check("pool-created", || created(&pool()?));
    report.check("pool-assigned", assigned);
    report.check("pool-is-ram", || is_ram(&pool()?));
    report.check("pool-is-reserved", || is_reserved(&pool()?));
    report.check("pool-slots", || slots(&pool()?));
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
    let line = log
        .iter()
        .find(|line| line.contains("created restricted DMA pool "))
        .context("the kernel's log has no 'created restricted DMA pool'")?;
    let (base, size) = created_numbers(line).with_context(|| format!("not understood: '{line}'"))?;
    let (wanted_base, wanted_size) = (pool.start, (pool.end - pool.start) >> 20);
    ensure!(
        (base, size) == (wanted_base, wanted_size),
        "'{line}', but it should be at {wanted_base:#x}, size {wanted_size} MiB"
    );
    Ok(line.clone())
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

fn slots(pool: &Range<u64>) -> Result<String> {
    let slots = number(format!("{}/io_tlb_nslabs", debugfs_folder()?))?;
    let wanted = (pool.end - pool.start) / SLOT;
    ensure!(slots == wanted, "{slots} slots of 2 KiB, but the pool has room for {wanted}");
    Ok(format!("{slots} slots of 2 KiB"))
}

fn used() -> Result<String> {
    let folder = debugfs_folder()?;
    let used = number(format!("{folder}/io_tlb_used"))?;
    let most = number(format!("{folder}/io_tlb_used_hiwater"))?;
    ensure!(used > 0, "no slot is used: not even the rings are in the pool");
    ensure!(most >= used, "{used} slots are used, but at most {most} ever were");
    Ok(format!("{used} slots used now, {most} at most"))
}

/// Slots of the pool that are used now.
pub(super) fn slots_used() -> Result<u64> {
    number(format!("{}/io_tlb_used", debugfs_folder()?))
}

/// The pool's folder in debugfs has the name of its node in the device tree. Where it is depends on whether the first
/// device came before debugfs' turn at boot.
fn debugfs_folder() -> Result<String> {
    let log = machine::kernel_log()?;
    let node = log
        .iter()
        .find_map(|line| assignment(line).map(|(_, pool)| pool.to_owned()))
        .context("the kernel's log assigns no pool to any device")?;
    ["/sys/kernel/debug", "/sys/kernel/debug/swiotlb"]
        .iter()
        .map(|parent| format!("{parent}/{node}"))
        .find(|folder| fs::metadata(format!("{folder}/io_tlb_nslabs")).is_ok())
        .with_context(|| format!("debugfs has no folder '{node}' with io_tlb_nslabs"))
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
    fn a_device_and_its_pool() {
        let line = "virtio-pci 0000:00:01.0: assigned restricted DMA pool PRP0001:00";
        assert_eq!(assignment(line), Some(("0000:00:01.0", "PRP0001:00")));
        let line = "virtio-mmio d0000000.virtio: assigned reserved memory node pool@6000000";
        assert_eq!(assignment(line), Some(("d0000000.virtio", "pool@6000000")));
        assert_eq!(assignment("nothing"), None);
    }
}
