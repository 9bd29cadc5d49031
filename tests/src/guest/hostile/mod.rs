// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver that breaks the rules: `cvmm.hostile=vda,net,rng`.
//!
//! It takes all virtio devices away from their drivers, so that nobody else uses the pool, and drives one after the other
//! through /dev/mem: each request that leaves the pool must be refused, without a byte moved, and a reset must bring the
//! device back. Then the drivers get their devices back, and those must work. A disk named here holds
//! [`pattern`](crate::pattern) in its first 64 KiB.

mod bench;
mod blk;
mod queues;
mod registers;
mod request;
mod simple;

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::blk::{holds_pattern, seed};
use super::machine::{self, MMIO_DRIVER, VirtioDevice};
use super::options::Options;
use super::report::Report;
use super::{pool, rng};
use bench::Bench;
use registers::Registers;

/// A device to be driven.
struct Target {
    /// `vda`, `net` or `rng`.
    name: String,
    device: VirtioDevice,
    registers: Registers,
}

pub(super) fn run(options: &Options, report: &Report) {
    let (mut devices, mut targets) = (Vec::new(), Vec::new());
    let found = report.check("hostile-devices", || {
        devices = machine::virtio_devices()?;
        targets =
            options.list("hostile").into_iter().map(|name| target(name, &devices)).collect::<Result<_>>()?;
        ensure!(!targets.is_empty(), "cvmm.hostile names no device");
        Ok(format!("{} of {} devices", targets.len(), devices.len()))
    });
    if !found {
        return;
    }
    if report.check("hostile-unbind", || unbind(&devices)) {
        drive_all(&targets, options, report);
    }
    report.check("hostile-rebind", || rebind(&devices));
    for target in &targets {
        report.check(&format!("hostile-{}-works-again", target.name), || works(target, options));
    }
}

fn target(name: &str, devices: &[VirtioDevice]) -> Result<Target> {
    let device = match name {
        "net" => devices.iter().find(|device| device.id == 1),
        "rng" => devices.iter().find(|device| device.id == 4),
        disk => {
            let folder =
                fs::canonicalize(format!("/sys/block/{disk}/device")).with_context(|| disk.to_owned())?;
            devices.iter().find(|device| folder.ends_with(&device.virtio))
        }
    };
    let device = device.with_context(|| format!("no virtio-mmio device is {name}"))?.clone();
    Ok(Target { name: name.to_owned(), registers: Registers::of(&device)?, device })
}

fn unbind(devices: &[VirtioDevice]) -> Result<String> {
    for device in devices {
        fs::write(format!("{MMIO_DRIVER}/unbind"), &device.parent).with_context(|| device.parent.clone())?;
    }
    let used = pool::slots_used()?;
    ensure!(used == 0, "{used} slots of the pool are still used by somebody");
    Ok("no device has a driver, the pool is empty".into())
}

fn drive_all(targets: &[Target], options: &Options, report: &Report) {
    let mut bench = None;
    report.check("hostile-bench", || {
        bench = Some(Bench::new(machine::pool(options)?)?);
        Ok("the pool and two pages of private memory are mapped".into())
    });
    let Some(bench) = bench else { return };
    for Target { name, device, registers } in targets {
        let label = format!("hostile-{name}");
        queues::run(&label, &bench, registers, report);
        match device.id {
            1 => simple::run(&label, &bench, registers, &simple::NET, report),
            2 => blk::run(&label, &bench, registers, seed(options), report),
            4 => simple::run(&label, &bench, registers, &simple::RNG, report),
            _ => {}
        }
        // its driver must not find a device that still knows our queues
        report.check(&format!("{label}-reset"), || registers.reset().map(|()| "done".into()));
    }
}

/// In the same order as at boot, so that the disks get the same names.
fn rebind(devices: &[VirtioDevice]) -> Result<String> {
    for device in devices {
        fs::write(format!("{MMIO_DRIVER}/bind"), &device.parent).with_context(|| device.parent.clone())?;
    }
    let back = machine::virtio_devices()?.len();
    ensure!(back == devices.len(), "{back} of {} devices have their driver back", devices.len());
    Ok(format!("{back} devices"))
}

fn works(target: &Target, options: &Options) -> Result<String> {
    match target.device.id {
        1 => {
            let interfaces = machine::names("/sys/class/net");
            let found = interfaces.into_iter().find(|name| name != "lo").context("no network interface")?;
            Ok(format!("{found} is there"))
        }
        2 => {
            holds_pattern(&target.name, seed(options), 0, 64 * 1024)?;
            Ok("64 KiB read".into())
        }
        4 => rng::bytes(),
        other => bail!("device type {other} is not known here"),
    }
}
