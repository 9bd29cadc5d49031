// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Initial file systems for kernels: newc archives, uncompressed, because unpacking costs an emulated CPU more than
//! copying.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc;

use crate::kernel::DebianKernel;
use crate::modules;

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// A newc archive being written.
#[derive(Debug)]
pub struct Initramfs {
    archive: Vec<u8>,
    folders: BTreeSet<String>,
    next_inode: u32,
}

impl Initramfs {
    /// An archive with what each init program needs: /dev/console, which the kernel opens for it.
    pub fn new() -> Result<Self> {
        let mut new = Self { archive: Vec::new(), folders: BTreeSet::new(), next_inode: 1 };
        new.folder("dev")?;
        let console = newc::Builder::new("dev/console").mode(CHARACTER_DEVICE).rdev_major(5).rdev_minor(1);
        new.entry(console, &[])?;
        Ok(new)
    }

    /// Adds a folder and those above it. `path` has no leading slash.
    pub fn folder(&mut self, path: &str) -> Result<()> {
        if path.is_empty() || self.folders.contains(path) {
            return Ok(());
        }
        self.folder(parent(path))?;
        self.folders.insert(path.to_owned());
        self.entry(newc::Builder::new(path).mode(DIRECTORY).nlink(2), &[])
    }

    /// Adds a file with the permission bits `mode`, and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.folder(parent(path))?;
        self.entry(newc::Builder::new(path).mode(REGULAR | mode), content)
    }

    /// Adds a program: a copy of a file of this machine.
    pub fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, 0o755, &content)
    }

    /// Adds the modules that are `wanted`, and what they depend on, in the order in which [`modules::load`] loads them.
    pub fn modules(&mut self, kernel: &DebianKernel, wanted: &[&str]) -> Result<()> {
        self.folder(&modules::FOLDER[1..])?;
        for (index, module) in modules::in_load_order(&kernel.modules, wanted)?.iter().enumerate() {
            let path = format!("{}/{index:02}-{}.ko", &modules::FOLDER[1..], module.name);
            self.file(&path, 0o644, &module.content)?;
        }
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.folder(parent(path))?;
        self.entry(newc::Builder::new(path).mode(SYMBOLIC_LINK), to.as_bytes())
    }

    /// The finished archive.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(newc::trailer(self.archive)?)
    }

    fn entry(&mut self, builder: newc::Builder, content: &[u8]) -> Result<()> {
        let size =
            u32::try_from(content.len()).context("a file in an initramfs must be smaller than 4 GiB")?;
        let inode = self.next_inode;
        self.next_inode += 1;
        let mut writer = builder.ino(inode).write(&mut self.archive, size);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}

/// What the project's guests boot into: our init program and nothing else.
pub fn guest_initramfs(guest_init: &Path) -> Result<Vec<u8>> {
    let mut initramfs = Initramfs::new()?;
    initramfs.program("init", guest_init)?;
    initramfs.finish()
}

/// The same for a kernel whose drivers are modules, of which it gets those that are `wanted`.
pub fn guest_initramfs_with_modules(
    guest_init: &Path,
    kernel: &DebianKernel,
    wanted: &[&str],
) -> Result<Vec<u8>> {
    let mut initramfs = Initramfs::new()?;
    initramfs.program("init", guest_init)?;
    initramfs.modules(kernel, wanted)?;
    initramfs.finish()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Reads the archive back: name, mode, content.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut rest = archive;
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            found.push((reader.entry().name().to_owned(), reader.entry().mode(), content));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut initramfs = Initramfs::new().unwrap();
        initramfs.file("a/b/init", 0o755, b"program").unwrap();
        initramfs.file("a/b/other", 0o644, b"").unwrap();
        initramfs.link("a/link", "b/init").unwrap();
        let archive = initramfs.finish().unwrap();

        let found = entries(&archive);
        let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["dev", "dev/console", "a", "a/b", "a/b/init", "a/b/other", "a/link"]);
        assert_eq!(found[4], ("a/b/init".into(), 0o100_755, b"program".to_vec()));
        assert_eq!(found[1].1, 0o020_600);
        assert_eq!(found[6].2, b"b/init");
        assert_eq!(archive.len() % 4, 0);
    }
}
