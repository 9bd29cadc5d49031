// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A VMM's resident memory, with guest memory told apart.
//!
//! Guest memory is told apart by what /proc/PID/smaps says of each mapping, in the same way for each VMM: it is readable and
//! writable, anonymous or a memfd, and large. cvmm has a private part before and after its pool and the pool itself
//! (`/memfd:cvmm-pool`), QEMU and kvmtool one anonymous mapping of the guest's whole memory. Nothing else in them is of
//! that size: the next are thread stacks of 8 MiB. The sum of the sizes proves it: it must be the guest's memory
//! to the byte, or there is no figure.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The memory of all measured guests.
pub const GUEST_MIB: u64 = 128;
/// Less than any part of guest memory, more than anything else.
const LARGE_KIB: u64 = 16 << 10;

/// Resident memory (Rss), in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// In mappings that are guest memory.
    pub guest: u64,
    /// In all others: program, libraries, heap, stacks.
    pub beyond: u64,
}

impl Resident {
    /// That of a process whose guest has [`GUEST_MIB`].
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps");
        let smaps = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Self::from_smaps(&smaps)
    }

    fn from_smaps(smaps: &str) -> Result<Self> {
        let (mut resident, mut guest_size) = (Self { guest: 0, beyond: 0 }, 0);
        let mut is_guest = false;
        for line in smaps.lines() {
            if let Some(mapping) = Mapping::parse(line) {
                is_guest = mapping.is_guest_memory();
                guest_size += if is_guest { mapping.kib } else { 0 };
            } else if let Some(rss) = line.strip_prefix("Rss:") {
                let kib: u64 = rss.trim().trim_end_matches(" kB").parse()?;
                *(if is_guest { &mut resident.guest } else { &mut resident.beyond }) += kib;
            }
        }
        if guest_size != GUEST_MIB << 10 {
            bail!("guest memory can't be told apart: {guest_size} KiB look like it, not {GUEST_MIB} MiB");
        }
        Ok(resident)
    }
}

struct Mapping<'l> {
    kib: u64,
    permissions: &'l str,
    name: &'l str,
}

impl<'l> Mapping<'l> {
    /// Reads "7f5c00000000-7f5c08000000 rw-p 00000000 00:00 0    name"; other lines begin with a word and a colon.
    fn parse(line: &'l str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16));
        let permissions = words.next()?;
        Some(Self {
            kib: (end.ok()? - start.ok()?) >> 10,
            permissions,
            name: words.nth(3).unwrap_or_default(),
        })
    }

    fn is_guest_memory(&self) -> bool {
        let ours_to_name = self.name.is_empty() || self.name.starts_with("/memfd:");
        self.permissions.starts_with("rw") && ours_to_name && self.kib >= LARGE_KIB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "\
        00400000-00600000 r-xp 00000000 08:01 77 /bin/cvmm\nSize: 2048 kB\nRss: 1500 kB\n\
        7f0000000000-7f0004000000 rw-p 00000000 00:00 0 \nRss: 30000 kB\nAnonHugePages: 2048 kB\n\
        7f0004000000-7f0006000000 rw-s 00000000 00:01 9 /memfd:cvmm-pool (deleted)\nRss: 512 kB\n\
        7f0006000000-7f0008000000 rw-p 00000000 00:00 0\nRss: 10 kB\n\
        7f0008000000-7f000c000000 ---p 00000000 00:00 0\nRss: 0 kB\n\
        7f000c000000-7f000c7ff000 rw-p 00000000 00:00 0\nRss: 24 kB\n\
        7ffe00000000-7ffe00021000 rw-p 00000000 00:00 0 [stack]\nRss: 20 kB\nVmFlags: rd wr\n";

    #[test]
    fn guest_memory_is_told_apart() {
        let expected = Resident { guest: 30000 + 512 + 10, beyond: 1500 + 24 + 20 };
        assert_eq!(Resident::from_smaps(OURS).unwrap(), expected);
    }

    #[test]
    fn a_guess_that_does_not_add_up_is_no_figure() {
        let merged = OURS.replace("7f0008000000 rw-p", "7f0008001000 rw-p");
        let error = Resident::from_smaps(&merged).unwrap_err().to_string();
        assert!(error.contains("131076 KiB look like it, not 128 MiB"), "{error}");
    }
}
