// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disk images, and what is on them: read by e2fsprogs, so that nothing has to be mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cvmm_tests::{packages, pattern, run};
use tempfile::TempDir;

/// Images of one test.
pub struct Images(TempDir);

impl Images {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An image with an ext4 file system.
    pub fn ext4(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        run::make_ext4(&path, size).unwrap();
        path
    }

    /// An image whose bytes are the pattern.
    pub fn pattern(&self, name: &str, seed: u64, size: usize) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, pattern::bytes(seed, size)).unwrap();
        path
    }

    /// An image that is one hole.
    pub fn empty(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    }
}

/// A file on an ext4 image.
pub fn file(image: &Path, name: &str) -> Vec<u8> {
    let output = e2fsprogs("debugfs", &["-R", &format!("cat /{name}")], image);
    assert!(
        output.status.success() && !output.stdout.is_empty(),
        "{name} on {}: {output:?}",
        image.display()
    );
    output.stdout
}

/// Puts a file on an ext4 image.
pub fn put_file(image: &Path, from: &Path, name: &str) {
    let output = e2fsprogs("debugfs", &["-w", "-R", &format!("write {} {name}", from.display())], image);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(file(image, name), fs::read(from).unwrap());
}

/// Makes a symbolic link on an ext4 image.
pub fn link(image: &Path, name: &str, to: &str) {
    let output = e2fsprogs("debugfs", &["-w", "-R", &format!("symlink {name} {to}")], image);
    // It ends with 0 whatever comes of a request; the first line is its version.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.lines().count() <= 1, "{output:?}");
}

/// Replays the journal of an ext4 image, as the next mount would.
pub fn replay_journal(image: &Path) {
    let output = e2fsprogs("e2fsck", &["-p", "-E", "journal_only"], image);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
}

/// The file system on an image is consistent.
pub fn assert_consistent(image: &Path) {
    let output = e2fsprogs("e2fsck", &["-fn"], image);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// The files that the guest writes to a disk in the mode `rw` are on the image, and all is in order there.
pub fn assert_guest_files(image: &Path, seed: u64) {
    assert_consistent(image);
    for ((name, size), seed) in pattern::FILES.into_iter().zip(seed..) {
        assert!(file(image, name) == pattern::bytes(seed, size), "{name} on {}", image.display());
    }
}

fn e2fsprogs(program: &str, arguments: &[&str], image: &Path) -> Output {
    packages::require(&[packages::DEBUGFS, packages::MKFS_EXT4]).unwrap();
    let path = packages::find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    Command::new(path).args(arguments).arg(image).output().unwrap()
}
