// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that are sent: to nobody, so that the host drops them soon.

use crate::guest::Hardware;

/// `struct virtio_net_hdr` (virtio 1.3, 5.1.6).
pub(super) const HEADER: u64 = 12;
/// The longest frame without segmentation: Ethernet's header and 1500 bytes.
const LONGEST: u32 = 1514;
/// Bytes of the headers of a TCP segment over IPv4, and of its data.
const HEADERS: u16 = 14 + 20 + 20;
const SEGMENT: u16 = 1448;
/// VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4.
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
/// Where the checksum of a TCP segment starts in the frame, and where in the segment it is.
const CSUM_START: u16 = 14 + 20;
const CSUM_OFFSET: u16 = 16;

/// Writes a frame of `length` bytes after its header at `at`; a long one is one TCP segment that the host has to cut into many
/// (VIRTIO_NET_F_HOST_TSO4). Returns the length of both.
pub(super) fn write(hardware: Hardware, at: u64, length: u32) -> u32 {
    let total = u64::from(length) + HEADER;
    (at..at + total).for_each(|byte| hardware.write(byte, 0u8));
    let frame = at + HEADER;
    let put = |offset: u64, bytes: &[u8]| {
        (frame + offset..).zip(bytes).for_each(|(at, byte)| hardware.write(at, *byte))
    };
    put(0, &[2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 1]);
    if length <= LONGEST {
        // A type for experiments (IEEE 802).
        put(12, &[0x88, 0xb5]);
    } else {
        hardware.write(at, NEEDS_CSUM);
        hardware.write(at + 1, GSO_TCPV4);
        for (field, value) in (1..).zip([HEADERS, SEGMENT, CSUM_START, CSUM_OFFSET]) {
            hardware.write(at + 2 * field, value);
        }
        let [_, _, high, low] = (length - 14).to_be_bytes();
        // IPv4: version and length, total length, do not fragment, time to live, TCP; from and to addresses for documentation.
        put(12, &[8, 0, 0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        // TCP: discard's port, a header of five words, ACK.
        put(34, &[0, 9, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff]);
    }
    u32::try_from(total).unwrap_or(0)
}
