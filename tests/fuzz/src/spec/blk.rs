// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A block device (virtio 1.3, 5.2), and the disk behind it.

use super::queue::{Broken, Chain, gather, scatter, total};
use crate::memory::{SIZE, Shadow, usize_of};

/// Bytes of the disk.
pub const DISK: u64 = 8 * SECTOR;
const SECTOR: u64 = 512;
/// The ID string, without the zeros after it.
pub const SERIAL: &str = "fuzzed-disk";
const ID_BYTES: u64 = 20;
/// Sectors of one discard: what cvmm says in `max_discard_sectors`.
const MAX_RANGE: u32 = 1 << 17;

/// What the host does at the next request that moves data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// What it should.
    #[default]
    None,
    /// An error before anything moved.
    Error,
    /// It moves this many bytes at most.
    Short(u64),
}

/// The disk: what the model's and the real device's have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Fails at every write.
    pub read_only: bool,
    /// Discard and write zeroes work.
    pub can_punch: bool,
    /// What happens next.
    pub fault: Fault,
    /// Flushes so far.
    pub flushes: u32,
}

impl Contents {
    /// A disk whose bytes differ.
    pub fn new(read_only: bool, can_punch: bool) -> Self {
        let bytes = (0..DISK).map(|at| u8::try_from((at * 7 + at / 256) % 251).expect("small")).collect();
        Self { bytes, read_only, can_punch, fault: Fault::None, flushes: 0 }
    }

    /// How many of `wanted` bytes the host moves; `None` is an error.
    pub fn moves(&self, wanted: u64) -> Option<u64> {
        match self.fault {
            Fault::None => Some(wanted),
            Fault::Error => None,
            Fault::Short(bytes) => Some(wanted.min(bytes)),
        }
    }

    /// What discard and write zeroes leave behind.
    pub fn zero(&mut self, offset: u64, len: u64) {
        self.bytes[usize_of(offset)..usize_of(offset + len)].fill(0);
    }

    fn has(&self, sector: u64, len: u64) -> Option<u64> {
        let end = u128::from(sector) * u128::from(SECTOR) + u128::from(len);
        (len.is_multiple_of(SECTOR) && end <= u128::from(DISK)).then(|| sector * SECTOR)
    }
}

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// Serves one request (5.2.6); returns the used length. `write_through`: VIRTIO_BLK_F_FLUSH was not accepted.
pub fn serve(
    shadow: &mut Shadow,
    chain: &Chain,
    disk: &mut Contents,
    write_through: bool,
) -> Result<u64, Broken> {
    let out_len = total(&chain.readable).checked_sub(16).ok_or(Broken)?;
    let in_len = total(&chain.writable).checked_sub(1).ok_or(Broken)?;
    let header = gather(shadow, &chain.readable, 0, 16);
    let kind = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
    let sector = u64::from_le_bytes(header[8..].try_into().expect("8 bytes"));
    let mut filled = 0;
    let status = if out_len.max(in_len) > SIZE {
        IOERR
    } else {
        match kind {
            0 if out_len > 0 => return Err(Broken),
            1 if in_len > 0 => return Err(Broken),
            0 => match (disk.has(sector, in_len), disk.moves(in_len)) {
                (Some(offset), Some(moved)) => {
                    let data = disk.bytes[usize_of(offset)..usize_of(offset + moved)].to_vec();
                    scatter(shadow, &chain.writable, 0, &data);
                    let whole = moved == in_len;
                    filled = if whole { in_len } else { 0 };
                    if whole { OK } else { IOERR }
                }
                _ => IOERR,
            },
            1 if disk.read_only => IOERR,
            1 => match (disk.has(sector, out_len), disk.moves(out_len)) {
                (Some(offset), Some(moved)) => {
                    let data = gather(shadow, &chain.readable, 16, moved);
                    disk.bytes[usize_of(offset)..usize_of(offset + moved)].copy_from_slice(&data);
                    let whole = moved == out_len;
                    disk.flushes += u32::from(whole && write_through);
                    if whole { OK } else { IOERR }
                }
                _ => IOERR,
            },
            4 => {
                disk.flushes += 1;
                OK
            }
            8 if in_len < ID_BYTES => IOERR,
            8 => {
                let mut id = SERIAL.as_bytes().to_vec();
                id.resize(usize_of(ID_BYTES), 0);
                scatter(shadow, &chain.writable, 0, &id);
                filled = ID_BYTES;
                OK
            }
            11 | 13 => punch(shadow, chain, disk, kind == 13, write_through),
            _ => UNSUPP,
        }
    };
    scatter_at_end(shadow, chain, status);
    // 2.7.8.2: "len" counts from the first byte on, as far as everything was written.
    Ok(if filled == in_len { in_len + 1 } else { 0 })
}

/// 5.2.6.2, discard and write zeroes, of one segment.
fn punch(shadow: &Shadow, chain: &Chain, disk: &mut Contents, zeroes: bool, write_through: bool) -> u8 {
    if !disk.can_punch {
        return UNSUPP;
    }
    if disk.read_only || total(&chain.readable) != 32 {
        return IOERR;
    }
    let segment = gather(shadow, &chain.readable, 16, 16);
    let sector = u64::from_le_bytes(segment[..8].try_into().expect("8 bytes"));
    let sectors = u32::from_le_bytes(segment[8..12].try_into().expect("4 bytes"));
    let flags = u32::from_le_bytes(segment[12..].try_into().expect("4 bytes"));
    if flags > u32::from(zeroes) {
        return UNSUPP;
    }
    let len = u64::from(sectors) * SECTOR;
    match disk.has(sector, len).filter(|_| sectors <= MAX_RANGE) {
        None => IOERR,
        Some(_) if len == 0 => OK,
        Some(_) if disk.fault == Fault::Error => IOERR,
        Some(offset) => {
            disk.zero(offset, len);
            disk.flushes += u32::from(write_through);
            OK
        }
    }
}

/// The status is the last byte that the device may write.
fn scatter_at_end(shadow: &mut Shadow, chain: &Chain, status: u8) {
    scatter(shadow, &chain.writable, total(&chain.writable) - 1, &[status]);
}
