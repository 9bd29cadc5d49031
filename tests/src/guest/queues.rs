// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several queues of a device, each used by a CPU of its own.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};

use super::machine::{self, names};
use super::options::Options;
use super::report::Report;
use super::{cpus, pci};

/// What a CPU reads: more than one request.
const LENGTH: usize = 1 << 20;

pub(super) fn run(options: &Options, report: &Report) {
    report.check("queues-vda", || disk(options));
    report.check("queues-eth0", || network(options));
}

/// Each CPU reads the disk past the page cache, and the interrupt of its queue comes.
fn disk(options: &Options) -> Result<String> {
    let wanted = options.number("queues")?.context("cvmm.queues is not given")?;
    let queues = names("/sys/block/vda/mq").len() as u64;
    ensure!(queues == wanted, "vda has {queues} queues, but there should be {wanted}");
    let virtio = fs::canonicalize("/sys/block/vda/device").context("/sys/block/vda/device")?;
    let virtio = virtio.file_name().context("vda has no device")?.to_string_lossy().into_owned();
    let mut seen = Vec::new();
    for (cpu, queue) in cpus::cpus()?.into_iter().zip(0..wanted) {
        let name = format!("{virtio}-req.{queue}");
        let before = pci::count(&name)?;
        cpus::on(cpu, read_directly)?;
        let came = pci::count(&name)? - before;
        ensure!(came > 0, "CPU {cpu} read, and no interrupt of {name} came");
        seen.push(format!("{name} {came}"));
    }
    Ok(seen.join(", "))
}

fn read_directly() -> Result<()> {
    let mut disk: File = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open("/dev/vda")?;
    // O_DIRECT wants a buffer at a multiple of the sector's size.
    let mut buffer = vec![0_u8; LENGTH + 4096];
    let start = buffer.as_ptr().align_offset(4096);
    disk.read_exact(&mut buffer[start..start + LENGTH]).context("/dev/vda")
}

/// The driver has as many pairs of queues as there are, for its CPUs: it asked for them with the control queue.
fn network(options: &Options) -> Result<String> {
    let wanted = options.number("queues")?.context("cvmm.queues is not given")?;
    let queues = names("/sys/class/net/eth0/queues");
    let count = |kind: &str| queues.iter().filter(|name| name.starts_with(kind)).count() as u64;
    ensure!((count("rx-"), count("tx-")) == (wanted, wanted), "eth0 has {queues:?}");
    let device = machine::virtio_devices()?.into_iter().find(|device| device.id == 1);
    let virtio = device.context("no network device has a driver")?.virtio;
    let per_pair = |pair| {
        let input = pci::count(&format!("{virtio}-input.{pair}"))?;
        Ok(format!("pair {pair}: {input} received, {} sent", pci::count(&format!("{virtio}-output.{pair}"))?))
    };
    Ok((0..wanted).map(per_pair).collect::<Result<Vec<_>>>()?.join(", "))
}
