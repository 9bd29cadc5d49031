// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel says about the machine: its log, its memory map, the pool in the device tree, the virtio devices.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};

use super::options::{self, Options};

/// The text of a file in proc, sysfs or debugfs, without the final newline.
pub(super) fn text(path: impl Into<PathBuf>) -> Result<String> {
    let path = path.into();
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim_end_matches(['\n', '\0']).to_owned())
}

/// A number from a file, decimal or `0x` hexadecimal.
pub(super) fn number(path: impl Into<PathBuf>) -> Result<u64> {
    let path = path.into();
    options::number(text(&path)?.trim()).with_context(|| path.display().to_string())
}

/// The names in a folder, sorted; none if there is no such folder.
pub(super) fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The kernel's log so far, one message a line, from /dev/kmsg.
pub(super) fn kernel_log() -> Result<Vec<String>> {
    let mut device = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("/dev/kmsg")?;
    let mut lines = Vec::new();
    let mut record = [0; 8192];
    loop {
        match device.read(&mut record) {
            Ok(length) => {
                // "priority,sequence,time,flags;message", then lines of properties
                let record = String::from_utf8_lossy(&record[..length]).into_owned();
                let message = record.split_once(';').map_or(record.as_str(), |(_, message)| message);
                lines.push(message.lines().next().unwrap_or_default().to_owned());
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(lines),
            // the record was overwritten while we read: the next read goes on with the oldest that is left
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) => return Err(error).context("/dev/kmsg"),
        }
    }
}

/// An entry of /proc/iomem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IoRange {
    pub(super) range: Range<u64>,
    pub(super) name: String,
}

pub(super) fn iomem() -> Result<Vec<IoRange>> {
    text("/proc/iomem")?
        .lines()
        .map(|line| io_range(line).with_context(|| format!("/proc/iomem: '{line}'")))
        .collect()
}

fn io_range(line: &str) -> Option<IoRange> {
    let (range, name) = line.split_once(" : ")?;
    let (first, last) = range.trim_start().split_once('-')?;
    Some(IoRange {
        range: u64::from_str_radix(first, 16).ok()?..u64::from_str_radix(last, 16).ok()?.checked_add(1)?,
        name: name.to_owned(),
    })
}

/// The RAM in /proc/iomem, in order of address, with neighbours joined. The RAM of a pool that ACPI describes is below the
/// entry of the pool's device.
pub(super) fn ram() -> Result<Vec<Range<u64>>> {
    let mut ram: Vec<Range<u64>> = Vec::new();
    for entry in iomem()?.into_iter().filter(|entry| entry.name == "System RAM") {
        match ram.last_mut() {
            Some(last) if last.end == entry.range.start => last.end = entry.range.end,
            _ => ram.push(entry.range),
        }
    }
    Ok(ram)
}

/// The pool as the host told it (`cvmm.pool=BASE,SIZE`), else the first one that the device tree or ACPI describes.
pub(super) fn pool(options: &Options) -> Result<Range<u64>> {
    pools(options)?.into_iter().next().context("there is no pool")
}

/// All pools: at least one.
pub(super) fn pools(options: &Options) -> Result<Vec<Range<u64>>> {
    let pools = match options.list("pool")[..] {
        [base, size] => vec![(options::number(base)?, options::number(size)?)],
        [] if names(RESERVED_MEMORY).is_empty() => acpi_pools()?,
        [] => device_tree_pools()?,
        _ => return Err(anyhow!("cvmm.pool must be BASE,SIZE")),
    };
    let range = |(base, size): (u64, u64)| {
        let end = base.checked_add(size).filter(|_| size > 0);
        Ok(base..end.with_context(|| format!("no such pool: base {base:#x}, size {size:#x}"))?)
    };
    pools.into_iter().map(range).collect()
}

const RESERVED_MEMORY: &str = "/proc/device-tree/reserved-memory";

/// Base and size of each.
fn device_tree_pools() -> Result<Vec<(u64, u64)>> {
    let nodes = names(RESERVED_MEMORY).into_iter().map(|name| format!("{RESERVED_MEMORY}/{name}"));
    let is_pool =
        |node: &String| text(format!("{node}/compatible")).is_ok_and(|value| value == "restricted-dma-pool");
    let range = |node: String| {
        let reg = fs::read(format!("{node}/reg")).with_context(|| format!("{node}/reg"))?;
        ensure!(
            reg.len() == 16,
            "{node}/reg has {} bytes; two cells of base and two of size make 16",
            reg.len()
        );
        let cells = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        Ok((cells(&reg[..8]), cells(&reg[8..])))
    };
    let pools: Vec<_> = nodes.filter(is_pool).map(range).collect::<Result<_>>()?;
    ensure!(!pools.is_empty(), "the device tree has no restricted-dma-pool below /reserved-memory");
    Ok(pools)
}

/// /proc/iomem shows the range of a PRP0001 device: of the devices that we describe, only the pools are such.
fn acpi_pools() -> Result<Vec<(u64, u64)>> {
    let pools = iomem()?.into_iter().filter(|entry| entry.name.starts_with("PRP0001"));
    let pools: Vec<_> = pools.map(|pool| (pool.range.start, pool.range.end - pool.range.start)).collect();
    ensure!(!pools.is_empty(), "/proc/iomem has no PRP0001 device");
    Ok(pools)
}

/// A virtio device that has a driver.
#[derive(Debug, Clone)]
pub(super) struct VirtioDevice {
    /// Name of the device on the bus below: platform device or PCI function, as in the kernel's log and in `driver/bind`.
    pub(super) parent: String,
    /// The driver of that device, which knows the transport: `virtio-mmio` or `virtio-pci`.
    pub(super) transport: String,
    /// The type of device: 1 net, 2 blk, 4 rng.
    pub(super) id: u64,
    /// Name on the virtio bus, `virtioN`.
    pub(super) virtio: String,
}

/// Folder of the virtio-mmio driver: names of its devices, `bind`, `unbind`.
pub(super) const MMIO_DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

pub(super) fn virtio_devices() -> Result<Vec<VirtioDevice>> {
    let folder = "/sys/bus/virtio/devices";
    let mut devices = Vec::new();
    for virtio in names(folder) {
        let device = format!("{folder}/{virtio}");
        if fs::metadata(format!("{device}/driver")).is_err() {
            continue;
        }
        let place = fs::canonicalize(&device).with_context(|| device.clone())?;
        let parent = place.parent().context("a virtio device without a parent")?;
        let driver = fs::read_link(parent.join("driver")).with_context(|| parent.display().to_string())?;
        devices.push(VirtioDevice {
            parent: last(parent)?,
            transport: last(&driver)?,
            id: number(format!("{device}/device"))?,
            virtio,
        });
    }
    devices.sort_by(|a, b| a.parent.cmp(&b.parent));
    Ok(devices)
}

/// The last part of a path.
fn last(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.with_context(|| path.display().to_string())?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iomem_lines() {
        let ram = io_range("00100000-0fffffff : System RAM").unwrap();
        assert_eq!(ram.range, 0x10_0000..0x1000_0000);
        let kernel = io_range("  01000000-01dfffff : Kernel code").unwrap();
        assert_eq!(kernel.name, "Kernel code");
        assert_eq!(io_range("nonsense"), None);
    }
}
