// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Expectations are from virtio 1.3, 5.2 and 2.7.4; the clause stands at each test.

mod bounds;
mod multi_queue;
mod requests;
mod ring;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::testing::{INDIRECT_DESC, Memory, Rig};
use crate::virtio::Handle;

/// Request types and status values (5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
/// VIRTIO_BLK_F_FLUSH.
const F_FLUSH: u64 = 1 << 9;

const SECTORS: u64 = 64;

/// What a disk was asked to do, beside reading.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Write(u64, u64),
    Flush,
    Discard(u64, u64),
    WriteZeroes(u64, u64, bool),
}

/// A disk in memory.
#[derive(Debug)]
struct Store {
    bytes: Vec<u8>,
    /// Said to have, if that is more.
    size: u64,
    read_only: bool,
    can_punch: bool,
    blocks: Blocks,
    fail: bool,
    /// Bytes that are there, of those in `size`.
    truncated: Option<usize>,
    calls: Vec<Call>,
    reads: usize,
    /// Reads and flushes last until somebody waits for this device.
    held: Option<Arc<Handle>>,
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Store>>);

impl Shared {
    fn new() -> Self {
        let bytes = (0..SECTORS * SECTOR).map(|i| u8::try_from((i ^ i >> 9) % 251).unwrap()).collect();
        let store = Store {
            bytes,
            size: 0,
            read_only: false,
            can_punch: true,
            blocks: Blocks::default(),
            fail: false,
            truncated: None,
            calls: Vec::new(),
            reads: 0,
            held: None,
        };
        Self(Arc::new(Mutex::new(store)))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Store) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Comes back when somebody waits, if anybody is to wait.
    fn hold(&self) {
        let held = self.with(|store| store.held.clone());
        let deadline = Instant::now() + Duration::from_secs(30);
        while held.as_ref().is_some_and(|device| device.waiting() == 0) {
            assert!(Instant::now() < deadline, "nobody waits");
            std::thread::yield_now();
        }
        if held.is_some() {
            // It waits by spinning at first, and would be next by luck.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn calls(&self) -> Vec<Call> {
        self.with(|store| std::mem::take(&mut store.calls))
    }

    fn bytes(&self, offset: u64, len: u64) -> Vec<u8> {
        let len = usize::try_from(len).unwrap();
        self.with(|store| store.part(offset, len).to_vec())
    }
}

impl Store {
    fn call(&mut self, call: Call) -> io::Result<()> {
        if self.fail {
            return Err(io::Error::other("broken"));
        }
        self.calls.push(call);
        Ok(())
    }

    fn part(&mut self, offset: u64, len: usize) -> &mut [u8] {
        let end = self.truncated.unwrap_or(self.bytes.len());
        let start = usize::try_from(offset).unwrap().min(end);
        &mut self.bytes[start..(start + len).min(end)]
    }
}

impl Disk for Shared {
    fn size(&self) -> u64 {
        self.with(|store| store.size.max(store.bytes.len() as u64))
    }
    fn read_only(&self) -> bool {
        self.with(|store| store.read_only)
    }
    fn can_punch(&self) -> bool {
        self.with(|store| store.can_punch)
    }
    fn blocks(&self) -> Blocks {
        self.with(|store| store.blocks)
    }
    fn read_at(&self, offset: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.with(|store| store.reads += 1);
        self.hold();
        self.with(|store| {
            if store.fail {
                return Err(io::Error::other("broken"));
            }
            let mut done = 0;
            for slice in to {
                let part = store.part(offset + done, slice.len());
                slice.copy_from(part);
                done += part.len() as u64;
            }
            Ok(done)
        })
    }
    fn write_at(&self, offset: u64, from: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.with(|store| {
            assert!(!store.read_only, "a read-only disk is written");
            let mut done = 0;
            for slice in from {
                let part = store.part(offset + done, slice.len());
                slice.copy_to(part);
                done += part.len() as u64;
            }
            store.call(Call::Write(offset, done))?;
            Ok(done)
        })
    }
    fn flush(&self) -> io::Result<()> {
        self.with(|store| store.call(Call::Flush))?;
        self.hold();
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(|store| store.call(Call::Discard(offset, len)))
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.with(|store| store.call(Call::WriteZeroes(offset, len, unmap)))
    }
}

/// A driver and a device on a disk.
struct Bench {
    rig: Rig,
    disk: Shared,
}

/// What came of a request.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u8,
    data: Vec<u8>,
    used_len: u32,
}

