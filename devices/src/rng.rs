// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Entropy device (virtio 1.3, 5.4).

use std::fmt;
use std::io::Read;

use crate::ErrorLog;
use crate::pool::{Pool, Refusal};
use crate::queue::{Chain, Queue, Turn, parts};
use crate::virtio::{BOUNCE_SLOT, DeviceType, Kind, Lane, Queues};

const QUEUE_SIZES: &[u16] = &[16];

/// Most bytes for one request: a driver may get fewer than it asked for (virtio 1.3, 5.4.6.1), at least one.
const MAX_BYTES: usize = 4096;

/// An entropy device.
pub struct Rng {
    source: Box<dyn Read + Send>,
    chain: Chain,
    errors: ErrorLog,
}

impl Rng {
    /// An entropy device that hands out what `source` gives.
    pub fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, chain: Chain::default(), errors: ErrorLog::default() }
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng")
    }
}

impl DeviceType for Rng {
    fn kind(&self) -> Kind {
        Kind::Rng
    }

    fn features(&self) -> u64 {
        0
    }

    fn max_queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn buffers(&self) -> u64 {
        BOUNCE_SLOT
    }

    fn config_space(&self) -> Vec<u8> {
        Vec::new()
    }

    fn host_errors(&self) -> ErrorLog {
        self.errors.clone()
    }

    fn into_lanes(self: Box<Self>, _pool: &Pool) -> Vec<Box<dyn Lane>> {
        vec![self]
    }
}

impl Lane for Rng {
    fn start(&mut self, _features: u64) {}

    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal> {
        let Self { source, chain, errors } = self;
        let Some(queue) = queues.get(index) else { return Ok(Turn::default()) };
        queue.suppress_notifications()?;
        queue.turn(chain, |gate, chain| {
            let refuse = || Queue::wrong_direction(index, chain);
            // virtio 1.3, 5.4.6.1: "The driver MUST NOT place driver-readable buffers into the queue."
            if !chain.readable().is_empty() || chain.writable_len() == 0 {
                return Err(refuse());
            }
            let wanted = usize::try_from(chain.writable_len()).unwrap_or(MAX_BYTES).min(MAX_BYTES);
            let mut bytes = [0; MAX_BYTES];
            let bytes = bytes.get_mut(..wanted).unwrap_or_default();
            let filled = source.read_exact(bytes);
            if let Err(error) = filled {
                errors.record("read", &error, format_args!("{wanted} bytes of entropy; the guest gets none"));
                return Ok(0);
            }
            let written = parts(chain.writable(), 0, u64::MAX).write(gate, bytes).map_err(|_| refuse())?;
            Ok(u32::try_from(written).unwrap_or(u32::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Reason;
    use crate::testing::{Memory, Rig};

    /// Counts, so that it is seen where each byte went.
    struct Count(u8);

    impl Read for Count {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            for byte in to.iter_mut() {
                self.0 = self.0 % 250 + 1;
                *byte = self.0;
            }
            Ok(to.len())
        }
    }

    fn rig() -> Rig {
        Rig::start(Memory::new(), Box::new(Rng::new(Box::new(Count(0)))), 0)
    }

    /// virtio 1.3, 5.4.6.2: one or more random bytes, and the length says how many; 2.7.4.1: buffers cut anywhere.
    #[test]
    fn buffers_are_filled_as_far_as_the_length_says() {
        for lens in [vec![1], vec![64], vec![3, 0, 7, 100], vec![4096], vec![4000, 4000]] {
            let mut rig = rig();
            let places = rig.drivers[0].request(&[], &lens);
            rig.serve(0);
            let [(0, used)] = rig.drivers[0].take_used()[..] else { panic!("not one used element") };
            let bytes = rig.memory.gather(&places);
            assert!(used >= 1 && used as usize <= bytes.len());
            let (filled, rest) = bytes.split_at(used as usize);
            assert!(filled.iter().zip((1..=250u8).cycle()).all(|(got, expected)| *got == expected));
            assert!(rest.iter().all(|byte| *byte == 0));
            assert_eq!(rig.interrupts.take(), (1, 0));
        }
    }

    /// virtio 1.3, 5.4.6.1: "MUST NOT place device-readable buffers into the queue".
    #[test]
    fn readable_or_empty_buffers_are_refused() {
        let shapes: [(&[&[u8]], &[u32]); 4] =
            [(&[&[0; 8]], &[]), (&[&[0; 8]], &[8]), (&[&[]], &[8]), (&[], &[0])];
        for (readable, writable) in shapes {
            let mut rig = rig();
            rig.drivers[0].request(readable, writable);
            rig.assert_refused(0);
            assert_eq!(rig.refusals().first[0].0.reason, Reason::WrongDirection);
        }
    }
}
