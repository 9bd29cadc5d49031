// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's buffers for the next frame, checked before it is read, so that it is read into them.

use super::{HEADER_LEN, QUEUE_SIZE};
use crate::pool::PoolRange;
use crate::queue::{Chain, Parts, Queue, parts};

/// Buffers at most, so that one system call can fill them: as many as the longest chain has.
const MAX_BUFFERS: usize = QUEUE_SIZE as usize;

/// Chains that are popped, but not used.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Head and bytes of each.
    chains: Vec<(u16, u64)>,
    /// The buffers of all of them, one after the other.
    buffers: Vec<PoolRange>,
    /// How many chains to look for: what a frame takes these days.
    wanted: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        let (chains, buffers) = (Vec::with_capacity(MAX_BUFFERS), Vec::with_capacity(MAX_BUFFERS));
        Self { chains, buffers, wanted: 1 }
    }
}

/// Whether a frame may begin or go on in this chain: device-writable, with room for the header (virtio 1.3, 5.1.6.3.1).
pub(super) fn can_receive(chain: &Chain) -> bool {
    chain.readable().is_empty() && chain.writable_len() >= HEADER_LEN as u64
}

impl Ahead {
    /// Pops chains for a frame, one if they are not mergeable (virtio 1.3, 5.1.6.3.2). There may be fewer, or none.
    ///
    /// A chain that is to be refused is left alone, and refused when a frame gets to it.
    pub(super) fn fill(&mut self, queue: &mut Queue, chain: &mut Chain, mergeable: bool) {
        self.chains.clear();
        self.buffers.clear();
        let wanted = if mergeable { self.wanted.min(queue.size().into()) } else { 1 };
        while self.chains.len() < wanted && matches!(queue.pop(chain), Ok(true)) {
            let buffers = self.buffers.len().saturating_add(chain.writable().len());
            if !can_receive(chain) || buffers > MAX_BUFFERS {
                queue.undo_pop(1);
                break;
            }
            self.chains.push((chain.head(), chain.writable_len()));
            self.buffers.extend(chain.writable());
        }
    }

    /// The next frame takes about as many chains as this one.
    pub(super) fn adapt(&mut self, used: u16) {
        self.wanted = usize::from(used).max(self.wanted.saturating_sub(1)).max(1);
    }

    /// Bytes that have room.
    pub(super) fn room(&self) -> u64 {
        self.chains.iter().map(|(_, room)| *room).fold(0, u64::saturating_add)
    }

    /// The bytes from `start` to `end` of these buffers.
    pub(super) fn parts(&self, start: u64, end: u64) -> Parts<'_> {
        parts(&self.buffers, start, end.saturating_sub(start))
    }

    /// Head and bytes of each chain.
    pub(super) fn chains(&self) -> &[(u16, u64)] {
        &self.chains
    }

    /// Makes all but the first `used` chains available again.
    pub(super) fn give_back_after(&self, used: u16, queue: &mut Queue) {
        let chains = u16::try_from(self.chains.len()).unwrap_or(u16::MAX);
        queue.undo_pop(chains.saturating_sub(used));
    }
}
