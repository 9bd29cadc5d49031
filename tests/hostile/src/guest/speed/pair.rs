// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two CPUs, each of which drives half of the lanes at the same time.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Lanes, MAX_QUEUES, Result, Time, clock, drive_during};
use crate::guest::second::Second;
use crate::speed::Done;

/// What the second CPU works on.
struct Half {
    work: UnsafeCell<(Lanes, Result<Done>)>,
    /// When both begin; 0 before.
    start: AtomicU64,
    ended: AtomicBool,
}

// SAFETY: `work` is the second CPU's until it has set `ended`, and the first one's after that.
unsafe impl Sync for Half {}

impl Half {
    /// What the second CPU does again and again: nothing, but once.
    fn work(&self, time: Time) {
        let start = self.start.load(Ordering::SeqCst);
        if start == 0 || self.ended.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: see `Half`; the first CPU looks when `ended` is set.
        let (lanes, done) = unsafe { &mut *self.work.get() };
        *done = drive_during(lanes, Time { start, ..time });
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// Drives every other lane on `second`, and the rest here, from now on.
pub(super) fn drive(second: Second, lanes: &mut Lanes, time: Time) -> Result<Done> {
    let mut theirs: Lanes = [const { None }; MAX_QUEUES];
    for (place, lane) in theirs.iter_mut().zip(lanes.iter_mut()).skip(1).step_by(2) {
        *place = lane.take();
    }
    let work = UnsafeCell::new((theirs, Err("the second CPU did nothing")));
    let half = Half { work, start: AtomicU64::new(0), ended: AtomicBool::new(false) };
    let mut ours = Err("the first CPU did nothing");
    second.during(&|| half.work(time), || {
        let start = clock::now();
        half.start.store(start, Ordering::SeqCst);
        ours = drive_during(lanes, Time { start, ..time });
        while !half.ended.load(Ordering::SeqCst) {
            if clock::now().wrapping_sub(start) > time.patience.saturating_mul(3) {
                return Err("the second CPU does not come to its end");
            }
            core::hint::spin_loop();
        }
        Ok(())
    })?;
    let (theirs, done) = half.work.into_inner();
    for (place, lane) in lanes.iter_mut().zip(theirs).skip(1).step_by(2) {
        *place = lane;
    }
    let (ours, done) = (ours?, done?);
    Ok(Done {
        requests: ours.requests + done.requests,
        ticks: ours.ticks.max(done.ticks),
        notifications: ours.notifications + done.notifications,
        written: ours.written + done.written,
    })
}
