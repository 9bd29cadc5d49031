// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that reads and writes a little at both ends of each chain, and the model of it.

use std::sync::{Arc, Mutex};

use cvmm_devices::pool::{Pool, Refusal};
use cvmm_devices::queue::{self as real, parts};
use cvmm_devices::virtio::{DeviceType, Kind, Lane, Queues};

use crate::memory::Shadow;
use crate::spec::queue::{Broken, Chain, gather, scatter, total};

/// The largest size of each queue.
pub const QUEUE_SIZE: u16 = 16;
/// Feature bits of its own.
pub const FEATURES: u64 = 0x0000_0300_0000_0021;
/// Its configuration space.
pub const CONFIG: [u8; 10] = [0xa1, 0xb2, 3, 4, 5, 6, 7, 8, 9, 0x7f];
/// Bytes at each end of what it reads or writes.
const END: u64 = 40;

/// What the device read, in order.
pub type Log = Arc<Mutex<Vec<u8>>>;

/// The device.
#[derive(Debug)]
pub struct Echo {
    queues: Vec<u16>,
    log: Log,
    chain: real::Chain,
}

impl Echo {
    /// With that many queues, and what it reads in `log`.
    pub fn new(queues: usize, log: &Log) -> Self {
        Self { queues: vec![QUEUE_SIZE; queues], log: Arc::clone(log), chain: real::Chain::default() }
    }
}

impl DeviceType for Echo {
    fn kind(&self) -> Kind {
        Kind::Blk
    }
    fn features(&self) -> u64 {
        FEATURES
    }
    fn max_queue_sizes(&self) -> &[u16] {
        &self.queues
    }
    fn buffers(&self) -> u64 {
        0
    }
    fn config_space(&self) -> Vec<u8> {
        CONFIG.to_vec()
    }
    fn into_lanes(self: Box<Self>, _pool: &Pool) -> Vec<Box<dyn Lane>> {
        vec![self]
    }
}

impl Lane for Echo {
    fn start(&mut self, _features: u64) {}

    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<real::Turn, Refusal> {
        let Self { log, chain, .. } = self;
        let Some(queue) = queues.get(index) else { return Ok(real::Turn::default()) };
        queue.suppress_notifications()?;
        queue.turn(chain, |gate, chain| {
            let (from, to) = (chain.readable_len(), chain.writable_len());
            for skip in [0, from.saturating_sub(END)] {
                let mut bytes = [0; 40];
                let got = parts(chain.readable(), skip, END).read(gate, &mut bytes);
                let got = got.expect("a checked chain is in the pool");
                log.lock().unwrap().extend(&bytes[..got]);
            }
            for skip in [to.saturating_sub(END), 0] {
                let bytes = pattern(chain.head());
                parts(chain.writable(), skip, END)
                    .write(gate, &bytes)
                    .expect("a checked chain is in the pool");
            }
            Ok(u32::try_from(to.min(END)).unwrap())
        })
    }
}

fn pattern(head: u16) -> [u8; 40] {
    let [low, _] = head.to_le_bytes();
    std::array::from_fn(|at| low.wrapping_mul(41).wrapping_add(u8::try_from(at).unwrap_or(0)) | 1)
}

/// What the device does with a chain.
pub fn model(shadow: &mut Shadow, chain: &Chain, log: &mut Vec<u8>) -> Result<u64, Broken> {
    let (from, to) = (total(&chain.readable), total(&chain.writable));
    for skip in [0, from.saturating_sub(END)] {
        log.extend(gather(shadow, &chain.readable, skip, END));
    }
    for skip in [to.saturating_sub(END), 0] {
        scatter(shadow, &chain.writable, skip, &pattern(chain.head));
    }
    Ok(to.min(END))
}
