// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel says about the machine: its log, its memory map, the pool in the device tree, the virtio devices.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

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
    pub(super) top_level: bool,
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
        top_level: !range.starts_with(' '),
    })
}

/// The RAM in /proc/iomem, in order of address, with neighbours joined.
pub(super) fn ram() -> Result<Vec<Range<u64>>> {
    let mut ram: Vec<Range<u64>> = Vec::new();
    for entry in iomem()?.into_iter().filter(|entry| entry.top_level && entry.name == "System RAM") {
        match ram.last_mut() {
            Some(last) if last.end == entry.range.start => last.end = entry.range.end,
            _ => ram.push(entry.range),
        }
    }
    Ok(ram)
}

/// The pool as the host told it (`cvmm.pool=BASE,SIZE`), else as the device tree describes it.
pub(super) fn pool(options: &Options) -> Result<Range<u64>> {
    let (base, size) = match options.list("pool")[..] {
        [base, size] => (options::number(base)?, options::number(size)?),
        [] => device_tree_pool()?,
        _ => return Err(anyhow!("cvmm.pool must be BASE,SIZE")),
    };
    let end = base.checked_add(size).filter(|_| size > 0);
    Ok(base..end.with_context(|| format!("no such pool: base {base:#x}, size {size:#x}"))?)
}

fn device_tree_pool() -> Result<(u64, u64)> {
    let folder = "/proc/device-tree/reserved-memory";
    let node = names(folder)
        .into_iter()
        .map(|name| format!("{folder}/{name}"))
        .find(|node| text(format!("{node}/compatible")).is_ok_and(|value| value == "restricted-dma-pool"))
        .context("the device tree has no restricted-dma-pool below /reserved-memory")?;
    let reg = fs::read(format!("{node}/reg")).with_context(|| format!("{node}/reg"))?;
    ensure!(reg.len() == 16, "{node}/reg has {} bytes; two cells of base and two of size make 16", reg.len());
    let cells = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    Ok((cells(&reg[..8]), cells(&reg[8..])))
}

/// A virtio device behind virtio-mmio that has a driver.
#[derive(Debug, Clone)]
pub(super) struct VirtioDevice {
    /// Name of the platform device, as in the kernel's log and in `driver/bind`.
    pub(super) platform: String,
    /// The type of device: 1 net, 2 blk, 4 rng.
    pub(super) id: u64,
    /// Name on the virtio bus, `virtioN`.
    pub(super) virtio: String,
}

/// Folder of the driver that knows the transport: names of its devices, `bind`, `unbind`.
pub(super) const MMIO_DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

pub(super) fn virtio_devices() -> Result<Vec<VirtioDevice>> {
    let mut devices = Vec::new();
    for platform in names(MMIO_DRIVER) {
        let folder = format!("{MMIO_DRIVER}/{platform}");
        let virtio = names(&folder)
            .into_iter()
            .find(|name| name.strip_prefix("virtio").is_some_and(|number| number.parse::<u32>().is_ok()));
        if let Some(virtio) = virtio {
            let id = number(format!("{folder}/{virtio}/device"))?;
            devices.push(VirtioDevice { platform, id, virtio });
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iomem_lines() {
        let ram = io_range("00100000-0fffffff : System RAM").unwrap();
        assert_eq!(ram.range, 0x10_0000..0x1000_0000);
        assert!(ram.top_level);
        let kernel = io_range("  01000000-01dfffff : Kernel code").unwrap();
        assert_eq!((kernel.name.as_str(), kernel.top_level), ("Kernel code", false));
        assert_eq!(io_range("nonsense"), None);
    }
}
