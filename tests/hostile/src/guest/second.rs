// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A second CPU, which writes while the first one drives.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::Hardware;
use super::bench::Result;

/// Where its first code is: a page below 1 MiB (Intel SDM 3A, 9.4.3).
pub const START: u32 = 0x9_0000;
/// Interrupt command of the local APIC (Intel SDM 3A, 11.6.1): INIT and start-up, for all but the one that asks.
const INTERRUPT_COMMAND: u64 = 0xfee0_0300;
const INIT: u32 = 0x000c_4500;
const START_UP: u32 = 0x000c_4600 | START >> 12;
/// Turns of a loop in which it must have begun, or ended: seconds.
const PATIENCE: u64 = 1 << 30;
/// Turns until it is told again to start: milliseconds.
const AGAIN: u64 = 1 << 16;

/// What it does again and again, with the hardware.
type Task<'a> = &'a (dyn Fn() + Sync);

/// Where its task is; null tells it to end.
static TASK: AtomicPtr<Task<'static>> = AtomicPtr::new(null_mut());
/// How often it did its task, or [`ENDED`].
static DONE: AtomicU64 = AtomicU64::new(0);
const ENDED: u64 = u64::MAX;

/// The second CPU. It waits for its start-up interrupt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Second(Hardware);

impl Second {
    /// The CPU, which will begin with `code`.
    pub(super) fn new(hardware: Hardware, code: &[u8]) -> Self {
        (u64::from(START)..).zip(code).for_each(|(at, byte)| hardware.write(at, *byte));
        Self(hardware)
    }

    /// Has it do `task` again and again while this CPU does `meanwhile`, which begins once `task` was done.
    pub(super) fn during(&self, task: Task<'_>, meanwhile: impl FnOnce() -> Result) -> Result {
        DONE.store(0, Ordering::SeqCst);
        TASK.store((&raw const task).cast_mut().cast(), Ordering::SeqCst);
        let begun = self.start();
        let result = if begun { meanwhile() } else { Err("the second CPU does not begin") };
        TASK.store(null_mut(), Ordering::SeqCst);
        let ended = wait(PATIENCE, || DONE.load(Ordering::SeqCst) == ENDED);
        // It waits for its start-up interrupt again, and uses no CPU of the host.
        self.0.write(INTERRUPT_COMMAND, INIT);
        if begun && !ended { Err("the second CPU does not end") } else { result }
    }

    /// Whether it began. KVM may take an INIT that is still pending after the start-up interrupt that followed it, so that is
    /// sent until it is heeded; a CPU that runs ignores it (Intel SDM 3A, 9.4.4.1 sends it twice).
    fn start(&self) -> bool {
        self.0.write(INTERRUPT_COMMAND, INIT);
        (0..PATIENCE / AGAIN).any(|_| {
            self.0.write(INTERRUPT_COMMAND, START_UP);
            wait(AGAIN, || DONE.load(Ordering::SeqCst) != 0)
        })
    }
}

/// What the second CPU does from its start on.
pub fn work() -> ! {
    loop {
        let task = TASK.load(Ordering::SeqCst);
        // SAFETY: a task is there until this CPU says that it has ended.
        let Some(task) = (unsafe { task.as_ref() }) else { break };
        task();
        DONE.fetch_add(1, Ordering::SeqCst);
    }
    DONE.store(ENDED, Ordering::SeqCst);
    loop {
        core::hint::spin_loop();
    }
}

fn wait(turns: u64, condition: impl Fn() -> bool) -> bool {
    (0..turns).any(|_| {
        core::hint::spin_loop();
        condition()
    })
}
