// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Debian's kernels: the cloud kernel for the emulated KVM host, and both as guests. They are fetched and unpacked, never
//! installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::{packages, workspace};

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// For virtual machines of clouds.
    Cloud,
    /// For everything.
    Generic,
}

impl Flavour {
    /// Depends on the newest concrete kernel image package of the release.
    fn meta_package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Generic => "linux-image-amd64",
        }
    }

    /// Whether a concrete package is of this flavour.
    fn has(self, package: &str) -> bool {
        package.contains("-cloud-") == (self == Self::Cloud)
    }
}

/// A kernel image and its modules.
#[derive(Debug, Clone)]
pub struct DebianKernel {
    /// The bzImage.
    pub image: PathBuf,
    /// The folder `lib/modules/RELEASE`.
    pub modules: PathBuf,
}

impl DebianKernel {
    /// The cached kernel, or else the one that this machine's package lists name.
    pub fn get(flavour: Flavour) -> Result<Self> {
        let cache = workspace::lab_dir().join("kernel");
        match Self::cached(&cache, flavour) {
            Some(kernel) => Ok(kernel),
            None => {
                fetch(&cache, flavour).with_context(|| format!("cannot fetch {}", flavour.meta_package()))
            }
        }
    }

    /// The most recently unpacked kernel.
    fn cached(cache: &Path, flavour: Flavour) -> Option<Self> {
        let mut folders: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(cache)
            .ok()?
            .flatten()
            .filter(|entry| flavour.has(&entry.file_name().to_string_lossy()))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        folders.sort();
        folders.iter().rev().find_map(|(_, folder)| Self::unpacked_in(folder).ok())
    }

    fn unpacked_in(folder: &Path) -> Result<Self> {
        let image = only_entry(&folder.join("boot"), "vmlinuz-")?;
        // Debian 12 ships /lib/modules, later releases /usr/lib/modules.
        let modules = only_entry(&folder.join("lib/modules"), "")
            .or_else(|_| only_entry(&folder.join("usr/lib/modules"), ""))?;
        Ok(Self { image, modules })
    }
}

fn fetch(cache: &Path, flavour: Flavour) -> Result<DebianKernel> {
    if packages::is_root() {
        packages::apt_get(&["update"])?;
    }
    let (package, version) = concrete_package(flavour)?;
    eprintln!("lab: fetching {package} {version}");

    std::fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // Unpacked aside and then renamed: what has a package's name is complete.
    let aside = tempfile::tempdir_in(cache)?;
    packages::run(
        Command::new("apt-get")
            // The cache may lie where apt's own user cannot write.
            .args(["--quiet=2", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download"])
            .arg(format!("{package}={version}"))
            .current_dir(aside.path()),
    )?;
    let archive = only_entry(aside.path(), &package)?;
    let tree = aside.path().join("tree");
    packages::run(Command::new("dpkg").arg("--extract").arg(&archive).arg(&tree))?;
    DebianKernel::unpacked_in(&tree)?;

    let folder = cache.join(format!("{package}_{}", version.replace(':', "_")));
    match std::fs::rename(&tree, &folder) {
        // Another lab on the same checkout was faster; its tree is as good.
        Err(_) if folder.exists() => {}
        result => result.with_context(|| format!("cannot create {}", folder.display()))?,
    }
    DebianKernel::unpacked_in(&folder)
}

/// The name and version that the meta package stands for.
fn concrete_package(flavour: Flavour) -> Result<(String, String)> {
    let output = Command::new("apt-cache")
        .args(["show", "--no-all-versions", flavour.meta_package()])
        .stderr(Stdio::null())
        .output()
        .context("cannot run apt-cache: the lab needs a kernel from Debian")?;
    let record = String::from_utf8_lossy(&output.stdout);
    parse_depends(&record).with_context(|| {
        format!(
            "apt does not know {}. As root, run: apt-get update (Debian 12 or later is needed)",
            flavour.meta_package()
        )
    })
}

/// Reads "Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)".
fn parse_depends(record: &str) -> Option<(String, String)> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    depends.split(',').find_map(|dependency| {
        let (name, version) = dependency.trim().split_once(" (= ")?;
        let version = version.strip_suffix(')')?;
        name.starts_with("linux-image-").then(|| (name.to_owned(), version.to_owned()))
    })
}

fn only_entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .with_context(|| format!("there is no {prefix}* in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meta_package_names_the_concrete_one() {
        let record = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
                      Depends: linux-base, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        let expected = ("linux-image-6.1.0-56-cloud-amd64".into(), "6.1.192-2".into());
        assert_eq!(parse_depends(record), Some(expected));
        assert_eq!(parse_depends("Package: other\n"), None);
    }

    #[test]
    fn a_half_unpacked_kernel_is_not_taken_from_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("linux-image-1-cloud-amd64_1");
        std::fs::create_dir_all(folder.join("boot")).unwrap();
        std::fs::write(folder.join("boot/vmlinuz-1"), "").unwrap();
        assert!(DebianKernel::cached(cache.path(), Flavour::Cloud).is_none());

        std::fs::create_dir_all(folder.join("usr/lib/modules/1")).unwrap();
        let kernel = DebianKernel::cached(cache.path(), Flavour::Cloud).unwrap();
        assert_eq!(kernel.image, folder.join("boot/vmlinuz-1"));
        assert_eq!(kernel.modules, folder.join("usr/lib/modules/1"));
        // Nor one of the other flavour.
        assert!(DebianKernel::cached(cache.path(), Flavour::Generic).is_none());
    }
}