impl Bench {
    fn new() -> Self {
        Self::with(Shared::new(), F_FLUSH)
    }

    fn with(disk: Shared, features: u64) -> Self {
        Self::with_queues(disk, features, 1)
    }

    fn with_queues(disk: Shared, features: u64, queues: u16) -> Self {
        let blk = Blk::new(Arc::new(disk.clone()), "a serial", 64 << 20, queues);
        Self { rig: Rig::start(Memory::new(), Box::new(blk), features | INDIRECT_DESC), disk }
    }

    /// `readable` and `writable`, cut into buffers as they are; the last byte of `writable` is the status, which is
    /// preset to something that is no status.
    fn request(&mut self, readable: &[&[u8]], writable: &[u32]) -> Answer {
        self.request_on(0, readable, writable)
    }

    fn request_on(&mut self, queue: u16, readable: &[&[u8]], writable: &[u32]) -> Answer {
        let driver = &mut self.rig.drivers[usize::from(queue)];
        let places = driver.request(readable, writable);
        for &(address, len) in &places {
            self.rig.memory.write(address, &vec![0xee; len as usize]);
        }
        self.rig.serve(queue);
        let [(_, used_len)] = self.rig.drivers[usize::from(queue)].take_used()[..] else {
            panic!("not one used element")
        };
        let mut data = self.rig.memory.gather(&places);
        let status = data.pop().unwrap();
        assert_ne!(status, 0xee, "no status");
        assert!(used_len as usize <= data.len() + 1);
        Answer { status, data, used_len }
    }

    /// A request cut as drivers mostly do: header, data, status.
    fn ask(&mut self, kind: u32, sector: u64, out: &[u8], wanted: u32) -> Answer {
        let header = header(kind, sector);
        let readable: &[&[u8]] = if out.is_empty() { &[&header] } else { &[&header, out] };
        let writable: &[u32] = if wanted == 0 { &[1] } else { &[wanted, 1] };
        self.request(readable, writable)
    }
}

/// le32 type, le32 reserved, le64 sector (5.2.6).
fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

/// `struct virtio_blk_discard_write_zeroes` (5.2.6).
fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// 5.2.4, field by field.
#[test]
fn the_configuration_space_has_each_field_at_its_offset() {
    let blk = Blk::new(Arc::new(Shared::new()), "", 64 << 20, 1);
    let config = blk.config_space();
    let le32 = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!(
        u64::from_le_bytes(config[0..8].try_into().unwrap()),
        SECTORS,
        "capacity, in 512 byte sectors"
    );
    assert_eq!((le32(8), le32(12)), (65536, 126), "size_max, seg_max");
    assert_eq!(le32(20), 512, "blk_size");
    assert_eq!(config[33], 0, "unused0");
    let (sectors, segments, alignment) = (36, 40, 44);
    assert!(le32(sectors) > 0 && le32(segments) > 0 && le32(alignment).is_power_of_two(), "discard");
    let (sectors, segments, may_unmap) = (48, 52, 56);
    assert!(le32(sectors) > 0 && le32(segments) > 0, "write zeroes");
    assert_eq!(config[may_unmap], 1);
    assert_eq!(config[57..60], [0; 3], "unused1");
}

/// 5.2.3: bits; 5.2.5.2: FLUSH is always offered; discard and write-zeroes where the disk can, and is written at all.
#[test]
fn features_follow_the_disk() {
    let always = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9;
    for (read_only, can_punch, more) in
        [(false, true, 1 << 13 | 1 << 14), (false, false, 0), (true, true, 1 << 5), (true, false, 1 << 5)]
    {
        let disk = Shared::new();
        disk.with(|store| (store.read_only, store.can_punch) = (read_only, can_punch));
        assert_eq!(Blk::new(Arc::new(disk), "", 1 << 20, 1).features(), always | more);
    }
}

