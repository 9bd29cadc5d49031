// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks that are block devices: loop devices, as root. The guest's requests go through seccomp, as always.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use crate::common::LoopDevice;
use crate::guest::{Guest, blk, cvmm, kvm};
use crate::place;

/// VIRTIO_BLK_F_DISCARD and VIRTIO_BLK_F_WRITE_ZEROES (virtio 1.3, 5.2.3).
const PUNCH: u32 = 1 << 13 | 1 << 14;

/// A file of so many sectors, each byte of them 7.
fn file(folder: &Path, sectors: usize) -> PathBuf {
    let path = folder.join("behind");
    fs::write(&path, vec![7; sectors * 512]).unwrap();
    path
}

fn start(folder: &Path, disk: &Path, more: &str) -> Guest {
    let mut command = cvmm(folder);
    command.arg(format!("{}{more}", blk(disk)));
    Guest::start(command, folder)
}

/// The guest is told of the sectors, and may ignore them: all of its requests are in units of 512 bytes (5.2.6.1).
#[test]
fn a_device_with_sectors_of_4_kib() {
    if !kvm() {
        return;
    }
    for transport in ["mmio", "pci"] {
        let folder = TempDir::new().unwrap();
        let behind = file(folder.path(), 4096);
        let Some(device) = LoopDevice::new(&["--sector-size", "4096"], &behind) else { return };
        let mut guest = start(folder.path(), device.path(), &format!(",transport={transport}"));
        // capacity, blk_size, discard_sector_alignment
        guest.orders(&[("config 0 0", "4096"), ("config 0 20", "4096"), ("config 0 44", "8")]);
        let offered: u32 = guest.order("offered 0").parse().unwrap();
        assert_eq!(offered & PUNCH, PUNCH, "{offered:#x}");
        let allocated = || fs::metadata(&behind).unwrap().blocks();
        let before = allocated();
        guest.orders(&[
            ("write 0 3 2 1", "0"),
            ("read 0 2 1", "0 7"),
            ("read 0 3 2", "0 1"),
            ("read 0 5 1", "0 7"),
            ("flush 0", "0"),
            // Head, whole blocks, tail; within one block; the whole of one.
            ("zero 0 13 20", "0"),
            ("zero 0 41 6", "0"),
            ("zero 0 48 8", "0"),
            ("unmap 0 69 20", "0"),
            ("unmap 0 97 6", "0"),
            ("unmap 0 104 8", "0"),
            // What is no whole block stays.
            ("discard 0 133 20", "0"),
            ("discard 0 161 6", "0"),
            ("discard 0 1024 1024", "0"),
            ("unmap 0 2048 1024", "0"),
            ("flush 0", "0"),
        ]);
        let mut expected = vec![7u8; 4096];
        let mut is = |sectors: std::ops::Range<usize>, byte| expected[sectors].fill(byte);
        is(3..5, 1);
        for zeroed in [13..33, 41..47, 48..56, 69..89, 97..103, 104..112, 136..152, 1024..2048, 2048..3072] {
            is(zeroed, 0);
        }
        for (first, runs) in [(0, 15), (40, 16), (64, 40), (128, 40), (1020, 8), (2044, 8), (3068, 8)] {
            for (sector, byte) in expected.iter().enumerate().skip(first).take(runs) {
                assert_eq!(guest.order(&format!("read 0 {sector} 1")), format!("0 {byte}"), "{sector}");
            }
        }
        guest.end().exit_code(0).host_errors("blk0", &[]);
        let bytes = fs::read(&behind).unwrap();
        let sectors = bytes.chunks(512).zip(expected);
        for (sector, (bytes, expected)) in sectors.enumerate() {
            assert!(bytes.iter().all(|byte| *byte == expected), "sector {sector} on {transport}");
        }
        // Both have freed 1 MiB, less what the file system needs for that.
        let freed = (before - allocated()) * 512;
        assert!(freed > 900 << 10, "{freed} bytes freed");
    }
}

#[test]
fn a_device_with_sectors_of_512_bytes() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let behind = file(folder.path(), 2048);
    let Some(device) = LoopDevice::new(&[], &behind) else { return };
    let mut guest = start(folder.path(), device.path(), "");
    guest.orders(&[
        ("config 0 20", "512"),
        ("discard 0 8 8", "0"),
        ("zero 0 17 3", "0"),
        ("unmap 0 24 8", "0"),
        ("read 0 8 8", "0 0"),
        ("read 0 17 3", "0 0"),
        ("read 0 16 1", "0 7"),
        ("read 0 20 1", "0 7"),
        ("read 0 24 8", "0 0"),
        ("zero 0 2047 2", "1"),
    ]);
    guest.end().exit_code(0).host_errors("blk0", &[]);
}

/// What the host's device does not do is not offered.
#[test]
fn a_device_without_discard() {
    if !kvm() || !place::enter() {
        return;
    }
    // A file system without holes.
    let (folder, ramfs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    mount(Some("ramfs"), ramfs.path(), Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
    let behind = file(ramfs.path(), 128);
    let Some(device) = LoopDevice::new(&[], &behind) else { return };
    let mut guest = start(folder.path(), device.path(), "");
    let offered: u32 = guest.order("offered 0").parse().unwrap();
    assert_eq!(offered & PUNCH, 0, "{offered:#x}");
    // VIRTIO_BLK_S_UNSUPP
    guest.orders(&[
        ("discard 0 8 8", "2"),
        ("zero 0 8 8", "2"),
        ("write 0 8 8 1", "0"),
        ("read 0 8 8", "0 1"),
    ]);
    guest.end().exit_code(0).host_errors("blk0", &[]);
}

/// As with a file: what is gone is an error, what is left works.
#[test]
fn a_device_that_shrinks() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let behind = file(folder.path(), 256);
    let Some(device) = LoopDevice::new(&[], &behind) else { return };
    let resize = |sectors: u64| {
        File::options().write(true).open(&behind).unwrap().set_len(sectors * 512).unwrap();
        let mut losetup = Command::new("losetup");
        assert!(losetup.arg("--set-capacity").arg(device.path()).status().unwrap().success());
    };
    let mut guest = start(folder.path(), device.path(), "");
    guest.orders(&[("write 0 0 64 5", "0"), ("write 0 64 64 6", "0"), ("flush 0", "0")]);
    resize(40);
    for gone in ["40 1", "39 2", "64 8", "127 1"] {
        assert!(guest.order(&format!("read 0 {gone}")).starts_with("1 "), "{gone}");
        for order in ["zero", "unmap", "discard"] {
            assert_eq!(guest.order(&format!("{order} 0 {gone}")), "1", "{order} {gone}");
        }
        assert_eq!(guest.order(&format!("write 0 {gone} 9")), "1", "{gone}");
    }
    guest.orders(&[
        ("config 0 0", "256"),
        ("read 0 0 40", "0 5"),
        ("write 0 32 8 4", "0"),
        ("read 0 32 8", "0 4"),
        ("flush 0", "0"),
    ]);
    resize(256);
    guest.orders(&[("write 0 64 64 3", "0"), ("read 0 64 64", "0 3"), ("flush 0", "0")]);
    resize(512);
    guest.orders(&[("config 0 0", "256"), ("read 0 64 64", "0 3"), ("read 0 256 1", "1 165")]);
    let ended = guest.end();
    let expected = [("read", 4), ("write zeroes", 8), ("discard", 4), ("write", 4)];
    ended
        .exit_code(0)
        .host_errors("blk0", &expected.map(|(operation, count)| (operation, "truncated", count)));
}
