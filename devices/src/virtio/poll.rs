// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looking again, for a moment, before a thread sleeps. To wake it takes longer than a short request, and the driver's
//! notification is an exit.
//!
//! As KVM does for CPUs that halt (Linux, Documentation/virt/kvm/halt-polling.rst), a thread looks only as long as it has paid
//! lately. Where others want the CPU, it does not.

use std::time::{Duration, Instant};

/// First time for which a thread looks.
const FIRST: Duration = Duration::from_micros(10);
/// Longest.
const LONGEST: Duration = Duration::from_micros(50);
/// A look that took this much longer than it should was interrupted: somebody else had the CPU.
const INTERRUPTED: Duration = Duration::from_micros(200);
/// How long it is then left to others.
const REST: Duration = Duration::from_millis(100);

/// How long a thread looks before it sleeps.
#[derive(Debug, Default)]
pub(super) struct Poll {
    window: Duration,
    /// When the thread went to sleep with nothing to do.
    asleep: Option<Instant>,
    /// Others have the CPU until then.
    rests_until: Option<Instant>,
}

impl Poll {
    /// The thread has work. Whether it is to look again after it, instead of asking for a notification.
    pub(super) fn wake(&mut self, now: Instant) -> bool {
        if let Some(asleep) = self.asleep.take() {
            let slept = now.saturating_duration_since(asleep);
            // A look as long as that would have seen it.
            if slept <= LONGEST {
                self.window = (self.window * 2).clamp(FIRST, LONGEST);
            }
        }
        if self.rests_until.is_some_and(|until| until <= now) {
            self.rests_until = None;
        }
        self.rests_until.is_none() && !self.window.is_zero()
    }

    /// Looks until `found`, as long as it may. Whether it was found.
    pub(super) fn look(&mut self, start: Instant, mut found: impl FnMut() -> bool) -> bool {
        loop {
            if found() {
                return true;
            }
            let looked = start.elapsed();
            if looked >= self.window {
                self.in_vain(start, looked);
                return false;
            }
            std::hint::spin_loop();
        }
    }

    fn in_vain(&mut self, start: Instant, looked: Duration) {
        if looked >= self.window + INTERRUPTED {
            self.rests_until = Some(start + looked + REST);
        }
        self.window /= 2;
        if self.window < FIRST {
            self.window = Duration::ZERO;
        }
    }

    /// One that looks for long.
    #[cfg(test)]
    pub(super) fn certain() -> Self {
        Self { window: LONGEST, ..Self::default() }
    }

    /// The thread goes to sleep, and a notification wakes it.
    pub(super) fn sleep(&mut self, now: Instant) {
        self.asleep = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, micros: u64) -> Instant {
        start + Duration::from_micros(micros)
    }

    /// Two notifications in short order.
    fn woken_soon(start: Instant) -> Poll {
        let mut poll = Poll::default();
        assert!(!poll.wake(start));
        poll.sleep(start);
        assert!(poll.wake(at(start, 20)));
        poll
    }

    #[test]
    fn a_thread_looks_only_while_it_pays() {
        let start = Instant::now();
        let mut poll = woken_soon(start);
        assert!(poll.look(Instant::now(), || true));
        // Nothing comes.
        while poll.wake(start) {
            let mut looks = 0;
            let begin = Instant::now();
            assert!(!poll.look(begin, || {
                looks += 1;
                false
            }));
            assert!(looks > 0);
            // However long it was interrupted: that is another test.
            poll.rests_until = None;
        }
        // What comes much later is worth no look.
        poll.sleep(start);
        assert!(!poll.wake(at(start, 51)));
        poll.sleep(start);
        assert!(poll.wake(at(start, 50)));
    }

    #[test]
    fn a_look_is_short() {
        let start = Instant::now();
        let mut poll = woken_soon(start);
        for _ in 0..10 {
            poll.sleep(start);
            assert!(poll.wake(start));
        }
        assert_eq!(poll.window, LONGEST);
    }

    /// Who was interrupted while it looked gives the CPU away for some time.
    #[test]
    fn a_busy_machine_is_left_to_others() {
        let start = Instant::now();
        let mut poll = woken_soon(start);
        poll.window = LONGEST;
        poll.in_vain(start, LONGEST + INTERRUPTED);
        for (micros, looks) in [(1000, false), (100_249, false), (100_250, true)] {
            poll.sleep(at(start, micros - 10));
            assert_eq!(poll.wake(at(start, micros)), looks, "{micros}");
        }
    }
}
