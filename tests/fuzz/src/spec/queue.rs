// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A split virtqueue, the device's side (virtio 1.3, 2.7).

use crate::memory::{Shadow, usize_of};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The driver broke a rule: the device must move nothing more, and need a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What the driver has written into the queue's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Queue Size.
    pub size: u16,
    /// Descriptor table, available ring, used ring.
    pub areas: [u64; 3],
}

/// Which rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// VIRTIO_F_INDIRECT_DESC.
    pub indirect: bool,
    /// VIRTIO_F_EVENT_IDX.
    pub event_idx: bool,
}

/// What a chain came to.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Used length.
    pub written: u64,
    /// The turn is over with it.
    pub much: bool,
}

impl From<u64> for Served {
    fn from(written: u64) -> Self {
        Self { written, much: false }
    }
}

/// What a turn left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// A used buffer notification is due.
    pub interrupt: bool,
    /// There may be more to do.
    pub more: bool,
}

/// A queue that is enabled.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Where it is: [homes](Shadow::home), which a pool that moves takes along.
    pub layout: Layout,
    rules: Rules,
    next_avail: u16,
    next_used: u16,
    /// The used index at the last decision about a notification.
    decided: u16,
}

/// The buffers of a chain: [home](Shadow::home) and length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Index of the first descriptor.
    pub head: u16,
    /// Device-readable.
    pub readable: Vec<(u64, u64)>,
    /// Device-writable.
    pub writable: Vec<(u64, u64)>,
}

impl Queue {
    /// 2.7: sizes and alignments of the areas, all of which must be the pool's. `None` if they are not.
    pub fn enable(shadow: &Shadow, layout: Layout, max_size: u16, rules: Rules) -> Option<Self> {
        let Layout { size, areas: [table, avail, used] } = layout;
        let n = u64::from(size);
        let good =
            size.count_ones() == 1 && size <= max_size && (table % 16, avail % 2, used % 4) == (0, 0, 0);
        let home = |address, len| shadow.home(address, len).filter(|_| good);
        let areas = [home(table, 16 * n)?, home(avail, 6 + 2 * n)?, home(used, 6 + 8 * n)?];
        Some(Self { layout: Layout { size, areas }, rules, next_avail: 0, next_used: 0, decided: 0 })
    }

    fn n(&self) -> u64 {
        u64::from(self.layout.size)
    }

    /// The next available chain, if there is one.
    pub fn pop(&mut self, shadow: &Shadow) -> Result<Option<Chain>, Broken> {
        let avail = self.layout.areas[1];
        let ahead = shadow.u16(avail + 2).wrapping_sub(self.next_avail);
        if ahead == 0 {
            return Ok(None);
        }
        if ahead > self.layout.size {
            return Err(Broken);
        }
        let head = shadow.u16(avail + 4 + 2 * (u64::from(self.next_avail) % self.n()));
        let chain = self.walk(shadow, head)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(Some(chain))
    }

    /// ... and if there is none, asks for a notification and looks again (2.7.13.3.1 from the device's side).
    pub fn pop_or_wait(&mut self, shadow: &mut Shadow) -> Result<Option<Chain>, Broken> {
        if let Some(chain) = self.pop(shadow)? {
            return Ok(Some(chain));
        }
        let used = self.layout.areas[2];
        if self.rules.event_idx {
            shadow.write(used + 4 + 8 * self.n(), &self.next_avail.to_le_bytes());
        } else {
            shadow.write(used, &[0, 0]);
        }
        self.pop(shadow)
    }

    /// The last chains are as if they had not been taken.
    pub fn give_back(&mut self, chains: u16) {
        self.next_avail = self.next_avail.wrapping_sub(chains);
    }

    /// 2.7.5, and the driver requirements 2.7.4.2 and 2.7.5.3.1.
    fn walk(&self, shadow: &Shadow, head: u16) -> Result<Chain, Broken> {
        let (mut table, mut entries, mut in_indirect) = (self.layout.areas[0], self.n(), false);
        let (mut index, mut chain, mut bytes) = (head, Chain { head, ..Chain::default() }, 0u64);
        loop {
            if u64::from(index) >= entries {
                return Err(Broken);
            }
            let raw: [u8; 16] = shadow.read(table + 16 * u64::from(index), 16).try_into().expect("16 bytes");
            let raw = u128::from_le_bytes(raw);
            let field = |at: u32, bits: u32| u64::try_from(raw >> at & ((1 << bits) - 1)).expect("few bits");
            let (address, len) = (field(0, 64), field(64, 32));
            let small = |at| u16::try_from(field(at, 16)).expect("16 bits");
            let (flags, next) = (small(96), small(112));
            if flags & INDIRECT != 0 {
                let allowed = self.rules.indirect && !in_indirect && flags & NEXT == 0;
                if !allowed || len == 0 || len % 16 != 0 {
                    return Err(Broken);
                }
                table = shadow.home(address, len).ok_or(Broken)?;
                (entries, in_indirect, index) = (len / 16, true, 0);
                continue;
            }
            bytes += len;
            let writable = flags & WRITE != 0;
            let too_many = chain.readable.len() + chain.writable.len() == usize::from(self.layout.size);
            let order = writable || chain.writable.is_empty();
            if bytes > 1 << 32 || too_many || !order {
                return Err(Broken);
            }
            let home = shadow.home(address, len).ok_or(Broken)?;
            if writable { &mut chain.writable } else { &mut chain.readable }.push((home, len));
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = next;
        }
    }

