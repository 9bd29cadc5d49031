// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver's steps up to DRIVER_OK (virtio 1.3, 3.1.1), and where things are in the pool.

use super::lane::{Blocks, HEAD, HEADER, Lane, Slots};
use super::queue::{BYTES, MAX_SIZE, Queue};
use super::{Lanes, MAX_QUEUES, Result};
use crate::frame::LONGEST;
use crate::guest::device::{ACCESS_PLATFORM, Device, EVENT_IDX, VERSION_1};
use crate::guest::machine::Machine;
use crate::guest::pci;
use crate::speed::{Load, Order};

/// VIRTIO_BLK_F_FLUSH: writes need not be on stable storage at once. VIRTIO_BLK_F_MQ.
const BLK_FLUSH: u64 = 1 << 9;
const BLK_MQ: u64 = 1 << 12;
/// VIRTIO_NET_F_CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4: frames may be longer than what a wire takes.
const NET_OFFLOADS: u64 = 1 | 1 << 1 | 1 << 7 | 1 << 11;
/// What a buffer must hold then, with the header (virtio 1.3, 5.1.6.3.1).
const LONG_BUFFER: u64 = 65562;
const SECTOR: u64 = 512;
const PAGE: u64 = 4096;
/// A message to the local APICs, which this CPU does not take.
const MESSAGE: (u64, u32) = (0xfee0_0000, 0x30);

/// Starts the device that the order is for.
pub(super) fn set_up(machine: &Machine, order: &Order) -> Result<Lanes> {
    let hardware = machine.hardware;
    let Order { load, pci, event_idx, queues, .. } = *order;
    let is_it = |device: &Device| device.id == load.device() && device.is_pci() == pci;
    let device = machine.devices().find(is_it).ok_or("there is no such device")?;
    if !device.reset() {
        return Err("the device is not reset");
    }
    let offered = device.offered();
    let features = features(order);
    if event_idx && offered & EVENT_IDX == 0 {
        return Err("the device has no event indices");
    }
    if features & !offered & NET_OFFLOADS != 0 && load.device() == 1 {
        return Err("the device takes no long frames");
    }
    if !device.accept(features & offered) {
        return Err("the device does not take the features");
    }
    if usize::from(queues) > MAX_QUEUES || queues == 0 || order.bytes == 0 {
        return Err("no such number of queues or bytes");
    }
    if let Some(structures) = device.pci_structures() {
        let (address, data) = MESSAGE;
        hardware.write(structures.table, u32::try_from(address).unwrap_or(0));
        hardware.write(structures.table + 4, 0u32);
        hardware.write(structures.table + 8, data);
        hardware.write(structures.table + 12, 0u32);
        pci::enable_msix(hardware, &structures, true);
    }
    let mut pool = Pool { next: device.pool.0.next_multiple_of(PAGE), end: device.pool.1 };
    let mut enable = |queue| {
        let device = device.by_queue(queue);
        device.use_vector(0);
        Queue::enable(hardware, &device, pool.take(BYTES)?, event_idx)
    };
    let mut enabled: [Option<Queue>; MAX_QUEUES] = [const { None }; MAX_QUEUES];
    match load {
        // The other queue of the pair has nothing to do, and is there (virtio 1.3, 5.1.2).
        Load::Send => {
            enable(0)?;
            enabled[0] = Some(enable(1)?);
        }
        Load::Receive => {
            enabled[0] = Some(enable(0)?);
            enable(1)?;
        }
        _ => {
            for (queue, place) in (0..queues).zip(&mut enabled) {
                *place = Some(enable(queue)?);
            }
        }
    }
    let stride = stride(order);
    let mut lanes: Lanes = [const { None }; MAX_QUEUES];
    for (index, (place, queue)) in (0..).zip(lanes.iter_mut().zip(enabled)) {
        let Some(queue) = queue else { continue };
        let slots = Slots {
            heads: pool.take(HEAD * u64::from(MAX_SIZE))?,
            data: pool.take(stride * u64::from(order.depth))?,
            stride,
        };
        *place = Some(Lane::new(hardware, queue, order, slots, blocks(&device, order, index)?)?);
    }
    device.start();
    Ok(lanes)
}

/// What the driver can use.
fn features(order: &Order) -> u64 {
    let rings = if order.event_idx { EVENT_IDX } else { 0 };
    let own = match order.load {
        Load::Entropy => 0,
        Load::Send | Load::Receive if order.bytes > LONGEST => NET_OFFLOADS,
        Load::Send | Load::Receive => 0,
        _ => BLK_FLUSH | if order.queues > 1 { BLK_MQ } else { 0 },
    };
    VERSION_1 | ACCESS_PLATFORM | rings | own
}

/// Bytes from the data of a slot to that of the next.
fn stride(order: &Order) -> u64 {
    let bytes = u64::from(order.bytes);
    let bytes = match order.load {
        Load::Receive if order.bytes > LONGEST => LONG_BUFFER,
        Load::Receive => HEADER + u64::from(LONGEST),
        Load::Send => HEADER + bytes,
        _ => bytes,
    };
    bytes.next_multiple_of(PAGE)
}

/// What of the disk the lane with this number uses: all of it at random places, or a part of its own in order.
fn blocks(device: &Device, order: &Order, lane: u64) -> Result<Blocks> {
    if order.load.device() != 2 {
        return Ok(Blocks { first: 0, count: 0 });
    }
    let [low, high] = [0, 4].map(|offset| u64::from(device.configuration(offset)));
    let blocks = (high << 32 | low) / (u64::from(order.bytes) / SECTOR).max(1);
    let part = blocks / u64::from(order.queues);
    if part == 0 {
        return Err("the disk is too small");
    }
    let first = if order.load.is_random() { 0 } else { part * lane };
    Ok(Blocks { first, count: if order.load.is_random() { blocks } else { part } })
}

/// Memory of the pool that is not used yet.
struct Pool {
    next: u64,
    end: u64,
}

impl Pool {
    fn take(&mut self, bytes: u64) -> Result<u64> {
        let at = self.next;
        self.next = (at + bytes).next_multiple_of(PAGE);
        if self.next <= self.end { Ok(at) } else { Err("the pool is too small") }
    }
}
