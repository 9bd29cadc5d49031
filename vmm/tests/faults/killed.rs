// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SIGKILL in the middle of a write. Each record that the guest was told to be flushed is in the image.
//!
//! The page cache outlives a process, so these kills alone can't tell a flush from none: that a flush is an fdatasync, and
//! is answered when that has returned, is seen in `injected`. What can be seen here is a request that is answered before
//! it is done.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cvmm_hostile::record::{SECTORS, SLOTS, WORDS, sector, word};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::guest::{Guest, blk, cvmm, kvm};
use crate::place;

const KILLS: u64 = 50;
/// Records of one run before the kill, at most, and microseconds after the last: longer than most records take, so that a
/// kill comes anywhere.
const MOST: u64 = 8;
const LONGEST: u64 = 4000;

/// Numbers that look random (splitmix64), and are the same for the same seed.
struct Random(u64);

impl Random {
    /// From the clock, or from CVMM_SEED.
    fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        let seed = std::env::var("CVMM_SEED").map_or(now, |seed| seed.parse().unwrap());
        eprintln!("CVMM_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        word(self.0, 1) % end
    }
}

#[test]
fn what_was_flushed_is_there_after_each_of_50_kills() {
    if !kvm() {
        return;
    }
    // In memory where that can be, so that the time is not the disk's: the page cache is all that matters here.
    let shared = Path::new("/dev/shm");
    let place = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let (folder, mut random) = (TempDir::new_in(place).unwrap(), Random::new());
    let image = place::image(folder.path(), SLOTS * SECTORS);
    let (mut first, mut seen) = (0, BTreeSet::new());
    for run in 0..KILLS {
        let last = killed(folder.path(), &image, first, &mut random);
        eprintln!("run {run}: killed after record {last}");
        // The record after the last may have been under way: to the place of the oldest one that could be there.
        let bytes = fs::read(&image).unwrap();
        for number in first.max((last + 2).saturating_sub(SLOTS))..=last {
            assert!(is_there(&bytes, number), "record {number} of {last} is not in the image");
            seen.insert(sector(number));
        }
        // The next place, and a number that no record had.
        first = last + 1 + SLOTS;
    }
    // From the first sector to the last: wherever a write were lost, it would be seen.
    assert_eq!(seen.len() as u64, SLOTS, "the guest wrote at {seen:?} only");
}

/// Starts a guest that writes records, and kills cvmm at some time. Returns the last record that was flushed.
fn killed(folder: &Path, image: &Path, first: u64, random: &mut Random) -> u64 {
    let mut command = cvmm(folder);
    let transport = if random.below(2) == 0 { "mmio" } else { "pci" };
    command.arg(format!("{},transport={transport}", blk(image)));
    let mut guest = Guest::start(command, folder);
    assert_eq!(guest.order(&format!("records 0 {first}")), first.to_string());
    let heard = first + random.below(MOST);
    for number in first + 1..=heard {
        assert_eq!(guest.answer(), number.to_string());
    }
    std::thread::sleep(Duration::from_micros(random.below(LONGEST)));
    guest.signal(Signal::SIGKILL);
    // What was answered until then. An answer that was cut off is none.
    let answers = guest.last_answers();
    let numbers = answers.iter().map_while(|answer| answer.strip_prefix("= ")?.parse::<u64>().ok());
    numbers
        .zip(heard + 1..)
        .take_while(|(number, next)| number == next)
        .last()
        .map_or(heard, |(number, _)| number)
}

fn is_there(image: &[u8], number: u64) -> bool {
    let start = usize::try_from(sector(number) * 512).unwrap();
    let mut words = image[start..].chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    (0..WORDS).all(|index| words.next() == Some(word(number, index)))
}
