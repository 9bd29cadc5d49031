// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files that are disks, and whether they are in the page cache.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::case::{Cache, Case};
use crate::packages;

const MIB: usize = 1 << 20;
/// A part of a cold file that is in the cache all the same hardly matters below this: one in so many pages.
const FEW: u64 = 100;
/// cachestat(2), since Linux 6.5: its number is the same on all architectures.
const CACHESTAT: libc::c_long = 451;

/// A file of a size, made when it is first used.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    mebibytes: usize,
}

impl Disk {
    /// Of so many MiB.
    pub fn new(path: PathBuf, mebibytes: usize) -> Self {
        Self { path, mebibytes }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it, if it is not there, full of bytes that nothing can compress, all of them on the host's disk.
    fn make(&self) -> Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        eprintln!("lab: writing a disk of {} MiB", self.mebibytes);
        let make = || {
            let mut file = File::create(&self.path)?;
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            let mut block = vec![0; MIB];
            for _ in 0..self.mebibytes {
                for word in block.chunks_exact_mut(8) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    word.copy_from_slice(&random.to_le_bytes());
                }
                file.write_all(&block)?;
            }
            file.sync_all()
        };
        make().with_context(|| format!("cannot write {} MiB to {}", self.mebibytes, self.path.display()))
    }

    /// Makes it be as the case wants it, with nothing left to write.
    pub fn prepare(&self, case: &Case) -> Result<()> {
        self.make()?;
        let mut file = File::options().read(true).write(true).open(&self.path)?;
        file.sync_all().context("cannot sync the disk")?;
        match case.cache {
            Cache::Warm => {
                io::copy(&mut file, &mut io::sink()).context("cannot read the disk")?;
                Ok(())
            }
            Cache::Cold => self.drop_cache(&file),
        }
    }

    /// Drops this file's pages, and if many stay, as root those of all files.
    fn drop_cache(&self, file: &File) -> Result<()> {
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).context("posix_fadvise")?;
        let many = |cached: u64| cached * FEW > (self.mebibytes as u64) << 8;
        if !cached(file).is_some_and(many) {
            return Ok(());
        }
        if packages::is_root() {
            fs::write("/proc/sys/vm/drop_caches", "1").context("cannot drop the page cache")?;
        }
        match cached(file) {
            Some(pages) if many(pages) => {
                bail!("{pages} pages of {} stay in the page cache: is it a tmpfs?", self.path.display())
            }
            _ => Ok(()),
        }
    }
}

/// Pages of the file that are in the page cache; `None` where the kernel does not say.
fn cached(file: &File) -> Option<u64> {
    // `struct cachestat_range` (0, 0 is all of the file) and `struct cachestat`, whose first field it is.
    let (range, mut found) = ([0u64; 2], [0u64; 5]);
    // SAFETY: the call reads the one and writes the other, which are as long as it takes them to be.
    let result =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), found.as_mut_ptr(), 0u32) };
    (result == 0).then_some(found[0])
}

#[cfg(test)]
mod tests {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};

    use super::*;

    #[test]
    fn a_file_is_in_the_cache_or_not() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        if statfs(folder.path()).unwrap().filesystem_type() == TMPFS_MAGIC {
            eprintln!("NOT TESTED: a tmpfs is in memory only, and this checkout is on one");
            return;
        }
        let disk = Disk::new(folder.path().join("disk"), 4);
        let cases = Case::all();
        for (cache, expected) in [(Cache::Warm, 1024), (Cache::Cold, 0), (Cache::Warm, 1024)] {
            disk.prepare(cases.iter().find(|case| case.cache == cache).unwrap()).unwrap();
            let found = cached(&File::open(disk.path()).unwrap());
            assert!(found.is_none_or(|pages| pages == expected), "{cache:?}: {found:?}");
        }
    }
}