    /// Writes a used element `ahead` of the used index.
    pub fn stage(&self, shadow: &mut Shadow, ahead: u16, head: u16, written: u64) {
        let slot = u64::from(self.next_used.wrapping_add(ahead)) % self.n();
        let at = self.layout.areas[2] + 4 + 8 * slot;
        shadow.write(at, &u32::from(head).to_le_bytes());
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        shadow.write(at + 4, &written.to_le_bytes());
    }

    /// Shows the driver that many more used elements.
    pub fn publish(&mut self, shadow: &mut Shadow, elements: u16) {
        self.next_used = self.next_used.wrapping_add(elements);
        shadow.write(self.layout.areas[2] + 2, &self.next_used.to_le_bytes());
    }

    /// A hint: no notifications are needed. (With event indices there is no such hint.)
    pub fn suppress(&self, shadow: &mut Shadow) {
        if !self.rules.event_idx {
            shadow.write(self.layout.areas[2], &[1, 0]);
        }
    }

    /// 2.7.7.2: whether the driver wants to hear of what was used since the last decision.
    pub fn wants_interrupt(&mut self, shadow: &Shadow) -> bool {
        let (old, new) = (self.decided, self.next_used);
        self.decided = new;
        let avail = self.layout.areas[1];
        if old == new {
            false
        } else if self.rules.event_idx {
            // Was the element with the index used_event among them?
            let event = shadow.u16(avail + 4 + 2 * self.n());
            let passed = new.wrapping_sub(old);
            (0..passed).any(|element| old.wrapping_add(element) == event)
        } else {
            shadow.u16(avail) & 1 == 0
        }
    }

    /// One turn of a device that serves chains one by one: as many as the queue has descriptors at most, up to one that is
    /// much work.
    pub fn turn<S: Into<Served>>(
        &mut self,
        shadow: &mut Shadow,
        mut serve: impl FnMut(&mut Shadow, &Chain) -> Result<S, Broken>,
    ) -> Result<Turn, Broken> {
        self.suppress(shadow);
        let mut more = true;
        for _ in 0..self.layout.size {
            let Some(chain) = self.pop_or_wait(shadow)? else {
                more = false;
                break;
            };
            let Served { written, much } = serve(shadow, &chain)?.into();
            self.stage(shadow, 0, chain.head, written);
            self.publish(shadow, 1);
            if much {
                break;
            }
        }
        Ok(Turn { interrupt: self.wants_interrupt(shadow), more })
    }
}

/// Bytes of a list of buffers.
pub fn total(buffers: &[(u64, u64)]) -> u64 {
    buffers.iter().map(|(_, len)| len).sum()
}

/// What is left of the buffers after the first `skip` bytes, up to `len` bytes.
fn part(buffers: &[(u64, u64)], skip: u64, len: u64) -> Vec<(u64, u64)> {
    let (mut skip, mut left, mut parts) = (skip, len, Vec::new());
    for (address, len) in buffers {
        let skipped = skip.min(*len);
        let taken = left.min(len - skipped);
        if taken > 0 {
            parts.push((address + skipped, taken));
        }
        (skip, left) = (skip - skipped, left - taken);
    }
    parts
}

/// Reads from buffers, as far as they reach.
pub fn gather(shadow: &Shadow, buffers: &[(u64, u64)], skip: u64, len: u64) -> Vec<u8> {
    let parts = part(buffers, skip, len);
    parts.into_iter().flat_map(|(address, len)| shadow.read(address, len).to_vec()).collect()
}

/// Writes into buffers, as far as they reach; returns how many bytes that were.
pub fn scatter(shadow: &mut Shadow, buffers: &[(u64, u64)], skip: u64, bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    for (address, len) in part(buffers, skip, bytes.len() as u64) {
        let (now, later) = rest.split_at(usize_of(len));
        shadow.write(address, now);
        rest = later;
    }
    (bytes.len() - rest.len()) as u64
}
