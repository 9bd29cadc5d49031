// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kill in the middle of a write, with a file system. The other faults of the host take no Linux: vmm/tests/faults.

use std::fs;

use cvmm_tests::host::{Exit, Host};

use crate::disk::{self, Images};
use crate::ends::{content, newest_safe_file};
use crate::guest::{Guest, LIMIT, MIB};

/// How often cvmm is killed. Each time costs the start of a Linux, which an emulated host needs 18 s of a CPU for: `CVMM_KILLS=50`
/// asks for a quarter of an hour. (vmm/tests/faults/killed.rs always makes 50 kills, of a guest without a file system.)
fn kills() -> u64 {
    std::env::var("CVMM_KILLS").map_or(3, |kills| kills.parse().expect("CVMM_KILLS is a number"))
}

/// Killed again and again on the same disk. Each time, the files that were synced are whole and the file system is consistent
/// once its journal is replayed: by e2fsck on a copy, and by the next guest when it mounts the disk.
#[test]
fn files_that_were_synced_outlive_sigkill() {
    const SEED: u64 = 50_000;
    let (host, images) = (Host::shared(), Images::new());
    let (image, copy) = (images.ext4("disk", 16 * MIB), images.path("copy"));
    for (kill, last) in (0..kills()).zip([2, 9, 21, 0, 5].into_iter().cycle()) {
        let seed = SEED + 1000 * kill;
        let guest =
            Guest::new(&host, "none").word(format!("cvmm.seed={seed} cvmm.blk=vda:rw cvmm.end=write"));
        let mut run = guest.disk(&image, "disk", "").start();
        run.wait_for(&format!("guest-init: safe-{last} is on the disk"));
        run.process.signal(libc::SIGKILL).unwrap();
        assert_eq!(run.process.wait(LIMIT).unwrap(), Exit::Signal(libc::SIGKILL));
        host.get(run.guest.file("disk"), &image).unwrap();

        fs::copy(&image, &copy).unwrap();
        disk::replay_journal(&copy);
        disk::assert_consistent(&copy);
        let (number, _) = newest_safe_file(&run.process.stdout());
        eprintln!("kill {kill}: after safe-{number}");
        assert!(number >= last, "{number}");
        // The guest keeps sixteen, and may have been about to remove the oldest of them.
        for number in number.saturating_sub(14)..=number {
            let name = format!("safe-{number}");
            assert!(disk::file(&copy, &name) == content(seed, number), "{name} of {seed}");
        }
    }
}
