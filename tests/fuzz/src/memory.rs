// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A pool between two guards, and the shadow of it: what the model says is in it.

#![allow(unsafe_code)]

use cvmm_devices::pool::{Gate, Pool};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// Where the pool is: not at 0, so that there is something before it.
pub const BASE: u64 = 0x4000_0000;
/// ... and its size: small, so that all of it is compared quickly.
pub const SIZE: u64 = 0x4000;
const GUARD: usize = 0x1000;
const CANARY: u8 = 0xc5;

thread_local! {
    static WHOLE: &'static MmapRegion =
        Box::leak(Box::new(MmapRegion::new(usize_of(SIZE) + 2 * GUARD).expect("memory")));
}

/// The pool as the device has it, and as the driver has it, who also sees the bytes around it.
#[derive(Debug)]
pub struct Memory {
    gate: Gate,
    whole: &'static MmapRegion,
    shadow: Shadow,
    seen: Vec<u8>,
}

impl Memory {
    /// A pool full of zeros. There is one a thread, used again and again.
    pub fn new() -> Self {
        let size = usize_of(SIZE);
        let whole = WHOLE.with(|whole| *whole);
        let (guard, zeros) = (vec![CANARY; GUARD], vec![0; size]);
        for (at, bytes) in [(0, &guard), (GUARD, &zeros), (GUARD + size, &guard)] {
            whole.as_volatile_slice().write_slice(bytes, at).expect("inside");
        }
        let builder =
            MmapRegionBuilder::new(size).with_mmap_prot(whole.prot()).with_mmap_flags(whole.flags());
        // SAFETY: these bytes are a part of a mapping that is never unmapped, and they are only accessed as volatile.
        let inner = unsafe { builder.with_raw_mmap_pointer(whole.as_ptr().add(GUARD)) }.build();
        let pool = Pool::new("pool", BASE, inner.expect("a part of a mapping")).expect("an address");
        let shadow = Shadow(vec![0; size]);
        Self { gate: Gate::new(pool), whole, shadow, seen: vec![0; size + 2 * GUARD] }
    }

    /// The device's way to the pool.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What the model says.
    pub fn shadow(&mut self) -> &mut Shadow {
        &mut self.shadow
    }

    /// The driver writes; what is not in the pool is not there.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        for (at, byte) in (0..).zip(bytes) {
            let offset = address.wrapping_add(at).wrapping_sub(BASE);
            if offset < SIZE {
                let offset = usize_of(offset);
                self.shadow.0[offset] = *byte;
                self.whole.as_volatile_slice().write_obj(*byte, GUARD + offset).expect("inside");
            }
        }
    }

    /// Fails unless the pool has what the model says, and the guards are as they were.
    pub fn check(&mut self) {
        let slice = self.whole.as_volatile_slice();
        slice.copy_to(&mut self.seen[..]);
        let (before, rest) = self.seen.split_at(GUARD);
        let (pool, after) = rest.split_at(usize_of(SIZE));
        assert!(
            before.iter().chain(after).all(|byte| *byte == CANARY),
            "a byte outside the pool was written"
        );
        if pool != self.shadow.0 {
            let pairs = pool.iter().zip(&self.shadow.0).enumerate();
            let wrong: Vec<_> = pairs.filter(|(_, (is, should))| is != should).take(8).collect();
            panic!("pool bytes that should be otherwise (offset, is, should be): {wrong:x?}");
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// The bytes of the pool as the model has them.
#[derive(Clone, Debug)]
pub struct Shadow(Vec<u8>);

impl Shadow {
    /// Whether all of these bytes are the pool's; a range without bytes names an address that must be the pool's.
    pub fn has(address: u64, len: u64) -> bool {
        let (first, end) = (u128::from(address), u128::from(address) + u128::from(len.max(1)));
        first >= u128::from(BASE) && end <= u128::from(BASE + SIZE)
    }

    /// Bytes that are the pool's.
    pub fn read(&self, address: u64, len: u64) -> &[u8] {
        let at = usize_of(address - BASE);
        &self.0[at..at + usize_of(len)]
    }

    /// Writes bytes that are the pool's.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = usize_of(address - BASE);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads a little endian number.
    pub fn u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address, 2).try_into().expect("two bytes"))
    }
}

/// What fits on any machine that this runs on.
pub fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("64 bits")
}
