// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Chains that share descriptors, tables that are as long as can be, and buffers that lie over the rings.

use super::{Result, Row, Stage, ensure};
use crate::guest::Hardware;
use crate::guest::device::{Device, NEEDS_RESET};
use crate::table::case::Setup;
use crate::table::subject::{Descriptor, INDIRECT, NEXT, WRITE};
use crate::table::{DISK_PATTERN, Kind, QUEUE_SIZE, Request};

/// Most entries of a table that an index reaches.
const ENTRIES: u64 = 1 << 16;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "two-heads-one-tail",
        clause: "virtio 1.3, 2.7.5: each is a chain by its `next` fields; nothing tells a device of the other",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            let header = honest.queue_table[0];
            stage.offer(&device, &honest, false, |hardware| {
                put(hardware, honest.descriptors, 3, header);
                available(hardware, &honest, &[0, 3]);
            })?;
            stage.used(&device, &honest, &[(0, 513..=513), (3, 513..=513)])?;
            let (status, data) = (honest.queue_table[2].address, honest.queue_table[1].address);
            ensure(stage.machine.hardware.read::<u8>(status) == 0, "the status is not OK")?;
            let same = (data..data + 512).all(|at| stage.machine.hardware.read::<u8>(at) == DISK_PATTERN);
            ensure(same, "the data is not the disk's")
        },
    },
    Row {
        name: "heads-in-a-chain",
        clause: "virtio 1.3, 2.7.5 and 2.7.6: a head is any index; a chain goes from there to where NEXT is not set",
        run: |stage| {
            let (device, honest) = stage.rng(false)?;
            let data = honest.queue_table[0].address;
            stage.offer(&device, &honest, false, |hardware| {
                for index in 0..3u16 {
                    let (address, flags) =
                        (data + 64 * u64::from(index), if index < 2 { WRITE | NEXT } else { WRITE });
                    let part = Descriptor { address, length: 64, flags, next: index + 1 };
                    put(hardware, honest.descriptors, index.into(), part);
                }
                available(hardware, &honest, &[0, 1, 2]);
            })?;
            stage.used(&device, &honest, &[(0, 1..=192), (1, 1..=128), (2, 1..=64)])
        },
    },
    Row {
        name: "one-chain-eight-times",
        clause: "virtio 1.3, 2.7.6: each entry is a chain's head; nothing tells a device that it has it already",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            stage.offer(&device, &honest, false, |hardware| available(hardware, &honest, &[0; 8]))?;
            stage.used(&device, &honest, &[const { (0, 513..=513) }; 8])
        },
    },
    Row {
        name: "tables-that-overlap",
        clause: "virtio 1.3, 2.7.5.3: each is a table by its address and length, the queue's one included",
        run: |stage| {
            let (device, honest) = stage.rng(true)?;
            let data = honest.chain()[0].address;
            let entry = |flags| Descriptor { address: data, length: 64, flags, next: 1 };
            let table = |address, entries: u32| Descriptor {
                address,
                length: 16 * entries,
                flags: INDIRECT,
                next: 0,
            };
            stage.offer(&device, &honest, true, |hardware| {
                // The last two entries of the queue's table are a chain of an indirect one; so is the last alone.
                put(hardware, honest.descriptors, 6, entry(WRITE | NEXT));
                put(hardware, honest.descriptors, 7, entry(WRITE));
                put(hardware, honest.descriptors, 0, table(honest.descriptors + 96, 2));
                put(hardware, honest.descriptors, 1, table(honest.descriptors + 112, 1));
                available(hardware, &honest, &[0, 1, 7]);
            })?;
            stage.used(&device, &honest, &[(0, 1..=128), (1, 1..=64), (7, 1..=64)])
        },
    },
    Row {
        name: "table-is-its-own-descriptor",
        clause: "virtio 1.3, 2.7.5.3.1: no INDIRECT within an indirect table",
        run: |stage| {
            let (device, honest) = stage.rng(true)?;
            let table = Descriptor { address: honest.descriptors, length: 128, flags: INDIRECT, next: 0 };
            stage.offer(&device, &honest, true, |hardware| put(hardware, honest.descriptors, 0, table))?;
            stage.refused(&device, &honest, 0)
        },
    },
    Row {
        name: "chain-through-a-long-table",
        clause: "virtio 1.3, 2.7.5.3: `next` is an index into a table of len / 16; no clause limits len",
        run: |stage| {
            for entries in [ENTRIES, ENTRIES + 1] {
                let (device, honest) = (stage.device, stage.long(entries)?);
                let [header, data, status, ..] = honest.chain();
                stage.offer(&device, &honest, true, |hardware| {
                    let table = honest.queue_table[0].address;
                    put(hardware, table, 0, Descriptor { next: 40_000, ..header });
                    put(hardware, table, 40_000, Descriptor { next: 65_535, ..data });
                    put(hardware, table, 65_535, status);
                })?;
                stage.bench.finish(&device, &honest)?;
            }
            Ok(())
        },
    },
    Row {
        name: "chain-of-65536",
        clause: "virtio 1.3, 2.7.5.3.1: no chain is longer than the Queue Size",
        run: |stage| long_chain(stage, 0),
    },
    Row {
        name: "chain-without-end",
        clause: "virtio 1.3, 2.7.5.2: no chain has a loop",
        run: |stage| long_chain(stage, NEXT),
    },
    Row {
        name: "data-over-descriptors",
        clause: "virtio 1.3, 2.7.13: a chain is what it was when it was taken; 2.7.5: what lies there then is none",
        run: |stage| {
            let (device, honest) = (stage.device, stage.over(|setup| setup.descriptors));
            stage.offer(&device, &honest, false, |_| ())?;
            stage.used(&device, &honest, &[(0, 513..=513)])?;
            stage.machine.hardware.write(honest.available + 2, 2u16);
            device.notify();
            stage.refused(&device, &honest, 1)
        },
    },
    Row {
        name: "data-over-available-ring",
        clause: "virtio 1.3, 2.7.13: idx counts entries, of which there are Queue Size; the data makes it more",
        run: |stage| {
            let (device, honest) = (stage.device, stage.over(|setup| setup.available));
            stage.offer(&device, &honest, false, |_| ())?;
            stage.refused(&device, &honest, 1)
        },
    },
    Row {
        name: "data-over-used-ring",
        clause: "virtio 1.3, 2.7.8: the device knows where it is in the used ring, and writes there after the data",
        run: |stage| {
            let (device, honest) = (stage.device, stage.over(|setup| setup.used));
            stage.offer(&device, &honest, false, |_| ())?;
            stage.used(&device, &honest, &[(0, 513..=513)])
        },
    },
];

