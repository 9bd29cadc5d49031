// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One request (virtio 1.3, 5.2.6): `struct virtio_blk_req` in a chain.

use std::io;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::{Disk, ID_LEN, Ring, SECTOR};
use crate::ErrorLog;
use crate::pool::{Gate, Reason, Refusal};
use crate::queue::{Chain, Queue, Served, TURN_BYTES, parts};

/// type, reserved, sector.
const HEADER_LEN: usize = 16;
/// sector, num_sectors, flags: `struct virtio_blk_discard_write_zeroes`.
const RANGE_LEN: usize = 16;
/// Sectors of one discard or write-zeroes request, 64 MiB: where the file system writes zeros, that is work, and a turn is as
/// long as its last request.
pub(super) const MAX_PUNCH_SECTORS: u32 = 1 << 17;

/// How a request ended, other than well.
enum Failure {
    /// VIRTIO_BLK_S_IOERR: the request is wrong.
    Wrong,
    /// VIRTIO_BLK_S_IOERR: the host could not do this, with so many bytes from this byte of the disk on.
    Host(&'static str, io::Error, [u64; 2]),
    /// VIRTIO_BLK_S_UNSUPP.
    Unsupported,
}

impl From<Reason> for Failure {
    /// Does not happen: the chain has passed the gate.
    fn from(_: Reason) -> Self {
        Failure::Wrong
    }
}

/// What requests of one queue are served with.
pub(super) struct Host<'a> {
    pub(super) gate: &'a Gate,
    pub(super) queue: u16,
    pub(super) disk: &'a dyn Disk,
    pub(super) id: &'a [u8; ID_LEN],
    pub(super) write_through: bool,
    pub(super) errors: &'a ErrorLog,
}

/// How far a request is.
pub(super) enum Progress {
    /// Its status is in its chain.
    Done(Served),
    /// The ring has it, by its token.
    UnderWay,
}

/// A request as it was read, once: the driver may change the header meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Request {
    kind: u32,
    sector: u64,
    out_len: u64,
    in_len: u64,
    too_large: bool,
}

/// A ring, and the token of the next transfer.
pub(super) type Next<'r> = Option<(u16, &'r mut dyn Ring)>;

impl Request {
    /// Reads the request in `chain`.
    ///
    /// # Errors
    /// The chain is not a request: too short, or a part has the wrong direction. Nothing was moved.
    pub(super) fn read(host: &Host<'_>, chain: &Chain) -> Result<Self, Refusal> {
        // The header is device-readable and comes first; the status byte is device-writable and comes last.
        let refuse = || Queue::wrong_direction(host.queue, chain);
        let out_len = chain.readable_len().checked_sub(HEADER_LEN as u64).ok_or_else(refuse)?;
        let in_len = chain.writable_len().checked_sub(1).ok_or_else(refuse)?;

        let mut header = [0; HEADER_LEN];
        parts(chain.readable(), 0, HEADER_LEN as u64).read(host.gate, &mut header).map_err(|_| refuse())?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        // More than the pool holds can only be the same memory several times: no transfer, but a way to keep us busy.
        let too_large = out_len.max(in_len) > host.gate.pool().size();
        match kind {
            VIRTIO_BLK_T_IN if out_len > 0 && !too_large => Err(refuse()),
            VIRTIO_BLK_T_OUT if in_len > 0 && !too_large => Err(refuse()),
            _ => Ok(Self { kind, sector: u64::from_le_bytes(sector), out_len, in_len, too_large }),
        }
    }

    /// Bytes of the disk that it moves, if it moves any.
    pub(super) fn data_len(&self) -> u64 {
        self.out_len.max(self.in_len)
    }

