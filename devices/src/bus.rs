// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A bus: address ranges and the devices that answer in them.

use std::fmt::Debug;
use std::sync::Arc;

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
    devices: Vec<(Range, Arc<dyn BusDevice>)>,
    /// Asked where none of them answers.
    movable: Option<Arc<dyn Decode>>,
}

impl Bus {
    /// Puts `device` on the bus.
    pub fn insert(&mut self, range: Range, device: Arc<dyn BusDevice>) -> Result<(), Overlap> {
        if let Some((other, _)) = self.devices.iter().find(|(other, _)| other.overlaps(&range)) {
            return Err(Overlap(range, *other));
        }
        self.devices.push((range, device));
        self.devices.sort_by_key(|(range, _)| *range);
        Ok(())
    }

    /// Lets `movable` answer what no device on the bus does.
    pub fn set_movable(&mut self, movable: Arc<dyn Decode>) {
        self.movable = Some(movable);
    }

    /// The guest reads.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    fn find(&self, address: u64, len: usize) -> Option<(u64, &dyn BusDevice)> {
        let access = Range::new(address, len as u64)?;
        let next = self.devices.partition_point(|(range, _)| range.base() <= address);
        let fixed = next.checked_sub(1).and_then(|index| self.devices.get(index));
        match fixed.filter(|(range, _)| range.contains(&access)) {
            Some((range, device)) => Some((address - range.base(), &**device)),
            None => self.movable.as_ref()?.decode(&access),
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
