// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Queues and the gate: any contents of the pool, any places of the rings, any descriptors.

use arbitrary::{Arbitrary, Unstructured};

use crate::driver::{Act, MAX_ACTS, Start};
use crate::echo::{self, Echo, Log};
use crate::session::Session;

/// Queues of the device.
const QUEUES: usize = 2;

#[derive(Arbitrary, Debug)]
struct Input {
    start: Start,
    acts: Vec<Act<Vec<u8>>>,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(Input { start, acts }) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let log = Log::default();
    let mut session = Session::new(|_| Box::new(Echo::new(QUEUES, &log)));
    session.start(&start, &[]);
    for act in acts.iter().take(MAX_ACTS) {
        session.driver.act(&mut session.memory, act);
        match act {
            Act::Serve(queue) => {
                let mut expected = Vec::new();
                session.serve(*queue, |_, queue, memory| {
                    queue.turn(memory.shadow(), |shadow, chain| echo::model(shadow, chain, &mut expected))
                });
                assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected, "what the device read");
            }
            Act::Restart(start) => _ = session.start(start, &[]),
            _ => {}
        }
    }
}
