// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver that keeps a device as busy as it can, and polls: `cargo lab bench --native` measures with it. At level 3 it runs
//! on the CPU even where KVM emulates level 0, so what it measures is the device and its thread on the host.
//!
//! It does what it is told in one line of the console ([`Order`]). The lab reads the host's counters while it waits for the
//! two lines after that: `= set` comes before what is measured, `= done ...` after it.

mod clock;
mod lane;
mod pair;
mod queue;
mod set_up;

use core::fmt::Write;

use super::machine::Machine;
use super::second::Second;
use super::uart::Uart;
use crate::speed::{Done, Order, PATIENCE};
use lane::Lane;

type Result<T> = core::result::Result<T, &'static str>;

/// Most queues of an order.
const MAX_QUEUES: usize = 8;
type Lanes = [Option<Lane>; MAX_QUEUES];

/// The part of the time that is driven before, and not measured: caches and the host's threads are then as they stay.
const WARM_UP: u64 = 8;

/// Does what it is told, once.
pub(super) fn run(machine: &Machine, uart: &mut Uart, code: &[u8]) -> Result<u32> {
    let mut buffer = [0; 80];
    let _ = writeln!(uart, "= ready");
    let order = Order::parse(uart.read_line(&mut buffer)).ok_or("no such order")?;
    let mut lanes = set_up::set_up(machine, &order)?;
    // Only now: other VMMs may have put something there.
    let second = (order.cpus > 1).then(|| Second::new(machine.hardware, code));
    let patience = order.ticks.saturating_mul(PATIENCE.into());
    let drive = |lanes: &mut Lanes, ticks| match second {
        Some(second) => pair::drive(second, lanes, Time { start: 0, ticks, patience }),
        None => drive_during(lanes, Time { start: clock::now(), ticks, patience }),
    };
    drive(&mut lanes, order.ticks / WARM_UP)?;
    let _ = writeln!(uart, "= set");
    uart.read_line(&mut buffer);
    let done = drive(&mut lanes, order.ticks)?;
    let _ = writeln!(uart, "= {done}");
    uart.read_line(&mut buffer);
    Ok(1)
}

/// When to drive, in ticks.
#[derive(Clone, Copy)]
struct Time {
    start: u64,
    ticks: u64,
    /// From the start on: what takes longer has failed. It is no shorter for the warm-up.
    patience: u64,
}

/// Drives all lanes, and waits until the device has nothing left to do.
fn drive_during(lanes: &mut Lanes, Time { start, ticks, patience }: Time) -> Result<Done> {
    let before = total(lanes);
    lanes.iter_mut().flatten().for_each(Lane::fill);
    let elapsed = loop {
        let elapsed = clock::now().wrapping_sub(start);
        // On a busy host the device may not have had its turn yet.
        let late = elapsed > patience;
        if elapsed >= ticks && (late || total(lanes).requests != before.requests) {
            break elapsed;
        }
        for lane in lanes.iter_mut().flatten() {
            lane.step(true)?;
        }
        core::hint::spin_loop();
    };
    let after = total(lanes);
    while lanes.iter_mut().flatten().any(|lane| !lane.is_idle()) {
        if clock::now().wrapping_sub(start) > patience.saturating_mul(2) {
            return Err("the device does not complete its requests");
        }
        for lane in lanes.iter_mut().flatten() {
            lane.step(false)?;
        }
    }
    Ok(Done {
        requests: after.requests - before.requests,
        ticks: elapsed,
        notifications: after.notifications - before.notifications,
        written: after.written - before.written,
    })
}

/// What all lanes have done.
fn total(lanes: &Lanes) -> Done {
    lanes.iter().flatten().fold(Done::default(), |sum, lane| Done {
        requests: sum.requests + lane.requests,
        notifications: sum.notifications + lane.notifications(),
        written: sum.written + lane.written,
        ticks: 0,
    })
}
