// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests to a disk: pool, disk, status and used length are those of the model.

use std::io;
use std::sync::{Arc, Mutex};

use arbitrary::{Arbitrary, Unstructured};
use cvmm_devices::blk::{Blk, Disk};
use vm_memory::VolatileSlice;

use crate::driver::{Act, MAX_ACTS, Start};
use crate::memory::{SIZE, usize_of};
use crate::session::Session;
use crate::spec::blk::{Contents, DISK, Fault, SERIAL, serve};
use crate::spec::queue::Served;

/// VIRTIO_BLK_F_FLUSH.
const FLUSH: u64 = 1 << 9;

#[derive(Arbitrary, Debug)]
struct Input {
    read_only: bool,
    can_punch: bool,
    start: Start,
    acts: Vec<Act<Request>>,
}

/// What is read by the device.
#[derive(Arbitrary, Clone, Debug)]
enum Request {
    /// A header, and bytes after it.
    Plain(Kind, Sector, Vec<u8>),
    /// A header, and so many bytes more.
    Long(Kind, Sector, u16),
    /// Discard or write zeroes.
    Range(Kind, Sector, u16, u8),
    /// Anything.
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    In,
    Out,
    Flush,
    GetId,
    Discard,
    WriteZeroes,
    Other(u32),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Sector {
    Near(u8),
    Any(u64),
}

fn header(kind: Kind, sector: Sector) -> Vec<u8> {
    let kind = match kind {
        Kind::In => 0,
        Kind::Out => 1,
        Kind::Flush => 4,
        Kind::GetId => 8,
        Kind::Discard => 11,
        Kind::WriteZeroes => 13,
        Kind::Other(kind) => kind,
    };
    [u64::from(kind).to_le_bytes(), number(sector).to_le_bytes()].concat()
}

fn number(sector: Sector) -> u64 {
    match sector {
        Sector::Near(sector) => u64::from(sector % 12),
        Sector::Any(sector) => sector,
    }
}

impl From<Request> for Vec<u8> {
    fn from(request: Request) -> Self {
        match request {
            Request::Plain(kind, sector, bytes) => [header(kind, sector), bytes].concat(),
            Request::Long(kind, sector, more) => {
                let fill = more.to_le_bytes()[0];
                [header(kind, sector), vec![fill; usize::from(more % 0x900)]].concat()
            }
            Request::Range(kind, sector, sectors, flags) => {
                let mut bytes = header(kind, Sector::Near(0));
                bytes.extend(number(sector).to_le_bytes());
                bytes.extend(u32::from(sectors).to_le_bytes());
                bytes.extend([flags % 4, 0, 0, flags / 128]);
                bytes
            }
            Request::Bytes(bytes) => bytes,
        }
    }
}

/// A disk in memory.
#[derive(Clone, Debug)]
struct MemoryDisk(Arc<Mutex<Contents>>);

impl MemoryDisk {
    /// Moves bytes as far as the host does: `each` gets a slice, and where it is on the disk.
    fn transfer(
        &self,
        offset: u64,
        slices: &mut dyn Iterator<Item = VolatileSlice<'_>>,
        each: impl Fn(&mut [u8], &VolatileSlice<'_>),
    ) -> io::Result<u64> {
        let mut disk = self.0.lock().unwrap();
        let mut left = disk.moves(u64::MAX).ok_or_else(|| io::Error::other("made up"))?;
        let mut at = usize_of(offset);
        for slice in slices {
            let len = slice.len().min(usize_of(left));
            each(&mut disk.bytes[at..at + len], &slice);
            (at, left) = (at + len, left - len as u64);
        }
        Ok(at as u64 - offset)
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        DISK
    }
    fn read_only(&self) -> bool {
        self.0.lock().unwrap().read_only
    }
    fn can_punch(&self) -> bool {
        self.0.lock().unwrap().can_punch
    }
    fn read_at(&self, offset: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.transfer(offset, to, |disk, slice| slice.copy_from(disk))
    }
    fn write_at(&self, offset: u64, from: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.transfer(offset, from, |disk, slice| _ = slice.copy_to(disk))
    }
    fn flush(&self) -> io::Result<()> {
        self.0.lock().unwrap().flushes += 1;
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }
    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.fault == Fault::Error {
            return Err(io::Error::other("made up"));
        }
        disk.zero(offset, len);
        Ok(())
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut model = Contents::new(input.read_only, input.can_punch);
    let disk = MemoryDisk(Arc::new(Mutex::new(model.clone())));
    let mut session = Session::new(|_| Box::new(Blk::new(Arc::new(disk.clone()), SERIAL, SIZE, 2)));
    let mut features = session.start(&input.start, &[FLUSH]);
    for act in input.acts.iter().take(MAX_ACTS) {
        session.driver.act(&mut session.memory, act);
        match act {
            Act::Serve(queue) => {
                let write_through = features & FLUSH == 0;
                session.serve(*queue, |_, queue, memory| {
                    queue.turn(memory.shadow(), |shadow, chain| {
                        let flushes = model.flushes;
                        let written = serve(shadow, chain, &mut model, write_through)?;
                        Ok(Served { written, much: model.flushes != flushes })
                    })
                });
                assert!(*disk.0.lock().unwrap() == model, "the disk has what the model's has");
            }
            Act::Other(kind, bytes) => {
                let fault = match kind % 4 {
                    0 => Fault::None,
                    1 => Fault::Error,
                    _ => Fault::Short((*bytes).into()),
                };
                (model.fault, disk.0.lock().unwrap().fault) = (fault, fault);
            }
            Act::Restart(start) => features = session.start(start, &[FLUSH]),
            _ => {}
        }
    }
}
