// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The gate: the one way from an address that a driver supplied to memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{AtomicAccess, ByteValued, Bytes, GuestMemoryRegion, MemoryRegionAddress, VolatileSlice};

use super::{Account, Audit, Pool, PoolRange, Reason};

/// A way to the pool for one thread of a device, with its account. Clones share both.
#[derive(Clone, Debug)]
pub struct Gate {
    pool: Pool,
    account: Arc<Account>,
    audit: Arc<Audit>,
}

// What a descriptor needs is always inlined: it costs no call, and the build without the check, with which the benchmark
// compares, has the same calls.
impl Gate {
    /// A device's gate to `pool`.
    pub fn new(pool: Pool) -> Self {
        let audit = Arc::<Audit>::default();
        Self { pool, account: audit.open_account(), audit }
    }

    /// The same gate for another thread of the device, with an account of its own.
    pub fn for_another_thread(&self) -> Self {
        Self { account: self.audit.open_account(), ..self.clone() }
    }

    /// The device's pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// This thread's account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// What all of the device's threads did.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Whether the driver may point the device at `len` bytes at guest-physical `address`: all of them are in the
    /// pool. A range of no bytes still names an address, which must be one of the pool's.
    #[inline(always)]
    pub fn check(&self, address: u64, len: u64) -> Result<PoolRange, Reason> {
        // Once: a pool that moves meanwhile was here or there for the whole check.
        let range = self.pool.range().ok_or(Reason::Outside)?;
        // For the benchmark of this check alone (devices/benches/gate).
        if cfg!(cvmm_unchecked) {
            return Ok(PoolRange { offset: address.wrapping_sub(range.base()), len });
        }
        let last = address.checked_add(len.max(1) - 1).ok_or(Reason::Wraps)?;
        match (address < range.base(), last > range.last()) {
            (false, false) => Ok(PoolRange { offset: address - range.base(), len }),
            _ if last < range.base() || address > range.last() => Err(Reason::Outside),
            (true, _) => Err(Reason::CrossesStart),
            (false, true) => Err(Reason::CrossesEnd),
        }
    }

