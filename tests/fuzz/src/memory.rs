// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A pool between two guards, and the shadow of it: what the model says is in it.
//!
//! A pool that is memory of a PCI function moves with its BAR. The driver here writes to a byte's *home*, where it is while
//! the pool is at [`BASE`]; what it tells the device is where the byte is now.

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
        let shadow = Shadow { bytes: vec![0; size], base: Some(BASE) };
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

    /// Now the pool begins there, or it is nowhere.
    pub fn move_to(&mut self, base: Option<u64>) {
        self.shadow.base = base;
    }

    /// Where the pool begins now.
    pub fn base(&self) -> Option<u64> {
        self.shadow.base
    }

    /// Where the byte is now that has this home.
    pub fn now(&self, home: u64) -> u64 {
        home.wrapping_add(self.shadow.base.unwrap_or(BASE)).wrapping_sub(BASE)
    }

    /// The driver writes; what is not in the pool is not there.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        for (at, byte) in (0..).zip(bytes) {
            let offset = address.wrapping_add(at).wrapping_sub(BASE);
            if offset < SIZE {
                let offset = usize_of(offset);
                self.shadow.bytes[offset] = *byte;
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
        if pool != self.shadow.bytes {
            let pairs = pool.iter().zip(&self.shadow.bytes).enumerate();
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
pub struct Shadow {
    bytes: Vec<u8>,
    /// Where it is now.
    base: Option<u64>,
}

impl Shadow {
    /// The home of the first of these bytes, if all are the pool's; a range without bytes names an address that must be the
    /// pool's.
    pub fn home(&self, address: u64, len: u64) -> Option<u64> {
        let base = self.base?;
        let (first, end) = (u128::from(address), u128::from(address) + u128::from(len.max(1)));
        let good = first >= u128::from(base) && end <= u128::from(base) + u128::from(SIZE);
        good.then(|| BASE + (address - base))
    }

    /// Bytes that are the pool's.
    pub fn read(&self, address: u64, len: u64) -> &[u8] {
        let at = usize_of(address - BASE);
        &self.bytes[at..at + usize_of(len)]
    }

    /// Writes bytes that are the pool's.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = usize_of(address - BASE);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
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