    /// Serves it, or leaves it to the ring.
    pub(super) fn begin(&self, host: &Host<'_>, chain: &Chain, ring: Next<'_>) -> Result<Progress, Refusal> {
        let ring = ring.filter(|_| self.data_len() > 0);
        let mut work = 0;
        let outcome = match self.kind {
            _ if self.too_large => Err(Failure::Wrong),
            VIRTIO_BLK_T_IN => match self.read_data(host, chain, ring) {
                Ok(None) => return Ok(Progress::UnderWay),
                done => done.map(Option::unwrap_or_default),
            },
            VIRTIO_BLK_T_OUT => match self.write_data(host, chain, ring, &mut work) {
                Ok(None) => return Ok(Progress::UnderWay),
                done => done.map(|_| 0),
            },
            VIRTIO_BLK_T_FLUSH => flush(host.disk, &mut work).map(|()| 0),
            VIRTIO_BLK_T_GET_ID => self.get_id(host, chain),
            VIRTIO_BLK_T_DISCARD => self.punch(host, chain, false, &mut work).map(|()| 0),
            VIRTIO_BLK_T_WRITE_ZEROES => self.punch(host, chain, true, &mut work).map(|()| 0),
            _ => Err(Failure::Unsupported),
        };
        self.answer(host, chain, outcome, work).map(Progress::Done)
    }

    /// The ring has moved so many bytes for it, or none.
    pub(super) fn finish(
        &self,
        host: &Host<'_>,
        chain: &Chain,
        moved: io::Result<u64>,
    ) -> Result<Served, Refusal> {
        let mut work = 0;
        let outcome = match (self.kind, moved) {
            // What came short is done once more, as far as it goes.
            (VIRTIO_BLK_T_IN, Ok(moved)) if moved != self.in_len => {
                self.read_data(host, chain, None).map(Option::unwrap_or_default)
            }
            (VIRTIO_BLK_T_IN, Ok(moved)) => Ok(moved),
            (VIRTIO_BLK_T_OUT, Ok(moved)) if moved != self.out_len => {
                self.write_data(host, chain, None, &mut work).map(|_| 0)
            }
            (VIRTIO_BLK_T_OUT, Ok(_)) if host.write_through => flush(host.disk, &mut work).map(|()| 0),
            (_, Ok(_)) => Ok(0),
            (kind, Err(error)) => {
                let operation = if kind == VIRTIO_BLK_T_IN { "read" } else { "write" };
                let offset = self.sector.saturating_mul(SECTOR);
                Err(Failure::Host(operation, error, [offset, self.data_len()]))
            }
        };
        self.answer(host, chain, outcome, work)
    }

    /// Writes the status.
    fn answer(
        &self,
        host: &Host<'_>,
        chain: &Chain,
        outcome: Result<u64, Failure>,
        work: u64,
    ) -> Result<Served, Refusal> {
        let (data, status) = match outcome {
            Ok(data) => (data, VIRTIO_BLK_S_OK),
            Err(Failure::Unsupported) => (0, VIRTIO_BLK_S_UNSUPP),
            Err(Failure::Wrong) => (0, VIRTIO_BLK_S_IOERR),
            Err(Failure::Host(operation, error, [offset, len])) => {
                host.errors.record(operation, &error, format_args!("{len} bytes at {offset}"));
                (0, VIRTIO_BLK_S_IOERR)
            }
        };
        let status = u8::try_from(status).unwrap_or(u8::MAX);
        parts(chain.writable(), self.in_len, 1)
            .write(host.gate, &[status])
            .map_err(|_| Queue::wrong_direction(host.queue, chain))?;
        // On a failed read the data bytes are as good as unwritten; the status byte is the last of the chain, though,
        // and "len" counts from its start only as far as everything before was written (virtio 1.3, 2.7.8.2).
        let written = if data == self.in_len { self.in_len + 1 } else { 0 };
        Ok(Served { written: u32::try_from(written).unwrap_or(u32::MAX), work })
    }

    /// Returns the bytes written to the driver's buffers; none yet if it is under way.
    fn read_data(&self, host: &Host<'_>, chain: &Chain, ring: Next<'_>) -> Result<Option<u64>, Failure> {
        let offset = extent(host.disk, self.sector, self.in_len)?;
        let mut to = parts(chain.writable(), 0, self.in_len).slices(host.gate, &host.gate.account().written);
        let done = match ring {
            Some((token, ring)) => ring.read(token, offset, &mut to),
            None => host.disk.read_at(offset, &mut to).map(Some),
        };
        let done = done.and_then(|done| done.map(|done| all(done, self.in_len)).transpose());
        done.map_err(|error| Failure::Host("read", error, [offset, self.in_len]))
    }

