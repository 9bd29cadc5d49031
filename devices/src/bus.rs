// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A bus: address ranges and the devices that answer in them.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cvmm_firmware::Range;

/// A device with registers on a bus. vCPU threads call it, several at once.
pub trait BusDevice: Debug + Send + Sync {
    /// The guest reads `data.len()` bytes at `offset` from the start of the device's range.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// The guest writes `data` at `offset` from the start of the device's range.
    fn write(&self, offset: u64, data: &[u8]);
}

/// Devices whose addresses the guest chooses.
pub trait Decode: Debug + Send + Sync {
    /// The device that answers all of `access`, and the access's offset in its window.
    fn decode(&self, access: &Range) -> Option<(u64, &dyn BusDevice)>;
}

/// The range of a new device overlaps that of another one.
#[derive(Debug, thiserror::Error)]
#[error("the bus range {0} overlaps another device's, {1}")]
pub struct Overlap(pub Range, pub Range);

/// Devices by address. What no device answers reads as ones, and writes to it are lost.
#[derive(Debug, Default)]
pub struct Bus {
    /// In ascending order, without overlap.
    devices: Vec<Fixed>,
    /// Asked where none of them answers.
    movable: Option<Arc<dyn Decode>>,
    /// Accesses there.
    elsewhere: Counters,
}

#[derive(Debug)]
struct Fixed {
    range: Range,
    device: Arc<dyn BusDevice>,
    accesses: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
}

/// How often the guest has read and written: each access that the guest's KVM hands over is an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accesses {
    /// Of the device with this range; `None`: of those that move, and where there is none.
    pub range: Option<Range>,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl Counters {
    fn now(&self, range: Option<Range>) -> Accesses {
        let [reads, writes] = [&self.reads, &self.writes].map(|counter| counter.load(Ordering::Relaxed));
        Accesses { range, reads, writes }
    }
}

impl Bus {
    /// Puts `device` on the bus.
    pub fn insert(&mut self, range: Range, device: Arc<dyn BusDevice>) -> Result<(), Overlap> {
        if let Some(other) = self.devices.iter().find(|other| other.range.overlaps(&range)) {
            return Err(Overlap(range, other.range));
        }
        self.devices.push(Fixed { range, device, accesses: Counters::default() });
        self.devices.sort_by_key(|fixed| fixed.range);
        Ok(())
    }

    /// How often the guest has accessed each device, and what else is there.
    pub fn accesses(&self) -> impl Iterator<Item = Accesses> {
        let fixed = self.devices.iter().map(|fixed| fixed.accesses.now(Some(fixed.range)));
        fixed.chain([self.elsewhere.now(None)])
    }

    /// Lets `movable` answer what no device on the bus does.
    pub fn set_movable(&mut self, movable: Arc<dyn Decode>) {
        self.movable = Some(movable);
    }

    /// The guest reads.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        let (counters, found) = self.find(address, data.len());
        counters.reads.fetch_add(1, Ordering::Relaxed);
        match found {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes.
    pub fn write(&self, address: u64, data: &[u8]) {
        let (counters, found) = self.find(address, data.len());
        counters.writes.fetch_add(1, Ordering::Relaxed);
        if let Some((offset, device)) = found {
            device.write(offset, data);
        }
    }

    fn find(&self, address: u64, len: usize) -> (&Counters, Option<(u64, &dyn BusDevice)>) {
        let Some(access) = Range::new(address, len as u64) else { return (&self.elsewhere, None) };
        let next = self.devices.partition_point(|fixed| fixed.range.base() <= address);
        let fixed = next.checked_sub(1).and_then(|index| self.devices.get(index));
        match fixed.filter(|fixed| fixed.range.contains(&access)) {
            Some(fixed) => (&fixed.accesses, Some((address - fixed.range.base(), &*fixed.device))),
            None => (&self.elsewhere, self.movable.as_ref().and_then(|movable| movable.decode(&access))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Echo;

    impl BusDevice for Echo {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }
        fn write(&self, _offset: u64, _data: &[u8]) {}
    }

    #[test]
    fn an_access_reaches_a_device_only_if_all_of_it_is_in_its_range() {
        let mut bus = Bus::default();
        bus.insert(Range::fixed(0x1000, 8), Arc::new(Echo)).unwrap();
        bus.insert(Range::fixed(0x1008, 8), Arc::new(Echo)).unwrap();
        assert!(bus.insert(Range::fixed(0x100f, 1), Arc::new(Echo)).is_err());
        for (address, expected) in
            [(0xffe, [0xff; 4]), (0x1000, [0; 4]), (0x1004, [4; 4]), (0x1006, [0xff; 4]), (0x100c, [4; 4])]
        {
            let mut data = [0xaa; 4];
            bus.read(address, &mut data);
            assert_eq!(data, expected, "{address:#x}");
        }
        bus.read(u64::MAX, &mut [0; 4]);
        bus.write(0x1008, &[0]);
        let counts: Vec<_> = bus.accesses().map(|a| (a.range.map(|r| r.base()), a.reads, a.writes)).collect();
        assert_eq!(counts, [(Some(0x1000), 2, 0), (Some(0x1008), 1, 1), (None, 3, 0)]);
    }

    /// Answers all accesses in a range with the same byte.
    #[derive(Debug)]
    struct Movable(Range, Same);

    #[derive(Debug)]
    struct Same(u8, std::sync::Mutex<Vec<u64>>);

    impl BusDevice for Same {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(self.0);
        }
        fn write(&self, offset: u64, _data: &[u8]) {
            self.1.lock().unwrap().push(offset);
        }
    }

    impl Decode for Movable {
        fn decode(&self, access: &Range) -> Option<(u64, &dyn BusDevice)> {
            let hit = self.0.contains(access);
            hit.then(|| (access.base() - self.0.base(), &self.1 as &dyn BusDevice))
        }
    }

    /// A device with an address of its own comes first; what it does not answer all of is the other's, if that answers
    /// all of it.
    #[test]
    fn what_moves_answers_where_nothing_else_does() {
        let mut bus = Bus::default();
        bus.insert(Range::fixed(0x1010, 0x10), Arc::new(Echo)).unwrap();
        let movable = Arc::new(Movable(Range::fixed(0x1000, 0x40), Same(0x77, std::sync::Mutex::default())));
        bus.set_movable(movable.clone());
        for (address, expected) in [
            (0xffe, [0xff; 4]),
            (0x1000, [0x77; 4]),
            (0x100e, [0x77; 4]),
            (0x1010, [0; 4]),
            (0x101c, [0xc; 4]),
            (0x101e, [0x77; 4]),
            (0x103c, [0x77; 4]),
            (0x103e, [0xff; 4]),
            (u64::MAX - 3, [0xff; 4]),
            (u64::MAX, [0xff; 4]),
        ] {
            let mut data = [0xaa; 4];
            bus.read(address, &mut data);
            assert_eq!(data, expected, "{address:#x}");
            bus.write(address, &data);
        }
        assert_eq!(*movable.1.1.lock().unwrap(), [0, 0xe, 0x1e, 0x3c]);
    }
}
