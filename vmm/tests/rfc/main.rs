// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--spec rfc` on this machine's KVM: a disk with its pool in BAR 2, driven by the guest of the matrix
//! (tests/hostile/src/guest/rfc.rs). What it sees from inside, and the report from outside.

#[path = "../matrix/program.rs"]
mod program;

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::process::{Command, Stdio};

use cvmm_hostile::guest::RFC_CASES;
use cvmm_hostile::table::{DISK_PATTERN, WRITTEN};
use serde_json::{Value, json};
use tempfile::TempDir;

use common::wait_for_end;

const DISK_BYTES: usize = 4096;
const SIZE: u64 = 2 << 20;
/// Where the disk's memory is at first: the top of the window.
const HOME: u64 = 0xcfe0_0000;

/// A run of the guest with `options` beside those of its machine: report, console, standard error, and the disk.
fn run(options: &[&str]) -> Option<(Value, String, String, Vec<u8>)> {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        common::not_tested("there is no /dev/kvm here");
        return None;
    }
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("disk"), [DISK_PATTERN; DISK_BYTES]).unwrap();
    let mut cvmm = Command::new(env!("CARGO_BIN_EXE_cvmm"));
    cvmm.args(["run", "--mem=36M", "--pool=size=2M,base=16M", "--spec=rfc", "--rng"]);
    cvmm.args([&format!("--blk=path={},transport=pci", path("disk")), "--rng=transport=pci"]).args(options);
    cvmm.args(["--cmdline=matrix=rfc", "--kernel"]).arg(program::guest());
    cvmm.args(["--report", &path("report"), "--console", &format!("file={}", path("console"))]);
    let mut child = cvmm.stdin(Stdio::null()).stderr(fs::File::create(path("log")).unwrap()).spawn().unwrap();
    let status = wait_for_end(&mut child);
    let text = |name| fs::read_to_string(path(name)).unwrap_or_default();
    let (console, log) = (text("console"), text("log"));
    assert_eq!(status.code(), Some(0), "{log}\n{console}");
    Some((serde_json::from_str(&text("report")).unwrap(), console, log, fs::read(path("disk")).unwrap()))
}

fn device<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["devices"].as_array().unwrap().iter().find(|device| device["name"] == name).unwrap()
}

#[test]
fn a_disk_is_driven_in_its_own_memory_and_nowhere_else() {
    let Some((report, console, log, disk)) = run(&[]) else { return };
    let failed: Vec<_> = console.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(console.lines().any(|line| line == format!("done: {RFC_CASES} cases")), "{console}");

    let blk = device(&report, "blk0");
    assert_eq!((&blk["pool"], &blk["transport"]), (&json!("blk0 device memory"), &json!("pci")));
    assert_eq!(blk["device_memory"], json!({"base": HOME, "size": SIZE}));
    assert_eq!(blk["features"]["restricted_dma_bit"], 27);
    assert_eq!(blk["features"]["accepted"].as_u64().unwrap() >> 27 & 1, 1);
    let addresses: Vec<_> = blk["refusals"].as_array().unwrap().iter().map(|one| &one["address"]).collect();
    let data = |pool: u64| json!(pool + 0x1_5000);
    let queue = |pool: u64| json!(pool + 0x1_0000);
    let (shared, private, other) = (16 << 20, 24 << 20, HOME - SIZE);
    let buffers = [shared, private, 0xc000_8000, other, HOME + SIZE, 0].map(data);
    let queues = [shared, private, other].map(queue);
    let moved = [data(0xc400_0000)];
    assert_eq!(addresses, buffers.iter().chain(&queues).chain(&moved).collect::<Vec<_>>());
    // Over RAM it named private memory once more.
    assert_eq!((&blk["refusals"][1]["count"], &blk["refused"]), (&json!(2), &json!(11)));
    assert_eq!(report["refused"], 11);

    // The shared pool is that of the device on mmio alone.
    assert_eq!(report["memory"]["pools"].as_array().unwrap().len(), 1);
    let rngs = [device(&report, "rng0"), device(&report, "rng1")];
    assert_eq!(rngs.map(|rng| rng["pool"].as_str().unwrap()), ["pool", "rng1 device memory"]);

    // What is wrong with the text is told, here and there.
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 4);
    assert!(
        warnings
            .iter()
            .map(|warning| warning.as_str().unwrap())
            .all(|warning| warning.starts_with("--spec rfc: ") && log.contains(warning))
    );

    let mut expected = [DISK_PATTERN; DISK_BYTES];
    expected[1024..1536].fill(WRITTEN);
    assert!(disk == expected, "the disk has other bytes than were written to it");
}
