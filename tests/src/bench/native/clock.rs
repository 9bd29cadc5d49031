// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest measures time by the time stamp counter, which is the host's: KVM adds an offset, and no factor unless a guest
//! came from another machine.
#![allow(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Long enough for six digits.
const LOOK: Duration = Duration::from_millis(200);

/// How fast the counter is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Clock {
    /// Ticks in a second.
    pub hertz: f64,
}

impl Clock {
    /// Looks at this machine's counter for a while.
    pub fn look() -> Self {
        let (before, start) = (ticks(), Instant::now());
        thread::sleep(LOOK);
        let (after, elapsed) = (ticks(), start.elapsed());
        Self { hertz: double(after.wrapping_sub(before)) / elapsed.as_secs_f64() }
    }

    /// So many ticks as seconds.
    pub fn seconds(self, ticks: u64) -> f64 {
        double(ticks) / self.hertz
    }

    /// So many seconds as ticks.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Some seconds, of some GHz.
    pub fn ticks(self, seconds: f64) -> u64 {
        (seconds * self.hertz) as u64
    }
}

fn ticks() -> u64 {
    // SAFETY: every x86_64 CPU has the instruction, and it reads no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A number of things, of which there are fewer than 2^53.
#[allow(clippy::cast_precision_loss)]
pub fn double(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_seconds() {
        let clock = Clock::look();
        let (before, start) = (ticks(), Instant::now());
        thread::sleep(Duration::from_millis(50));
        let (seconds, expected) = (clock.seconds(ticks() - before), start.elapsed().as_secs_f64());
        assert!((seconds / expected - 1.0).abs() < 0.05, "{seconds} s, and not {expected}");
        assert!((clock.seconds(clock.ticks(0.5)) - 0.5).abs() < 1e-6);
    }
}
