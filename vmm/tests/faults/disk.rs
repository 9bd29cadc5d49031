// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks that are full, and disks that shrink.

use std::fs;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use crate::guest::{Guest, blk, cvmm, kvm};
use crate::place;

/// A request that finds no space fails, alone. What was written before is there; when there is space again, the disk
/// works again.
#[test]
fn a_full_file_system_is_an_io_error_until_there_is_space() {
    if !kvm() || !place::enter() {
        return;
    }
    // For 64 sectors beside what else is there.
    let (_folder, small) = place::small(96 << 10);
    let (files, filler) = (TempDir::new().unwrap(), small.join("filler"));
    fs::write(&filler, vec![1; 64 << 10]).unwrap();
    let image = place::image(&small, 512);
    let mut command = cvmm(files.path());
    command.arg(blk(&image));
    let mut guest = Guest::start(command, files.path());
    guest.orders(&[("write 0 0 32 7", "0"), ("flush 0", "0"), ("write 0 32 32 8", "0")]);
    guest.orders(&[
        ("write 0 64 32 9", "1"),
        ("write 0 128 64 10", "1"),
        // What is there is read, and written over; a hole needs no space.
        ("read 0 0 32", "0 7"),
        ("write 0 0 32 11", "0"),
        ("flush 0", "0"),
        ("read 0 256 8", "0 0"),
        ("zero 0 256 8", "1"),
    ]);
    // A hole makes space for as much.
    guest.orders(&[("discard 0 32 32", "0"), ("write 0 96 32 12", "0"), ("write 0 64 32 9", "1")]);
    fs::remove_file(filler).unwrap();
    guest.orders(&[
        ("write 0 64 32 13", "0"),
        ("zero 0 256 8", "0"),
        ("flush 0", "0"),
        ("read 0 64 64", "0 mixed"),
    ]);
    guest.orders(&[
        ("read 0 0 32", "0 11"),
        ("read 0 32 32", "0 0"),
        ("read 0 64 32", "0 13"),
        ("read 0 96 32", "0 12"),
    ]);
    let ended = guest.end();
    let none = "No space left on device";
    ended.exit_code(0).host_errors("blk0", &[("write", none, 3), ("write zeroes", none, 1)]);
    let bytes = fs::read(image).unwrap();
    for (sector, byte) in [(0, 11), (64, 13), (96, 12)] {
        assert!(bytes[sector * 512..][..32 * 512].iter().all(|b| *b == byte), "sector {sector}");
    }
}

/// Sectors that are gone are an error, read or written, for as long as they are gone. They do not come back as zeros, and
/// the ones that are left work.
#[test]
fn an_image_that_is_truncated_has_errors_where_it_was() {
    let Some((mut guest, folder)) = Guest::with_disk() else { return };
    let image = folder.path().join("disk");
    guest.orders(&[
        ("write 0 0 64 5", "0"),
        ("write 0 64 64 6", "0"),
        ("flush 0", "0"),
        ("read 0 64 64", "0 6"),
    ]);
    // In the middle of sector 40.
    let file = fs::File::options().write(true).open(&image).unwrap();
    file.set_len(40 * 512 + 100).unwrap();
    for gone in ["40 1", "39 2", "64 8", "127 1"] {
        assert!(guest.order(&format!("read 0 {gone}")).starts_with("1 "), "{gone}");
        guest.orders(&[(&format!("write 0 {gone} 9"), "1"), (&format!("zero 0 {gone}"), "1")]);
        guest.orders(&[(&format!("discard 0 {gone}"), "1")]);
    }
    guest.orders(&[
        ("read 0 0 40", "0 5"),
        ("write 0 32 8 4", "0"),
        ("read 0 32 8", "0 4"),
        ("flush 0", "0"),
    ]);
    assert_eq!(file.metadata().unwrap().len(), 40 * 512 + 100, "the image is longer again");
    // Whoever makes it long again gets a disk that works.
    file.set_len(128 * 512).unwrap();
    guest.orders(&[("write 0 64 64 3", "0"), ("read 0 64 64", "0 3"), ("flush 0", "0")]);
    let ended = guest.end();
    let expected = [("read", 4), ("write", 4), ("write zeroes", 4), ("discard", 4)];
    ended
        .exit_code(0)
        .host_errors("blk0", &expected.map(|(operation, count)| (operation, "truncated", count)));
}

/// The guest keeps the capacity that it was told, and what is behind it stays as it is.
#[test]
fn an_image_that_grows_keeps_its_capacity() {
    let Some((mut guest, folder)) = Guest::with_disk() else { return };
    let image = folder.path().join("disk");
    guest.orders(&[("config 0 0", "128"), ("write 0 64 64 5", "0"), ("flush 0", "0")]);
    let file = fs::File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[9; 128 * 512], 128 * 512).unwrap();
    guest.orders(&[
        ("config 0 0", "128"),
        ("read 0 64 64", "0 5"),
        ("read 0 128 1", "1 165"),
        ("write 0 128 1 6", "1"),
        ("write 0 127 2 6", "1"),
        ("zero 0 128 8", "1"),
        ("unmap 0 127 2", "1"),
        ("discard 0 120 9", "1"),
        ("write 0 127 1 7", "0"),
        ("zero 0 120 7", "0"),
        ("flush 0", "0"),
        ("read 0 120 7", "0 0"),
        ("read 0 127 1", "0 7"),
    ]);
    // What the guest may not have is no error of the host.
    guest.end().exit_code(0).host_errors("blk0", &[]);
    let bytes = fs::read(image).unwrap();
    assert!(bytes.len() == 256 * 512 && bytes[128 * 512..].iter().all(|byte| *byte == 9));
}
