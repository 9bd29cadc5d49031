// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A disk with a file system: what is written comes back from the disk, and stays there for the host to see.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount, umount};

use super::disk::Disk;
use crate::guest::report::{Report, say};
use crate::pattern;

/// A file the host may have put on the disk; its hash is printed.
const FROM_HOST: &str = "from-host";

pub(super) fn run(disk: &Disk, seed: u64, report: &Report) {
    let name = &disk.name;
    let mut place = String::new();
    let mounted = report.check(&format!("blk-{name}-mount"), || {
        place = mount_disk(disk)?;
        Ok(format!("ext4 on {place}"))
    });
    if !mounted {
        return;
    }
    if fs::exists(format!("{place}/{FROM_HOST}")).unwrap_or(false) {
        report
            .check(&format!("blk-{name}-from-host"), || describe(&fs::read(format!("{place}/{FROM_HOST}"))?));
    }
    report.check(&format!("blk-{name}-write"), || {
        for ((file, size), seed) in pattern::FILES.into_iter().zip(seed..) {
            write(&format!("{place}/{file}"), &pattern::bytes(seed, size))?;
        }
        nix::unistd::sync();
        // from here on a read must go to the disk
        fs::write("/proc/sys/vm/drop_caches", "3").context("/proc/sys/vm/drop_caches")?;
        Ok(format!("{} files, synced, caches dropped", pattern::FILES.len()))
    });
    for ((file, size), seed) in pattern::FILES.into_iter().zip(seed..) {
        report.check(&format!("blk-{name}-file-{file}"), || {
            let data = fs::read(format!("{place}/{file}"))?;
            let expected = pattern::sha256(&pattern::bytes(seed, size));
            ensure!(pattern::sha256(&data) == expected, "{}, but it should be {expected}", describe(&data)?);
            describe(&data)
        });
    }
    report.check(&format!("blk-{name}-unmount"), || {
        umount(place.as_str())?;
        Ok("clean".into())
    });
}

/// See [`write_for_ever`](super::write_for_ever): file number `i` is 64 KiB of seed `seed + i`.
pub(super) fn write_for_ever(disk: &Disk, seed: u64) -> Result<Infallible> {
    let place = mount_disk(disk)?;
    for number in 0.. {
        // a small disk must not run full: the sixteen newest stay
        if number >= 16 {
            fs::remove_file(format!("{place}/safe-{}", number - 16))?;
        }
        let data = pattern::bytes(seed + number, 64 * 1024);
        write(&format!("{place}/safe-{number}"), &data)?;
        File::open(&place)?.sync_all()?;
        say(&format!("guest-init: safe-{number} is on the disk, {}", describe(&data)?));
    }
    unreachable!("there is always a next number")
}

fn mount_disk(disk: &Disk) -> Result<String> {
    let place = format!("/mnt/{}", disk.name);
    fs::create_dir_all(&place)?;
    mount(Some(disk.path().as_str()), place.as_str(), Some("ext4"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount {} as ext4", disk.path()))?;
    Ok(place)
}

fn write(path: &str, data: &[u8]) -> Result<()> {
    let mut file = File::create(path).with_context(|| path.to_owned())?;
    file.write_all(data).and_then(|()| file.sync_all()).with_context(|| path.to_owned())
}

fn describe(data: &[u8]) -> Result<String> {
    Ok(format!("{} bytes, sha256 {}", data.len(), pattern::sha256(data)))
}
