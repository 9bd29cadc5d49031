// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! PCI as the kernel found it: functions where the host put them, and how their interrupts came.
//!
//! `msix` and `intx` come after what uses the devices: they count interrupts that have come.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::machine::{self, VirtioDevice, names, number, text};
use super::options::{self, Options};
use super::report::Report;

const DEVICES: &str = "/sys/bus/pci/devices";
const VIRTIO_VENDOR: u64 = 0x1af4;

pub(super) fn run(_options: &Options, report: &Report) {
    report.check("pci-host-bridge", host_bridge);
    report.check("pci-functions", functions);
    report.check("pci-modern", modern);
}

pub(super) fn run_msix(_options: &Options, report: &Report) {
    report.check("msix-vectors", || interrupts("msi"));
}

pub(super) fn run_intx(_options: &Options, report: &Report) {
    report.check("intx-lines", || interrupts("fasteoi"));
}

fn host_bridge() -> Result<String> {
    let class = number(format!("{DEVICES}/0000:00:00.0/class"))?;
    ensure!(class == 0x06_0000, "function 0000:00:00.0 has class {class:#x}, which is no host bridge");
    Ok("0000:00:00.0".to_owned())
}

/// Each virtio function has its one BAR, in the host bridge's window if the kernel knows one.
fn functions() -> Result<String> {
    let iomem = machine::iomem()?;
    let window = iomem.iter().find(|entry| entry.name == "PCI Bus 0000:00").map(|entry| entry.range.clone());
    let mut seen = Vec::new();
    for name in names(DEVICES) {
        if number(format!("{DEVICES}/{name}/vendor"))? != VIRTIO_VENDOR {
            continue;
        }
        let resources = text(format!("{DEVICES}/{name}/resource"))?;
        let mut bars = resources.lines().map(bar);
        let first = bars.next().flatten().with_context(|| format!("{name} has no BAR: {resources}"))?;
        ensure!(bars.all(|bar| bar == Some((0, 0))), "{name} has another BAR: {resources}");
        if let Some(window) = &window {
            ensure!(
                window.contains(&first.0) && window.contains(&first.1),
                "the BAR of {name} is at {:#x}, outside the host bridge's window {window:#x?}",
                first.0
            );
        }
        ensure!(
            iomem.iter().any(|entry| entry.name == name && entry.range == (first.0..first.1 + 1)),
            "/proc/iomem has no entry for the BAR of {name} at {:#x}",
            first.0
        );
        seen.push(format!("{name} at {:#x}-{:#x}", first.0, first.1));
    }
    ensure!(!seen.is_empty(), "there is no virtio function");
    let window = window.map_or("no window known".to_owned(), |window| {
        format!("window {:#x}-{:#x}", window.start, window.end - 1)
    });
    Ok(format!("{}; {window}", seen.join(", ")))
}

/// First and last address of a line of `resource`.
fn bar(line: &str) -> Option<(u64, u64)> {
    let mut numbers = line.split_whitespace().map(|word| options::number(word).ok());
    Some((numbers.next()??, numbers.next()??))
}

/// None is a transitional device, and each has a driver.
fn modern() -> Result<String> {
    let mut seen = Vec::new();
    for device in on_pci()? {
        let id = number(format!("{DEVICES}/{}/device", device.parent))?;
        ensure!(id == 0x1040 + device.id, "{} has device ID {id:#x}", device.parent);
        seen.push(format!("{} {id:#x} {}", device.parent, device.virtio));
    }
    ensure!(!seen.is_empty(), "no virtio function has a driver");
    Ok(seen.join(", "))
}

fn on_pci() -> Result<Vec<VirtioDevice>> {
    Ok(machine::virtio_devices()?.into_iter().filter(|device| device.transport == "virtio-pci").collect())
}

/// Each virtio function had interrupts of a controller whose name contains `controller`, and none of another kind.
fn interrupts(controller: &str) -> Result<String> {
    let table = fs::read_to_string("/proc/interrupts").context("/proc/interrupts")?;
    let mut seen = Vec::new();
    for device in on_pci()? {
        let lines: Vec<_> = table.lines().filter_map(|line| line_of(line, &device.virtio)).collect();
        if lines.is_empty() {
            bail!("{} has no line in /proc/interrupts:\n{table}", device.virtio);
        }
        for line in &lines {
            let kind = line.kind.to_lowercase();
            ensure!(kind.contains(controller), "{} has an interrupt of '{kind}'", device.virtio);
        }
        let count: u64 = lines.iter().map(|line| line.count).sum();
        ensure!(count > 0, "no interrupt of {} has come", device.virtio);
        seen.push(format!("{} {} in {} lines", device.virtio, count, lines.len()));
    }
    ensure!(!seen.is_empty(), "no virtio function has a driver");
    Ok(seen.join(", "))
}

/// How many interrupts have come on the lines that have this name.
pub(super) fn count(name: &str) -> Result<u64> {
    let table = fs::read_to_string("/proc/interrupts").context("/proc/interrupts")?;
    let lines: Vec<_> = table.lines().filter_map(|line| line_of(line, name)).collect();
    ensure!(!lines.is_empty(), "{name} has no line in /proc/interrupts:\n{table}");
    Ok(lines.iter().map(|line| line.count).sum())
}

/// A line of /proc/interrupts.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    count: u64,
    /// Controller and flow.
    kind: String,
}

/// The line, if it is one of `virtio`: "24: 5 0 PCI-MSIX-0000:00:01.0 1-edge virtio0-req.0", or a shared one.
fn line_of(line: &str, virtio: &str) -> Option<Line> {
    let rest = line.trim_start().split_once(':')?.1;
    let words: Vec<_> = rest.split_whitespace().collect();
    let counts = words.iter().take_while(|word| word.bytes().all(|byte| byte.is_ascii_digit())).count();
    let owner = |word: &&str| {
        let word = word.trim_end_matches(',');
        word == virtio || word.strip_prefix(virtio).is_some_and(|rest| rest.starts_with('-'))
    };
    let first = words.iter().position(owner).filter(|first| *first > counts)?;
    Some(Line {
        count: words[..counts].iter().filter_map(|word| word.parse::<u64>().ok()).sum(),
        kind: words[counts..first].join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_interrupts() {
        let line = " 66:   5   7  PCI-MSIX-0000:00:01.0    1-edge      virtio0-req.0";
        let wanted = Line { count: 12, kind: "PCI-MSIX-0000:00:01.0 1-edge".into() };
        assert_eq!(line_of(line, "virtio0"), Some(wanted));
        assert_eq!(line_of(line, "virtio"), None);
        let line = " 60:  3   IO-APIC  60-fasteoi   virtio0, virtio12";
        assert_eq!(
            line_of(line, "virtio12"),
            Some(Line { count: 3, kind: "IO-APIC 60-fasteoi virtio0,".into() })
        );
        assert_eq!(line_of(line, "virtio1"), None);
        assert_eq!(line_of("NMI: 0 Non-maskable interrupts", "virtio0"), None);
    }
}
