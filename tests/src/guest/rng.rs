// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The entropy device is the kernel's source of hardware randomness and gives bytes that look random.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::machine;
use super::options::Options;
use super::report::Report;

/// For 64 bytes: far more than it takes.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn run(_options: &Options, report: &Report) {
    report.check("rng-current", || {
        let current = machine::text("/sys/class/misc/hw_random/rng_current")?;
        ensure!(current.starts_with("virtio_rng"), "the kernel's source is '{current}', not virtio_rng");
        Ok(current)
    });
    report.check("rng-bytes", bytes);
}

pub(super) fn bytes() -> Result<String> {
    let (first, second) = (read()?, read()?);
    ensure!(first != second, "the same 64 bytes came twice");
    // 64 random bytes have about 57 different values; fewer than 32 is beyond any luck
    let different = first.iter().collect::<HashSet<_>>().len();
    ensure!(different >= 32, "64 bytes with only {different} different values: {first:02x?}");
    Ok(format!("64 bytes with {different} different values, then 64 others"))
}

/// The driver waits for ever for a device that has refused its queue, so the wait is bounded here.
fn read() -> Result<[u8; 64]> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        let result = File::open("/dev/hwrng").and_then(|mut file| file.read_exact(&mut bytes));
        // Nobody may wait any more.
        let _ = sender.send(result.map(|()| bytes));
    });
    let result = receiver.recv_timeout(LIMIT);
    let result = result.with_context(|| format!("/dev/hwrng: no bytes within {} s", LIMIT.as_secs()))?;
    result.context("/dev/hwrng")
}
