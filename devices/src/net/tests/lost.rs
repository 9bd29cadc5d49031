// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames of the driver that do not reach the wire.

use super::*;

/// A frame that no wire takes is lost, as on a wire, and its buffer is used.
#[test]
fn a_frame_that_cannot_be_sent_is_lost() {
    let mut bench = Bench::new(0);
    bench.rig.drivers[1].request(&[&frame(0x2_0000)], &[]);
    assert_eq!(bench.transmit(), [(0, 0)]);
    bench.wire.with(|wire| wire.broken = Some(io::ErrorKind::NotConnected));
    bench.rig.drivers[1].request(&[&frame(100)], &[]);
    assert_eq!(bench.transmit(), [(1, 0)]);
    bench.wire.with(|wire| wire.broken = None);
    bench.rig.drivers[1].request(&[&frame(100)], &[]);
    assert_eq!(bench.transmit(), [(2, 0)]);
    assert_eq!((bench.wire.sent(), bench.rig.refusals().total), (vec![frame(100)], 0));
}

/// What is no Ethernet frame, or has a header that the host does not take, is the driver's error: it is lost, and not
/// counted as the host's.
#[test]
fn a_frame_that_is_none_is_no_error_of_the_host() {
    let mut bench = Bench::new(0);
    let total = |bench: &Bench| bench.rig.core.summary().host_errors.total;
    for len in [HEADER_LEN, HEADER_LEN + 1, HEADER_LEN + 13] {
        bench.rig.drivers[1].request(&[&frame(len)], &[]);
        assert!(matches!(bench.transmit()[..], [(_, 0)]), "{len}");
    }
    assert_eq!(bench.wire.sent(), [[0u8; 0]; 0]);
    bench.rig.drivers[1].request(&[&frame(HEADER_LEN + 14)], &[]);
    assert!(matches!(bench.transmit()[..], [(_, 0)]));
    assert_eq!(bench.wire.sent(), [frame(HEADER_LEN + 14)]);
    for (kind, errors) in [(io::ErrorKind::InvalidInput, 0), (io::ErrorKind::NotConnected, 1)] {
        bench.wire.with(|wire| wire.broken = Some(kind));
        bench.rig.drivers[1].request(&[&frame(100)], &[]);
        assert!(matches!(bench.transmit()[..], [(_, 0)]));
        assert_eq!(total(&bench), errors, "{kind}");
    }
    assert_eq!(bench.rig.refusals().total, 0);
}