    /// The bytes of `range`, for a transfer. The caller counts what it moves.
    ///
    /// # Errors
    /// None for a range of this gate's pool; `Outside` for one of another pool that is larger.
    #[inline(always)]
    pub fn slice(&self, range: PoolRange) -> Result<VolatileSlice<'_>, Reason> {
        let len = usize::try_from(range.len).map_err(|_| Reason::Outside)?;
        self.pool.region.get_slice(MemoryRegionAddress(range.offset), len).map_err(|_| Reason::Outside)
    }

    /// Reads an object of a ring or a table, once: what is decided on it is decided on this copy.
    #[inline(always)]
    pub fn read_obj<T: ByteValued>(&self, range: PoolRange, skip: u64) -> Result<T, Reason> {
        let part = self.field::<T>(range, skip)?;
        self.slice(part)?.read_obj(0).map_err(|_| Reason::Outside)
    }

    /// Writes an object into a ring.
    #[inline(always)]
    pub fn write_obj<T: ByteValued>(&self, range: PoolRange, skip: u64, value: T) -> Result<(), Reason> {
        let part = self.field::<T>(range, skip)?;
        self.slice(part)?.write_obj(value, 0).map_err(|_| Reason::Outside)
    }

    /// Loads a ring index that the driver writes meanwhile.
    #[inline(always)]
    pub fn load<T: AtomicAccess>(&self, range: PoolRange, skip: u64, order: Ordering) -> Result<T, Reason> {
        let part = self.field::<T>(range, skip)?;
        self.slice(part)?.load(0, order).map_err(|_| Reason::Outside)
    }

    /// Stores a ring index that the driver reads meanwhile.
    pub fn store<T: AtomicAccess>(
        &self,
        range: PoolRange,
        skip: u64,
        value: T,
        order: Ordering,
    ) -> Result<(), Reason> {
        let part = self.field::<T>(range, skip)?;
        self.slice(part)?.store(value, 0, order).map_err(|_| Reason::Outside)
    }

    /// The bytes of a `T` at `skip` in `range`, counted as one ring access.
    #[inline(always)]
    fn field<T>(&self, range: PoolRange, skip: u64) -> Result<PoolRange, Reason> {
        let size = size_of::<T>() as u64;
        let part = range.part(skip, size);
        if part.len != size {
            return Err(Reason::Outside);
        }
        self.account.rings.add(size);
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::MmapRegion;

    const BASE: u64 = 0x1000_0000;
    const SIZE: u64 = 0x20_0000;

    fn gate() -> Gate {
        let mapping = MmapRegion::new(usize::try_from(SIZE).unwrap()).unwrap();
        Gate::new(Pool::new("pool", BASE, mapping).unwrap())
    }

    /// Every way to be wrong, and the nearest ways to be right.
    #[test]
    fn only_ranges_inside_the_pool_pass() {
        let gate = gate();
        let end = BASE + SIZE;
        for (address, len) in [(BASE, 1), (BASE, SIZE), (end - 1, 1), (end - 4096, 4096), (end - 1, 0)] {
            let range = gate.check(address, len).unwrap();
            assert_eq!((range.offset, range.len), (address - BASE, len));
        }
        for (address, len, reason) in [
            (BASE - 1, 1, Reason::Outside),
            (BASE - 1, 2, Reason::CrossesStart),
            (BASE - 1, SIZE + 2, Reason::CrossesStart),
            (BASE, SIZE + 1, Reason::CrossesEnd),
            (end - 1, 2, Reason::CrossesEnd),
            (end, 1, Reason::Outside),
            (end, 0, Reason::Outside),
            (0, 0, Reason::Outside),
            (0, 1, Reason::Outside),
            (0, BASE, Reason::Outside),
            (0, BASE + 1, Reason::CrossesStart),
            (BASE, u64::MAX, Reason::Wraps),
            (u64::MAX, 1, Reason::Outside),
            (u64::MAX, 2, Reason::Wraps),
            (u64::MAX, u64::MAX, Reason::Wraps),
            (BASE, u64::MAX - BASE + 1, Reason::CrossesEnd),
            (1, u64::MAX, Reason::CrossesStart),
        ] {
            assert_eq!(gate.check(address, len), Err(reason), "{address:#x}+{len:#x}");
        }
    }

    /// Memory in a BAR: addresses go with it, what has passed stays, and nowhere is no address at all.
    #[test]
    fn a_pool_that_moves_takes_its_addresses_along() {
        let gate = gate();
        let range = gate.check(BASE + 0x1000, 8).unwrap();
        gate.write_obj(range, 0, 0x1122_3344_5566_7788_u64).unwrap();
        let far = 0x12_0000_0000;
        gate.pool().move_to(Some(far));
        assert_eq!(gate.check(BASE + 0x1000, 8), Err(Reason::Outside));
        assert_eq!(gate.check(far + 0x1000, 8), Ok(range));
        assert_eq!(gate.check(far + SIZE - 1, 2), Err(Reason::CrossesEnd));
        gate.pool().move_to(None);
        for address in [0, BASE + 0x1000, far + 0x1000, u64::MAX] {
            assert_eq!(gate.check(address, 1), Err(Reason::Outside), "{address:#x}");
        }
        assert_eq!((gate.pool().range(), gate.pool().size()), (None, SIZE));
        assert_eq!(gate.read_obj::<u64>(range, 0), Ok(0x1122_3344_5566_7788));
        // Where it would not fit below the end of the address space, it is nowhere either.
        gate.pool().move_to(Some(u64::MAX - 8));
        assert_eq!((gate.pool().range(), gate.check(u64::MAX - 8, 1)), (None, Err(Reason::Outside)));
    }

    #[test]
    fn a_part_is_never_larger_than_the_whole() {
        let range = gate().check(BASE + 100, 10).unwrap();
        assert_eq!(range.part(4, 100), PoolRange { offset: 104, len: 6 });
        assert_eq!(range.part(u64::MAX, u64::MAX), PoolRange { offset: 110, len: 0 });
    }

    #[test]
    fn a_field_past_the_end_of_its_range_is_refused() {
        let gate = gate();
        let range = gate.check(BASE, 10).unwrap();
        assert_eq!(gate.read_obj::<u32>(range, 6), Ok(0));
        assert_eq!(gate.read_obj::<u32>(range, 7), Err(Reason::Outside));
        assert_eq!(gate.audit().rings().accesses, 1);
    }
}
