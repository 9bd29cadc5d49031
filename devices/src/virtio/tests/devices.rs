// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each device type over each transport: found, initialised, one request of each kind, interrupts.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::blk::{Blk, Disk};
use crate::net::{Net, ReceiveOffloads, Tap};
use crate::rng::Rng;
use crate::testing::scatter;

over_each_transport! {
    a_block_device_reads_and_writes,
    a_network_device_sends_and_receives,
    an_entropy_device_gives_bytes,
}

/// A device that a driver has started.
struct Started<T> {
    memory: Rc<Memory>,
    transport: T,
    events: Loop,
    drivers: Vec<Driver>,
}

impl<T: Transport> Started<T> {
    fn new(device: Box<dyn DeviceType>, queues: u16) -> Self {
        let memory = Memory::at(crate::testing::BASE, 1 << 20);
        let (transport, worker) = T::plug(device, memory.gate.clone());
        let events = Loop::new(worker);
        transport.reset();
        [1, 3].into_iter().for_each(|status| transport.set_status(status));
        transport.accept(REQUIRED);
        transport.set_status(11);
        assert_eq!(transport.status(), 11);
        assert_eq!(transport.max_queue_size(queues), 0, "there are {queues} queues");
        let set_up = |queue| {
            let driver = Driver::new(&memory, transport.max_queue_size(queue));
            transport.set_queue(queue, driver.layout);
            transport.enable_queue(queue);
            assert!(transport.queue_enabled(queue));
            driver
        };
        let drivers = (0..queues).map(set_up).collect();
        transport.set_status(15);
        assert_eq!(transport.status(), 15);
        Self { memory, transport, events, drivers }
    }

    /// One request, which must be answered with an interrupt: what was written, of how many bytes.
    fn request(&mut self, queue: u16, readable: &[&[u8]], writable: &[u32]) -> (Vec<u8>, u32) {
        let driver = &mut self.drivers[usize::from(queue)];
        let places = driver.request(readable, writable);
        self.transport.notify(queue);
        self.events.run();
        let [(_, used)] = self.drivers[usize::from(queue)].take_used()[..] else { panic!("not used once") };
        assert_eq!(self.transport.take_interrupts(), (true, false));
        (self.memory.gather(&places), used)
    }
}

#[derive(Clone, Debug)]
struct Sectors(Arc<Mutex<Vec<u8>>>);

impl Disk for Sectors {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
    fn read_only(&self) -> bool {
        false
    }
    fn can_punch(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        let (bytes, mut at) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        for slice in to {
            slice.copy_from(&bytes[at..at + slice.len()]);
            at += slice.len();
        }
        Ok(at as u64 - offset)
    }
    fn write_at(&self, offset: u64, from: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        let (mut bytes, mut at) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        for slice in from {
            let end = at + slice.len();
            slice.copy_to(&mut bytes[at..end]);
            at = end;
        }
        Ok(at as u64 - offset)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        Ok(())
    }
}

/// 5.2.4: capacity in sectors; 5.2.6: type, sector, data, status.
fn a_block_device_reads_and_writes<T: Transport>() {
    let disk = Sectors(Arc::new(Mutex::new(vec![0x11; 8 * 512])));
    let mut blk = Started::<T>::new(Box::new(Blk::new(Arc::new(disk.clone()), "serial", 1 << 20, 1)), 1);
    assert_eq!(blk.transport.device_id(), 2);
    let mut capacity = [0; 8];
    blk.transport.read_config(0, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 8);
    let header = |kind: u8| {
        let mut header = [0; 16];
        (header[0], header[8]) = (kind, 3);
        header
    };
    assert_eq!(blk.request(0, &[&header(1), &[0x22; 512]], &[1]), (vec![0], 1));
    assert_eq!(disk.0.lock().unwrap()[3 * 512..4 * 512], [0x22; 512]);
    let (data, used) = blk.request(0, &[&header(0)], &[512, 1]);
    assert_eq!((&data[..512], data[512], used), (&[0x22; 512][..], 0, 513));
}

#[derive(Clone, Debug)]
struct Wire {
    arrived: Arc<EventFd>,
    incoming: Arc<Mutex<VecDeque<Vec<u8>>>>,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap for Wire {
    fn attach(&mut self, _attached: bool) -> io::Result<()> {
        Ok(())
    }
    fn set_offloads(&mut self, _offloads: ReceiveOffloads) -> io::Result<()> {
        Ok(())
    }
    fn receive(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<usize> {
        let incoming = self.incoming.lock().unwrap().pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        Ok(scatter(&incoming, frame))
    }
    fn send(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for slice in frame {
            let mut part = vec![0; slice.len()];
            slice.copy_to(&mut part[..]);
            bytes.extend(part);
        }
        self.sent.lock().unwrap().push(bytes);
        Ok(())
    }
    fn fd(&self) -> std::os::fd::RawFd {
        self.arrived.as_raw_fd()
    }
}

/// 5.1.4: mac; 5.1.6: a header of 12 bytes; queue 0 receives, queue 1 sends.
fn a_network_device_sends_and_receives<T: Transport>() {
    let arrived = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let wire = Wire { arrived, incoming: Arc::default(), sent: Arc::default() };
    let mac = [2, 0, 0, 1, 2, 3];
    let mut net = Started::<T>::new(Box::new(Net::new(vec![Box::new(wire.clone())], mac, 1500)), 2);
    assert_eq!(net.transport.device_id(), 1);
    let mut config = [0; 6];
    net.transport.read_config(0, &mut config);
    assert_eq!(config, mac);
    assert_eq!(net.request(1, &[&[0; 12], &[0x33; 60]], &[]), (vec![], 0));
    let sent = wire.sent.lock().unwrap().remove(0);
    assert_eq!(sent[12..], [0x33; 60]);

    let places = net.drivers[0].request(&[], &[2000]);
    net.transport.notify(0);
    net.events.run();
    assert_eq!((net.drivers[0].take_used(), net.transport.take_interrupts()), (vec![], (false, false)));
    wire.incoming.lock().unwrap().push_back([[0; 12].to_vec(), [0x44; 60].to_vec()].concat());
    wire.arrived.write(1).unwrap();
    net.events.run();
    assert_eq!((net.drivers[0].take_used(), net.transport.take_interrupts()), (vec![(0, 72)], (true, false)));
    assert_eq!(net.memory.gather(&places)[12..72], [0x44; 60]);
}

/// 5.4.6. It has no configuration space.
fn an_entropy_device_gives_bytes<T: Transport>() {
    let mut rng = Started::<T>::new(Box::new(Rng::new(Box::new(io::repeat(0x55)))), 1);
    assert_eq!(rng.transport.device_id(), 4);
    assert_eq!(rng.request(0, &[], &[64]), (vec![0x55; 64], 64));
}