    /// `None` if it is under way.
    fn write_data(
        &self,
        host: &Host<'_>,
        chain: &Chain,
        ring: Next<'_>,
        work: &mut u64,
    ) -> Result<Option<u64>, Failure> {
        if host.disk.read_only() {
            return Err(Failure::Wrong);
        }
        let offset = extent(host.disk, self.sector, self.out_len)?;
        let mut from = parts(chain.readable(), HEADER_LEN as u64, self.out_len)
            .slices(host.gate, &host.gate.account().read);
        let done = match ring {
            Some((token, ring)) => ring.write(token, offset, &mut from),
            None => host.disk.write_at(offset, &mut from).map(Some),
        };
        let done = done.and_then(|done| done.map(|done| all(done, self.out_len)).transpose());
        let done = done.map_err(|error| Failure::Host("write", error, [offset, self.out_len]))?;
        if done.is_some() && host.write_through {
            flush(host.disk, work)?;
        }
        Ok(done)
    }

    fn get_id(&self, host: &Host<'_>, chain: &Chain) -> Result<u64, Failure> {
        if self.in_len < ID_LEN as u64 {
            return Err(Failure::Wrong);
        }
        parts(chain.writable(), 0, self.in_len).write(host.gate, host.id)?;
        Ok(ID_LEN as u64)
    }

    /// Discard, or write zeroes: one range, as `max_discard_seg` and `max_write_zeroes_seg` say. Its length is `work`.
    fn punch(&self, host: &Host<'_>, chain: &Chain, zeroes: bool, work: &mut u64) -> Result<(), Failure> {
        let disk = host.disk;
        if !disk.can_punch() {
            return Err(Failure::Unsupported);
        }
        if disk.read_only() || self.out_len != RANGE_LEN as u64 {
            return Err(Failure::Wrong);
        }
        let mut range = [0; RANGE_LEN];
        parts(chain.readable(), HEADER_LEN as u64, RANGE_LEN as u64).read(host.gate, &mut range)?;
        let [sector @ .., n0, n1, n2, n3, f0, f1, f2, f3] = range;
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        // virtio 1.3, 5.2.6.2: unknown flags, and unmap on a discard, are not supported.
        let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 || (unmap && !zeroes) {
            return Err(Failure::Unsupported);
        }
        if sectors > MAX_PUNCH_SECTORS {
            return Err(Failure::Wrong);
        }
        let len = u64::from(sectors) * SECTOR;
        let offset = extent(disk, u64::from_le_bytes(sector), len)?;
        *work = len;
        let (operation, done) = match (len, zeroes) {
            (0, _) => return Ok(()),
            (_, true) => ("write zeroes", disk.write_zeroes(offset, len, unmap)),
            (_, false) => ("discard", disk.discard(offset, len)),
        };
        done.map_err(|error| Failure::Host(operation, error, [offset, len]))?;
        if host.write_through { flush(disk, work) } else { Ok(()) }
    }
}

/// Slow storage takes seconds for it, and a reset or the end of the run waits for the turn: one flush is all of its `work`.
fn flush(disk: &dyn Disk, work: &mut u64) -> Result<(), Failure> {
    *work = TURN_BYTES;
    disk.flush().map_err(|error| Failure::Host("flush", error, [0, disk.size()]))
}

/// What was moved, if it is all that was wanted. Fewer bytes: the disk was truncated while running.
fn all(done: u64, wanted: u64) -> io::Result<u64> {
    if done == wanted {
        return Ok(done);
    }
    let what = format!("only {done} of {wanted} bytes moved: was the file truncated?");
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
}

/// Byte offset of `len` bytes at `sector`, if they are whole sectors inside the disk (virtio 1.3, 5.2.6.2).
fn extent(disk: &dyn Disk, sector: u64, len: u64) -> Result<u64, Failure> {
    let inside = || {
        let offset = sector.checked_mul(SECTOR)?;
        let end = offset.checked_add(len)?;
        (len.is_multiple_of(SECTOR) && end <= disk.size()).then_some(offset)
    };
    inside().ok_or(Failure::Wrong)
}
