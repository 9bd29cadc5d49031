// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast the guest gets its input.
//!
//! Linux empties the UART in an interrupt handler, and looks only later, in a task, whether there is room for what it took
//! (drivers/tty/tty_buffer.c, `flush_to_ldisc`). That task is what holds input back. A UART that is filled again whenever it
//! is empty keeps a CPU in the handler: the task never runs, and input is lost when the handler's buffers are full.

use std::time::{Duration, Instant};

/// Most that the guest is left alone between two fillings: it may have been slow for another reason.
const LONGEST: Duration = Duration::from_millis(50);

/// Gives the guest time of its own between two fillings of the UART: half as long as it took to read the last one.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the UART was filled whose input the guest has not read yet.
    filled: Option<Instant>,
    /// Before that it gets no more.
    next: Option<Instant>,
}

impl Pace {
    /// Whether the UART may be filled again `now`. `unread`: there is still something in it.
    pub(super) fn allows(&mut self, unread: bool, now: Instant) -> bool {
        if unread {
            return false;
        }
        if let Some(filled) = self.filled.take() {
            self.next = Some(now + (now.saturating_duration_since(filled) / 2).min(LONGEST));
        }
        if self.next.is_some_and(|next| next > now) {
            return false;
        }
        self.next = None;
        true
    }

    /// The UART has been filled.
    pub(super) fn filled(&mut self, now: Instant) {
        (self.filled, self.next) = (Some(now), None);
    }

    /// How long the guest is still left alone `now`, if [`Pace::allows`] said so: not at all, maybe, but nobody has looked
    /// since.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_has_time_between_two_fillings() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert!(pace.allows(false, start) && pace.rest(start).is_none());
        pace.filled(start);
        // Nobody wakes us while it reads but its own last read.
        assert!(!pace.allows(true, at(5)) && pace.rest(at(5)).is_none());
        assert!(!pace.allows(false, at(8)));
        assert_eq!(pace.rest(at(9)), Some(Duration::from_millis(3)));
        assert!(!pace.allows(false, at(11)));
        // The rest is over before anybody has asked for it.
        assert_eq!(pace.rest(at(13)), Some(Duration::ZERO));
        assert!(pace.allows(false, at(12)));
        assert_eq!(pace.rest(at(12)), None);
        // A guest that was busy for long.
        pace.filled(at(20));
        assert!(!pace.allows(false, at(9000)));
        assert_eq!(pace.rest(at(9000)), Some(LONGEST));
    }
}