/// For each type of queue.
pub(super) const ROWS_OF_EACH: &[Row] = &[Row {
    name: "buffers-of-no-bytes",
    clause: "virtio 1.3, 2.7.4.1: how a request is cut into descriptors says nothing; 2.7.5: no clause asks len to be more than 0",
    run: |stage| {
        let (device, places) = (stage.device, stage.places());
        for indirect in [false, true] {
            let mut setup = Setup::honest(&places, stage.kind.request(), indirect);
            let buffers = usize::from(setup.request.buffers());
            // Before each buffer one of none in the same direction: at the first byte of the pool, in it, at its last one.
            let honest = setup.chain();
            let nowhere = [places.pool, places.data(), places.pool_end - 1];
            for (index, address) in (0..buffers).zip(nowhere) {
                let next = u16::try_from(2 * index + 1).unwrap_or(0);
                let last = if index + 1 == buffers { 0 } else { NEXT };
                let Descriptor { flags, .. } = honest[index];
                let none = Descriptor { address, length: 0, flags: flags & WRITE | NEXT, next };
                setup.buffers()[2 * index] = none;
                let flags = flags & WRITE | last;
                setup.buffers()[2 * index + 1] = Descriptor { flags, next: next + 1, ..honest[index] };
            }
            if indirect {
                setup.queue_table[0].length *= 2;
            }
            let request = Setup::honest(&places, stage.kind.request(), indirect);
            stage.offer(&device, &request, indirect, |hardware| {
                let table = setup.indirect.map_or(setup.descriptors, |(table, _)| table);
                (0..).zip(setup.chain()).take(2 * buffers).for_each(|(at, it)| put(hardware, table, at, it));
                if indirect {
                    put(hardware, setup.descriptors, 0, setup.queue_table[0]);
                }
            })?;
            stage.bench.finish(&device, &request)?;
            ensure(device.status() & NEEDS_RESET == 0, "what may be served was refused")?;
        }
        Ok(())
    },
}];

