// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks: what the guest wrote is on the image, what is on the image is what the guest read.

use std::fs;
use std::path::Path;

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::disk::{self, Images};
use crate::guest::{Ended, Guest, MIB};
use crate::names;

const SEED: u64 = 7000;

#[test]
fn a_file_system_holds_what_was_written() {
    let (host, images) = (Host::shared(), Images::new());
    let image = images.ext4("disk", 32 * MIB);
    let from_host = images.pattern("from-host", 1, 300_001);
    disk::put_file(&image, &from_host, "from-host");
    let ended = guest(&host, &["vda:rw"])
        .word("cvmm.serial=vda:a-serial-of-20-chars")
        .disk(&image, "disk", ",serial=a-serial-of-20-chars")
        .run(0, "powered-off");
    let more = ["blk-vda-serial", "blk-vda-from-host"].map(str::to_owned);
    ended.passed(names::blk(&["vda:rw"]).into_iter().chain(more));
    let hash = pattern::sha256(&fs::read(&from_host).unwrap());
    assert_eq!(ended.seen("blk-vda-from-host"), format!("300001 bytes, sha256 {hash}"));
    ended.report.assert_honest(&[("blk0", 1)]);
    ended.get("disk", &image);
    disk::assert_guest_files(&image, SEED);
    // It dropped its caches, so the files went both ways.
    let bytes: u64 = pattern::FILES.iter().map(|(_, size)| *size as u64).sum();
    assert_moved(&ended, "blk0", bytes, bytes + 300_001);
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let (host, images) = (Host::shared(), Images::new());
    // The size is no multiple of a page: the last sector is there, too.
    let image = images.pattern("disk", SEED, (1 << 20) + 512);
    let ended = guest(&host, &["vda:ro"]).disk(&image, "disk", ",ro").run(0, "powered-off");
    ended.passed(names::blk(&["vda:ro"]));
    ended.report.assert_honest(&[("blk0", 1)]);
    assert!(ended.report.device("blk0").features.accepted_names.iter().any(|name| name == "RO"));
    let before = fs::read(&image).unwrap();
    ended.get("disk", &image);
    assert!(fs::read(&image).unwrap() == before, "the image of a read-only disk has changed");
}

#[test]
fn two_disks_at_once() {
    let (host, images) = (Host::shared(), Images::new());
    let files = images.ext4("files", 32 * MIB);
    let raw = images.empty("raw", 16 * MIB);
    let modes = ["vda:rw", "vdb:raw"];
    let ended = guest(&host, &modes).disk(&files, "files", "").disk(&raw, "raw", "").run(0, "powered-off");
    ended.passed(names::blk(&modes));
    ended.report.assert_honest(&[("blk0", 1), ("blk1", 1)]);
    ended.get("files", &files);
    disk::assert_guest_files(&files, SEED);
    assert_raw(&ended, "raw", &images);
    assert_moved(&ended, "blk1", 3 * MIB, 3 * MIB);
}

/// Each disk is another one, and has its own bytes.
#[test]
fn four_disks_at_once() {
    let (host, images) = (Host::shared(), Images::new());
    let first = images.ext4("first", 32 * MIB);
    let second = images.pattern("second", SEED, 1 << 20);
    let third = images.empty("third", 16 * MIB);
    let fourth = images.ext4("fourth", 48 * MIB);
    let modes = ["vda:rw", "vdb:ro", "vdc:raw", "vdd:rw"];
    let ended = guest(&host, &modes)
        .cpus(2)
        .pool(16 * MIB, None)
        .word("cvmm.serial=vda:one,vdd:four")
        .disk(&first, "first", ",serial=one")
        .disk(&second, "second", ",ro")
        .disk(&third, "third", "")
        .disk(&fourth, "fourth", ",serial=four")
        .run(0, "powered-off");
    let serials = ["blk-vda-serial", "blk-vdd-serial"].map(str::to_owned);
    ended.passed(names::blk(&modes).into_iter().chain(serials));
    ended.report.assert_honest(&[("blk0", 1), ("blk1", 1), ("blk2", 1), ("blk3", 1)]);
    for (name, image) in [("first", &first), ("fourth", &fourth)] {
        ended.get(name, image);
        disk::assert_guest_files(image, SEED);
    }
    assert_raw(&ended, "third", &images);
}

fn guest<'h>(host: &'h Host, modes: &[&str]) -> Guest<'h> {
    Guest::new(host, "blk").word(format!("cvmm.blk={}", modes.join(","))).word(format!("cvmm.seed={SEED}"))
}

/// A disk in the mode `raw`: the first MiB and the last 4 KiB hold the pattern, the second and third MiB are zeros.
fn assert_raw(ended: &Ended<'_>, name: &str, images: &Images) {
    const LENGTH: usize = 1 << 20;
    let image = images.path("back");
    ended.get(name, &image);
    let bytes = read(&image);
    assert!(bytes[..LENGTH] == pattern::bytes(SEED, LENGTH), "the first MiB of {name}");
    assert!(bytes[LENGTH..3 * LENGTH].iter().all(|byte| *byte == 0), "the second and third MiB of {name}");
    let mut last = vec![0; 4096];
    pattern::fill(SEED, (bytes.len() - last.len()) as u64, &mut last);
    assert!(bytes.ends_with(&last), "the last 4 KiB of {name}");
}

fn read(image: &Path) -> Vec<u8> {
    fs::read(image).unwrap()
}

/// The device read and wrote at least this much in the pool.
fn assert_moved(ended: &Ended<'_>, device: &str, read: u64, written: u64) {
    let dma = &ended.report.device(device).dma;
    assert!(dma.read.bytes >= read && dma.written.bytes >= written, "{read} and {written}: {dma:?}");
}
