// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One request (virtio 1.3, 5.2.6): `struct virtio_blk_req` in a chain.

use std::io;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::{Disk, ID_LEN, SECTOR};
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

/// Serves the request in `chain`.
///
/// # Errors
/// The chain is not a request: too short, or a part has the wrong direction. Nothing was moved.
pub(super) fn serve(
    gate: &Gate,
    queue: u16,
    chain: &Chain,
    disk: &dyn Disk,
    id: &[u8; ID_LEN],
    write_through: bool,
    errors: &ErrorLog,
) -> Result<Served, Refusal> {
    // The header is device-readable and comes first; the status byte is device-writable and comes last.
    let refuse = || Queue::wrong_direction(queue, chain);
    let out_len = chain.readable_len().checked_sub(HEADER_LEN as u64).ok_or_else(refuse)?;
    let in_len = chain.writable_len().checked_sub(1).ok_or_else(refuse)?;

    let mut header = [0; HEADER_LEN];
    parts(chain.readable(), 0, HEADER_LEN as u64).read(gate, &mut header).map_err(|_| refuse())?;
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    // More than the pool holds can only be the same memory several times: no transfer, but a way to keep us busy.
    let too_large = out_len.max(in_len) > gate.pool().size();
    let request = Request { gate, chain, sector: u64::from_le_bytes(sector), out_len, in_len };

    let mut work = 0;
    let outcome = match u32::from_le_bytes([t0, t1, t2, t3]) {
        _ if too_large => Err(Failure::Wrong),
        VIRTIO_BLK_T_IN if out_len > 0 => return Err(refuse()),
        VIRTIO_BLK_T_OUT if in_len > 0 => return Err(refuse()),
        VIRTIO_BLK_T_IN => request.read(disk),
        VIRTIO_BLK_T_OUT => request.write(disk, write_through, &mut work).map(|()| 0),
        VIRTIO_BLK_T_FLUSH => flush(disk, &mut work).map(|()| 0),
        VIRTIO_BLK_T_GET_ID => request.get_id(id),
        VIRTIO_BLK_T_DISCARD => request.punch(disk, false, write_through, &mut work).map(|()| 0),
        VIRTIO_BLK_T_WRITE_ZEROES => request.punch(disk, true, write_through, &mut work).map(|()| 0),
        _ => Err(Failure::Unsupported),
    };
    let (data, status) = match outcome {
        Ok(data) => (data, VIRTIO_BLK_S_OK),
        Err(Failure::Unsupported) => (0, VIRTIO_BLK_S_UNSUPP),
        Err(Failure::Wrong) => (0, VIRTIO_BLK_S_IOERR),
        Err(Failure::Host(operation, error, [offset, len])) => {
            errors.record(operation, &error, format_args!("{len} bytes at {offset}"));
            (0, VIRTIO_BLK_S_IOERR)
        }
    };
    let status = u8::try_from(status).unwrap_or(u8::MAX);
    parts(chain.writable(), in_len, 1).write(gate, &[status]).map_err(|_| refuse())?;
    // On a failed read the data bytes are as good as unwritten; the status byte is the last of the chain, though,
    // and "len" counts from its start only as far as everything before was written (virtio 1.3, 2.7.8.2).
    let written = if data == in_len { in_len + 1 } else { 0 };
    Ok(Served { written: u32::try_from(written).unwrap_or(u32::MAX), work })
}

struct Request<'a> {
    gate: &'a Gate,
    chain: &'a Chain,
    sector: u64,
    out_len: u64,
    in_len: u64,
}

impl Request<'_> {
    /// Returns the bytes written to the driver's buffers.
    fn read(&self, disk: &dyn Disk) -> Result<u64, Failure> {
        let offset = extent(disk, self.sector, self.in_len)?;
        let mut to =
            parts(self.chain.writable(), 0, self.in_len).slices(self.gate, &self.gate.account().written);
        let done = disk.read_at(offset, &mut to).and_then(|done| all(done, self.in_len));
        done.map_err(|error| Failure::Host("read", error, [offset, self.in_len]))
    }

    fn write(&self, disk: &dyn Disk, write_through: bool, work: &mut u64) -> Result<(), Failure> {
        if disk.read_only() {
            return Err(Failure::Wrong);
        }
        let offset = extent(disk, self.sector, self.out_len)?;
        let mut from = parts(self.chain.readable(), HEADER_LEN as u64, self.out_len)
            .slices(self.gate, &self.gate.account().read);
        let done = disk.write_at(offset, &mut from).and_then(|done| all(done, self.out_len));
        done.map_err(|error| Failure::Host("write", error, [offset, self.out_len]))?;
        if write_through { flush(disk, work) } else { Ok(()) }
    }

    fn get_id(&self, id: &[u8; ID_LEN]) -> Result<u64, Failure> {
        if self.in_len < ID_LEN as u64 {
            return Err(Failure::Wrong);
        }
        parts(self.chain.writable(), 0, self.in_len).write(self.gate, id)?;
        Ok(ID_LEN as u64)
    }

    /// Discard, or write zeroes: one range, as `max_discard_seg` and `max_write_zeroes_seg` say. Its length is `work`.
    fn punch(
        &self,
        disk: &dyn Disk,
        zeroes: bool,
        write_through: bool,
        work: &mut u64,
    ) -> Result<(), Failure> {
        if !disk.can_punch() {
            return Err(Failure::Unsupported);
        }
        if disk.read_only() || self.out_len != RANGE_LEN as u64 {
            return Err(Failure::Wrong);
        }
        let mut range = [0; RANGE_LEN];
        parts(self.chain.readable(), HEADER_LEN as u64, RANGE_LEN as u64).read(self.gate, &mut range)?;
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
        if write_through { flush(disk, work) } else { Ok(()) }
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
