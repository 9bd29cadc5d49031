// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pool memory: the only guest memory that a device can name.
//!
//! An address from a driver becomes usable in one way: [`Gate::check`] turns it into a [`PoolRange`], and only a
//! `PoolRange` can be read or written. The check is arithmetic on the address and the length; the contents of memory
//! never matter to it, so a driver that changes memory behind our back gains nothing.

mod audit;
mod gate;
mod refusal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cvmm_firmware::Range;
use vm_memory::{GuestAddress, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

pub use audit::{Account, Audit, Moved, Refusals, Tally};
pub use gate::Gate;
pub use refusal::{Reason, Refusal, Structure};

/// A mapped pool. Clones share the mapping, and move together.
#[derive(Clone, Debug)]
pub struct Pool {
    name: Arc<str>,
    /// Guest-physical address of the first byte, or [`NOWHERE`].
    base: Arc<AtomicU64>,
    region: Arc<GuestRegionMmap>,
}

/// No pool begins with the last byte of the address space.
const NOWHERE: u64 = u64::MAX;

impl Pool {
    /// The pool called `name`, whose guest-physical range starts at `base` and is backed by `mapping`, all of it.
    /// `None` if the mapping is empty or does not fit into the address space at `base`.
    pub fn new(name: &str, base: u64, mapping: MmapRegion) -> Option<Self> {
        let region = GuestRegionMmap::new(mapping, GuestAddress(base))?;
        Range::new(base, region.len()).filter(|range| range.base() != NOWHERE)?;
        Some(Self { name: name.into(), base: Arc::new(base.into()), region: Arc::new(region) })
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, in guest-physical addresses; `None` while it is nowhere.
    pub fn range(&self) -> Option<Range> {
        let base = self.base.load(Ordering::Acquire);
        Range::new(base, self.size()).filter(|range| range.base() != NOWHERE)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.region.len()
    }

    /// Moves it: from now on its first byte is at `base`, or at no address, and then nothing passes a gate to it. Memory in
    /// a BAR does that. What passed before stays valid, since it is an offset: the memory moves with its bytes.
    pub fn move_to(&self, base: Option<u64>) {
        self.base.store(base.unwrap_or(NOWHERE), Ordering::Release);
    }

    /// Host-virtual address and size in bytes of its mapping, for a KVM memory slot.
    pub fn mapping(&self) -> (u64, u64) {
        (self.region.as_ptr() as u64, self.region.len())
    }
}

/// Bytes of a pool that have passed the gate: an offset into the pool and a length.
/// The default is no bytes at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolRange {
    offset: u64,
    len: u64,
}

impl PoolRange {
    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no byte: a zero-length buffer.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// At most `len` bytes from `skip` bytes into this range; empty if `skip` is past its end. Never larger than
    /// `self`, so it needs no second check.
    pub fn part(&self, skip: u64, len: u64) -> PoolRange {
        let skip = skip.min(self.len);
        PoolRange { offset: self.offset + skip, len: len.min(self.len - skip) }
    }
}
