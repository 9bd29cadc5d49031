// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's only program, /init of its initramfs: makes assertions about the machine and prints one line for each.
//!
//! The host chooses by words on the kernel's command line:
//!
//! | word | meaning |
//! |---|---|
//! | `cvmm.test=queues,acpi,pci,msix,intx,pool,cpus,mem,blk,net,rng,reach,reach-net,full,hostile,io,input` | what to assert, in this order; `none` for nothing. Without the word: what is harmless on any disk |
//! | `cvmm.pool=BASE,SIZE` | where the pool must be; without it the device tree is believed |
//! | `cvmm.cpus=N`, `cvmm.mem=BYTES` | how many CPUs, how much memory there must be |
//! | `cvmm.blk=vda:rw,vdb:ro,vdc:raw` | what to do with each disk, see `guest/blk` |
//! | `cvmm.reach=mmio,pci`, `cvmm.reach-net=mmio,pci` | of which transports `reach` tries the disk, `reach-net` the network |
//! | `cvmm.serial=vda:TEXT` | the serial number a disk must have |
//! | `cvmm.net=ADDRESS/BITS,peer=ADDRESS,port=N,bytes=N` | address of the guest, the host's end, the MTU (`mtu=N`), see `guest/net` |
//! | `cvmm.hostile=vda` | the disk whose device is driven against the rules, see `guest/hostile` |
//! | `cvmm.queues=N` | how many queues the first disk and the first network device must have |
//! | `cvmm.io=disk\|bounce\|contend` | the loads of `io` |
//! | `cvmm.input=BYTES` | how much the host sends to the console, see `guest/input` |
//! | `cvmm.seed=N` | seed of all bytes that are written and expected |
//! | `cvmm.end=poweroff\|reset\|panic\|hang\|idle\|write` | how to end, see `guest/end` |
//!
//! Output: `guest-init: started`, then `ok NAME: what was seen` or `FAIL NAME: what was wrong` for each assertion, then
//! `guest-init: N passed, N failed`.

mod acpi;
mod blk;
mod cpus;
mod end;
mod hostile;
mod input;
mod io;
mod machine;
mod memory;
mod net;
mod options;
mod pci;
mod physical;
mod pool;
mod queues;
mod report;
mod rng;
mod start;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::bail;

use crate::modules;

use options::Options;
use report::{Report, say};

type Scenario = fn(&Options, &Report);

const SCENARIOS: [(&str, Scenario); 17] = [
    ("queues", queues::run),
    ("acpi", acpi::run),
    ("pci", pci::run),
    ("msix", pci::run_msix),
    ("intx", pci::run_intx),
    ("pool", pool::run),
    ("cpus", cpus::run),
    ("mem", memory::run),
    ("blk", blk::run),
    ("net", net::run),
    ("rng", rng::run),
    ("reach", blk::run_reach),
    ("reach-net", net::run_reach),
    ("full", pool::run_full),
    ("hostile", hostile::run),
    ("io", io::run),
    ("input", input::run),
];

/// Runs as /init: does what the command line says and ends the machine.
pub fn main() -> ! {
    say("guest-init: started");
    let report = Report::default();
    let options = catch_unwind(AssertUnwindSafe(|| assertions(&report))).unwrap_or_else(|panic| {
        report.check("guest-init", || bail!("panicked: {}", report::panic_text(panic.as_ref())));
        Options::default()
    });
    if report.failed() > 0 {
        explain();
    }
    say(&format!("guest-init: {} passed, {} failed", report.passed(), report.failed()));
    let Err(error) = end::end(&options);
    say(&format!("FAIL end: {error:#}"));
    end::power_off()
}

fn assertions(report: &Report) -> Options {
    if let Err(error) = start::file_systems() {
        report.check("file-systems", || Err(error));
    }
    start::quieten_kernel();
    // Of a distribution's kernel, which has few drivers in it.
    if Path::new(modules::FOLDER).exists()
        && let Err(error) = modules::load()
    {
        report.check("modules", || Err(error));
    }
    let command_line = machine::text("/proc/cmdline").unwrap_or_default();
    let options = Options::parse(&command_line);
    for word in words(&options) {
        match SCENARIOS.iter().find(|(name, _)| *name == word) {
            Some((_, run)) => run(&options, report),
            None => {
                report.check(&word, || bail!("no such scenario in cvmm.test"));
            }
        }
    }
    options
}

/// The scenarios asked for, else those for which there are devices.
fn words(options: &Options) -> Vec<String> {
    match options.get("test") {
        Some("none") => Vec::new(),
        Some(_) => options.list("test").into_iter().map(str::to_owned).collect(),
        None => {
            let devices = machine::virtio_devices().unwrap_or_default();
            // Without a device nobody uses the pool.
            let pool = if devices.is_empty() { None } else { Some("pool".to_owned()) };
            let mut words: Vec<_> = pool.into_iter().chain(["cpus".to_owned()]).collect();
            for device in devices {
                let word = match device.id {
                    1 => "net",
                    2 => "blk",
                    4 => "rng",
                    _ => continue,
                };
                if !words.iter().any(|have| have == word) {
                    words.push(word.to_owned());
                }
            }
            words
        }
    }
}

/// After a failure: the kernel's last words.
fn explain() {
    let log = machine::kernel_log().unwrap_or_default();
    for line in &log[log.len().saturating_sub(20)..] {
        say(&format!("guest-init: kernel: {line}"));
    }
}
