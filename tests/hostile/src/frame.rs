// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames to nobody, which whoever gets them drops soon. Guest and lab share them.

/// The longest frame without segmentation: Ethernet's header and 1500 bytes.
pub const LONGEST: u32 = 1514;
/// Bytes of `struct virtio_net_hdr` with `num_buffers`, which is zero here (virtio 1.3, 5.1.6).
pub const HEADER: usize = 12;
/// Bytes of the headers of a TCP segment over IPv4 in a frame.
pub const HEADERS: usize = HDR_LEN as usize;
const HDR_LEN: u8 = 14 + 20 + 20;
/// Bytes of data in each segment that a long frame is cut into.
const SEGMENT: u16 = 1448;
/// VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4.
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
/// Where the checksum of a TCP segment starts in the frame, and where in the segment it is.
const CSUM_START: u8 = 14 + 20;
const CSUM_OFFSET: u8 = 16;

/// virtio's header and the first bytes of a frame of this length; all others are zeros. A long frame is one TCP segment that
/// has to be cut into many on a wire.
pub fn start(length: u32) -> ([u8; HEADER], [u8; HEADERS]) {
    let (mut header, mut frame) = ([0; HEADER], [0; HEADERS]);
    let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 1]);
    if length <= LONGEST {
        // A type for experiments (IEEE 802).
        put(12, &[0x88, 0xb5]);
        return (header, frame);
    }
    let [low, high] = SEGMENT.to_le_bytes();
    header[..10].copy_from_slice(&[
        NEEDS_CSUM,
        GSO_TCPV4,
        HDR_LEN,
        0,
        low,
        high,
        CSUM_START,
        0,
        CSUM_OFFSET,
        0,
    ]);
    let [_, _, high, low] = (length - 14).to_be_bytes();
    // IPv4: version and length, total length, do not fragment, time to live, TCP; from and to addresses for documentation.
    put(12, &[8, 0, 0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    // TCP: discard's port, a header of five words, ACK.
    put(34, &[0, 9, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff]);
    (header, frame)
}