/// 5.2.4 and 5.2.5, point 5: `blk_size` and the topology are the disk's; capacity, and the units of a discard, are sectors
/// of 512 bytes whatever they are.
#[test]
fn the_sizes_of_blocks_are_the_disk_s() {
    const KIB: u32 = 1 << 10;
    let file = Blocks::default();
    let sectors_of_4k = Blocks { logical: 4 * KIB, physical: 4 * KIB, ..file };
    let emulated_512 = Blocks { physical: 4 * KIB, offset: 3584, transfer: [4 * KIB, 128 * KIB], ..file };
    let stripes =
        Blocks { physical: 64 * KIB, transfer: [64 * KIB, 1024 * KIB], discard: 64 * KIB, ..sectors_of_4k };
    // Larger than a page, which Linux does not take; and no fewer sectors than one, no more than one discard has.
    let large = Blocks { logical: 64 * KIB, physical: 64 * KIB, discard: u32::MAX / 512 * 512, ..file };
    let senseless = Blocks { logical: 1, physical: 0, offset: u32::MAX, transfer: [u32::MAX; 2], discard: 0 };
    for (blocks, blk_size, topology, alignment) in [
        (file, 512, (0, 0, 0, 0), 8),
        (sectors_of_4k, 4096, (0, 0, 0, 0), 8),
        (emulated_512, 512, (3, 7, 8, 256), 8),
        (stripes, 4096, (4, 0, 16, 256), 128),
        (large, 4096, (4, 0, 0, 0), 1 << 17),
        (senseless, 512, (0, 0, 0, u32::MAX / 512), 1),
    ] {
        let disk = Shared::new();
        disk.with(|store| store.blocks = blocks);
        let blk = Blk::new(Arc::new(disk), "", 64 << 20, 1);
        let config = blk.config_space();
        let le32 = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
        let min_io_size = u16::from_le_bytes(config[26..28].try_into().unwrap());
        assert_eq!(u64::from_le_bytes(config[0..8].try_into().unwrap()), SECTORS, "{blocks:?}");
        assert_eq!(le32(20), blk_size, "{blocks:?}");
        assert_eq!((config[24], config[25], min_io_size, le32(28)), topology, "{blocks:?}");
        assert_eq!(le32(44), alignment, "{blocks:?}");
        let offered = blk.features() & 1 << 10 != 0;
        assert_eq!(offered, topology != (0, 0, 0, 0), "VIRTIO_BLK_F_TOPOLOGY of {blocks:?}");
        assert!(blk.features() & 1 << 6 != 0, "VIRTIO_BLK_F_BLK_SIZE");
    }
}

/// A request of the largest size fits a pool many times over; no segment is above 256 KiB, a sector or less would not
/// be accepted by Linux, and there is always one segment.
#[test]
fn segment_limits_follow_the_pool() {
    for (pool, expected) in [
        (1u64 << 20, (4096, 32)),
        (2 << 20, (4096, 64)),
        (4 << 20, (4096, 126)),
        (8 << 20, (8192, 126)),
        (64 << 20, (65536, 126)),
        (256 << 20, (262_144, 126)),
        (1 << 30, (262_144, 126)),
        (1 << 46, (262_144, 126)),
        (0, (4096, 1)),
        (u64::MAX, (262_144, 126)),
    ] {
        assert_eq!(segment_limits(pool), expected, "{pool:#x}");
    }
    for pool in (1 << 20..1 << 31).step_by(0xf_f000) {
        let (size, segments) = segment_limits(pool);
        assert!(size.is_power_of_two() && (4096..=256 << 10).contains(&size));
        assert!(segments >= 1 && u64::from(size) * u64::from(segments) <= pool / 8);
        // 2.7.5.3.1: header, data and status are a chain no longer than the queue.
        assert!(segments + 2 <= u32::from(QUEUE_SIZE));
    }
}
