// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The matrix. Each [`Subject`] is a structure that a driver can point a device at, each [`Way`] is a way to point it
//! wrongly; a case is one of the first with one of the second. [`malformed`] has what is wrong in itself.
//!
//! What is expected of a case follows from the clauses that its rows name, and from nothing that cvmm does.

pub mod case;
pub mod feed;
pub mod malformed;
pub mod message;
pub mod subject;
pub mod way;

pub use case::{Case, Record, cases};
pub use message::{MESSAGES, Message, Use, messages};
pub use subject::{Kind, Request, Subject};
pub use way::Way;

/// Descriptors of every queue here.
pub const QUEUE_SIZE: u16 = 8;
/// Bytes of a descriptor (virtio 1.3, 2.7.5).
pub const DESCRIPTOR: u64 = 16;
/// Cases that one device is put through: of so many refusals its record is complete.
pub const CASES_PER_DEVICE: usize = 16;
/// Each byte of the disks, but for sector 2 once a served request has written it.
pub const DISK_PATTERN: u8 = 0x5d;
/// Each byte that is written there.
pub const WRITTEN: u8 = 0x11;
/// Each byte of a frame that is sent, but for one that asks.
pub const SENT: u8 = 0x33;
/// The IPv4 address that answers ARP, on the host's side of each network.
pub const ANSWERS: [u8; 4] = [192, 168, 90, 1];
/// The frame that asks for another: an ARP probe of it (RFC 5227, 1.1), which Linux answers whoever asks.
pub const PROBE: [u8; 42] = {
    let [a, b, c, d] = ANSWERS;
    [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // to all
        2, 0, 0, 0, 0, 1, 0x08, 0x06, // from us: ARP
        0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, a request
        2, 0, 0, 0, 0, 1, 0, 0, 0, 0, // from us, who have no IPv4 address
        0, 0, 0, 0, 0, 0, a, b, c, d, // for
    ]
};
/// Bytes of a request's data.
pub const DATA: u64 = 512;

/// Where things are in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// First byte of the pool.
    pub pool: u64,
    /// The byte after its last.
    pub pool_end: u64,
    /// First byte of the pool of another device, which ends where this one begins.
    pub other: u64,
    /// The device's own registers.
    pub registers: u64,
    /// Those of the other device, on mmio.
    pub window: u64,
    /// The BAR of another function, on PCI.
    pub bar: u64,
}

impl Places {
    /// Private memory that holds a canary, away from the pool: a device that writes here was not stopped.
    pub fn private(&self) -> u64 {
        self.pool_end + 0x10_0000
    }

    /// Private memory below both pools.
    pub fn private_below(&self) -> u64 {
        self.other - 0x10_0000
    }

    fn work(&self) -> u64 {
        self.pool + 0x1_0000
    }

    /// The queue's descriptor table, where an honest driver has it.
    pub fn descriptors(&self) -> u64 {
        self.work()
    }

    /// Its available ring.
    pub fn available(&self) -> u64 {
        self.work() + 0x1000
    }

    /// Its used ring.
    pub fn used(&self) -> u64 {
        self.work() + 0x2000
    }

    /// An indirect table.
    pub fn table(&self) -> u64 {
        self.work() + 0x3000
    }

    /// The header of a request.
    pub fn header(&self) -> u64 {
        self.work() + 0x4000
    }

    /// Its data.
    pub fn data(&self) -> u64 {
        self.work() + 0x5000
    }

    /// Its status byte.
    pub fn status(&self) -> u64 {
        self.work() + 0x6000
    }

    /// Rings and a frame on the queue by which a frame is asked for.
    pub fn asking(&self) -> Self {
        Self { pool: self.pool + 0x8_0000, ..*self }
    }
}
