// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device refused to do, and why.

use std::fmt;

/// An access, or a use of a queue, that the driver asked for and did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// Index of the queue; for a message, its vector.
    pub queue: u16,
    /// What the driver pointed at, or described wrongly.
    pub structure: Structure,
    /// Guest-physical address of that structure.
    pub address: u64,
    /// Its length in bytes.
    pub length: u64,
    /// What was wrong.
    pub reason: Reason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { queue, structure, address, length, reason } = self;
        let owner = if *structure == Structure::Message { "vector" } else { "queue" };
        write!(f, "{owner} {queue}: {structure} at {address:#x}, {length} bytes: {reason}")
    }
}

/// A structure that a driver can point a device at (virtio 1.3, 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Structure {
    /// Descriptor table.
    DescriptorTable,
    /// Available ring, `used_event` included.
    AvailableRing,
    /// Used ring, `avail_event` included.
    UsedRing,
    /// One descriptor.
    Descriptor,
    /// Indirect descriptor table.
    IndirectTable,
    /// A buffer that the device reads.
    ReadableBuffer,
    /// A buffer that the device writes.
    WritableBuffer,
    /// The message of an MSI-X table entry: what the device writes, and where (PCI 3.0, 6.8.2.6).
    Message,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Structure::DescriptorTable => "descriptor table",
            Structure::AvailableRing => "available ring",
            Structure::UsedRing => "used ring",
            Structure::Descriptor => "descriptor",
            Structure::IndirectTable => "indirect table",
            Structure::ReadableBuffer => "device-readable buffer",
            Structure::WritableBuffer => "device-writable buffer",
            Structure::Message => "message",
        })
    }
}

/// Why a device refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The message would be written elsewhere than to a local APIC.
    #[error("not in the interrupt window")]
    NoInterrupt,
    /// Not a byte of it is in the pool.
    #[error("outside the pool")]
    Outside,
    /// Starts before the pool and reaches into it.
    #[error("crosses the start of the pool")]
    CrossesStart,
    /// Starts in the pool and reaches past its end.
    #[error("crosses the end of the pool")]
    CrossesEnd,
    /// Address plus length is past the end of the address space.
    #[error("wraps around the address space")]
    Wraps,
    /// virtio 1.3, 2.7: alignment of the three areas.
    #[error("misaligned")]
    Misaligned,
    /// virtio 1.3, 2.7: "Queue Size ... is always a power of 2", at most what the device offers.
    #[error("the queue size is not a power of two, or larger than offered")]
    QueueSize,
    /// virtio 1.3, 2.7.13: the available index ran ahead of the queue size.
    #[error("the available index is more than the queue size ahead")]
    AvailableIndex,
    /// A ring entry or `next` names no descriptor of its table.
    #[error("no such descriptor in its table")]
    DescriptorIndex,
    /// virtio 1.3, 2.7.5.3.1: a chain is no longer than the queue; so a loop is one, too.
    #[error("the chain loops or is longer than the queue")]
    ChainTooLong,
    /// virtio 1.3, 2.7.5.2: a chain has at most 2^32 bytes.
    #[error("the chain has more than 2^32 bytes")]
    ChainTooLarge,
    /// virtio 1.3, 2.7.5.3.1: INDIRECT needs VIRTIO_F_INDIRECT_DESC.
    #[error("INDIRECT without the feature")]
    IndirectNotNegotiated,
    /// virtio 1.3, 2.7.5.3.1: "MUST NOT set both VIRTQ_DESC_F_INDIRECT and VIRTQ_DESC_F_NEXT".
    #[error("INDIRECT together with NEXT")]
    IndirectWithNext,
    /// virtio 1.3, 2.7.5.3.1: no INDIRECT within an indirect table.
    #[error("INDIRECT inside an indirect table")]
    NestedIndirect,
    /// virtio 1.3, 2.7.5.3: the length of a table is a multiple of 16, and not 0.
    #[error("the length of the indirect table is not a positive multiple of 16")]
    IndirectLength,
    /// virtio 1.3, 2.7.4.2: device-writable descriptors come after device-readable ones.
    #[error("a device-readable descriptor after a device-writable one")]
    ReadableAfterWritable,
    /// The device type expects the other direction, or more bytes in this direction.
    #[error("wrong direction, or too short for the request")]
    WrongDirection,
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