impl Stage<'_> {
    /// The random number generator on the same transport, and an honest request for it.
    fn rng(&self, indirect: bool) -> core::result::Result<(Device, Setup), &'static str> {
        let mut devices = self.bench.victims(self.machine, Kind::Rng, self.device.is_pci());
        let device = devices.next().ok_or("there is no random number generator")?;
        Ok((device, Setup::honest(&self.bench.places(&device), Request::Random, indirect)))
    }

    /// A request of the disk in an indirect table of this length, at the end of the pool.
    fn long(&self, entries: u64) -> core::result::Result<Setup, &'static str> {
        let places = self.places();
        let mut honest = Setup::honest(&places, Request::Read, true);
        let address = places.pool_end - 16 * entries;
        honest.queue_table[0].address = address;
        honest.queue_table[0].length = u32::try_from(16 * entries).map_err(|_| "too long a table")?;
        honest.indirect = honest.indirect.map(|(_, table)| (address, table));
        Ok(honest)
    }

    /// A request of the disk whose data lies over an area of its queue.
    fn over(&self, area: fn(&Setup) -> u64) -> Setup {
        let mut honest = self.honest();
        honest.queue_table[1].address = area(&honest);
        honest
    }

    /// Prepares memory, changes it, and offers what is there then.
    fn offer(&self, device: &Device, setup: &Setup, indirect: bool, change: impl FnOnce(Hardware)) -> Result {
        ensure(device.reset() && device.negotiate(indirect), "the device does not start")?;
        self.bench.prepare(device, setup);
        change(self.machine.hardware);
        ensure(device.enable_queue(setup), "a queue in the pool was not enabled")?;
        self.bench.start(device, setup)
    }

    /// Waits until these chains are used, in any order, with so many bytes each, and nothing is refused.
    fn used(
        &self,
        device: &Device,
        setup: &Setup,
        chains: &[(u32, core::ops::RangeInclusive<u32>)],
    ) -> Result {
        let (hardware, count) = (self.machine.hardware, u16::try_from(chains.len()).unwrap_or(0));
        self.bench.wait(setup.used, count)?;
        let elements = || (0..u64::from(count)).map(|slot| setup.used + 4 + 8 * slot);
        for (head, lengths) in chains {
            let is_it = |at: &u64| hardware.read::<u32>(*at) == *head;
            let many = chains.iter().filter(|(other, _)| other == head).count();
            ensure(elements().filter(is_it).count() == many, "not every chain was used")?;
            let fits = |at| lengths.contains(&hardware.read::<u32>(at + 4));
            ensure(elements().filter(is_it).all(fits), "a used element has another length")?;
        }
        ensure(device.status() & NEEDS_RESET == 0, "what may be served was refused")
    }

    /// Waits until the device has refused, after this number of chains.
    fn refused(&self, device: &Device, setup: &Setup, after: u16) -> Result {
        device.wait_for_refusal()?;
        let used = self.machine.hardware.read::<u16>(setup.used + 2);
        ensure(used == after, "another number of chains was used before the refusal")
    }
}

/// A chain through all entries of the longest table, which there goes on with `flags` where it began.
fn long_chain(stage: &mut Stage<'_>, flags: u16) -> Result {
    let (device, honest) = (stage.device, stage.long(ENTRIES)?);
    let [header, data, ..] = honest.chain();
    stage.offer(&device, &honest, true, |hardware| {
        let table = honest.queue_table[0].address;
        put(hardware, table, 0, Descriptor { flags: NEXT, next: 1, ..header });
        for next in 2..=u16::MAX {
            let entry = Descriptor { length: 1, flags: WRITE | NEXT, next, ..data };
            put(hardware, table, u64::from(next) - 1, entry);
        }
        put(hardware, table, ENTRIES - 1, Descriptor { length: 1, flags: WRITE | flags, next: 1, ..data });
    })?;
    stage.refused(&device, &honest, 0)
}

/// Writes a descriptor of a table.
fn put(hardware: Hardware, table: u64, index: u64, descriptor: Descriptor) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = descriptor.bytes();
    hardware.write(table + 16 * index, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    hardware.write(table + 16 * index + 8, u64::from_le_bytes(rest));
}

/// Makes these heads available.
fn available(hardware: Hardware, setup: &Setup, heads: &[u16]) {
    for (slot, head) in (0..u64::from(QUEUE_SIZE)).zip(heads) {
        hardware.write(setup.available + 4 + 2 * slot, *head);
    }
    hardware.write(setup.available + 2, u16::try_from(heads.len()).unwrap_or(0));
}
