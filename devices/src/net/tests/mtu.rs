// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VIRTIO_NET_F_MTU (virtio 1.3, 5.1.3, 5.1.4.1), and frames that are larger than Ethernet's usual ones.

use super::*;

/// VIRTIO_NET_F_MTU.
const F_MTU: u64 = 1 << 3;
/// VIRTIO_NET_F_GUEST_CSUM and VIRTIO_NET_F_GUEST_TSO4.
const OFFLOADS: u64 = 1 << 1 | 1 << 7;
const JUMBO: u16 = 9000;
/// Header, Ethernet's header, a packet of the MTU.
const JUMBO_FRAME: usize = 12 + 14 + JUMBO as usize;

impl Bench {
    fn with_mtu(mtu: u16, features: u64) -> Self {
        let wire = Shared::new();
        let net = Net::new(vec![Box::new(wire.clone())], MAC, mtu);
        Self { rig: Rig::start(Memory::new(), Box::new(net), features), wire }
    }
}

/// 5.1.4: `mtu` is at offset 10, also if there is nothing to say of pairs, and is what it was when the device was made.
#[test]
fn the_mtu_is_in_the_configuration_space() {
    for mtu in [68, 1500, JUMBO, 65535] {
        for pairs in [1, 3] {
            let taps = (0..pairs).map(|_| Box::new(Shared::new()) as _).collect();
            let net = Net::new(taps, MAC, mtu);
            assert_ne!(net.features() & F_MTU, 0);
            let config = net.config_space();
            assert_eq!(config.len(), 12);
            assert_eq!(config[10..], mtu.to_le_bytes());
        }
    }
}

/// 5.1.4.1: "The device MUST forward transmitted packets of up to mtu [...] size [...] without fragmentation".
#[test]
fn a_frame_of_the_mtu_is_sent_whole() {
    for features in [0, F_MTU, F_MTU | MRG_RXBUF, F_MTU | OFFLOADS] {
        for mtu in [JUMBO, 65535] {
            let mut bench = Bench::with_mtu(mtu, features);
            let sent = frame(12 + 14 + 4 + usize::from(mtu));
            bench.rig.drivers[1].request(&[&sent[..12], &sent[12..4000], &sent[4000..]], &[]);
            assert!(matches!(bench.transmit()[..], [(_, 0)]));
            assert!(bench.wire.sent() == [sent], "{mtu}, {features:#x}");
        }
    }
}

/// In one buffer that can take it, or in as many as it takes.
#[test]
fn a_frame_of_9000_bytes_is_received_whole() {
    for features in [0, F_MTU, F_MTU | OFFLOADS] {
        for (merged, buffers) in [(0, &[9026][..]), (MRG_RXBUF, &[1526; 6]), (MRG_RXBUF, &[4096; 3])] {
            let mut bench = Bench::with_mtu(JUMBO, features | merged);
            let places: Vec<_> = buffers.iter().flat_map(|&len| bench.buffers(&[len])).collect();
            let mut sent = frame(JUMBO_FRAME);
            sent[1] = 0; // gso_type: NONE
            bench.arrives(&sent);
            let used = bench.receive();
            assert_eq!(used.len(), buffers.len());
            let filled: Vec<_> = places.iter().zip(&used).map(|(&(at, _), &(_, len))| (at, len)).collect();
            let expected = received(&sent, u16::try_from(buffers.len()).unwrap());
            assert!(bench.rig.memory.gather(&filled) == expected, "{features:#x}, {buffers:?}");
        }
    }
}

/// 5.1.4.1: "MUST NOT pass received packets that exceed mtu (plus low level ethernet header length) size with gso_type
/// NONE or ECN after VIRTIO_NET_F_MTU has been successfully negotiated". What comes after them is passed.
#[test]
fn a_frame_larger_than_the_mtu_is_lost() {
    let (none, tcp4, ecn) = (0, 1, 0x80);
    let (vlan, service_vlan, other) = ([0x81, 0], [0x88, 0xa8], [8, 0]);
    let mut cases = Vec::new();
    for (kind, tag) in [(other, 0), (vlan, 4), (service_vlan, 4)] {
        for gso in [none, ecn] {
            cases.extend([
                (F_MTU, gso, kind, JUMBO_FRAME + tag, true),
                (F_MTU, gso, kind, JUMBO_FRAME + tag + 1, false),
                // Not negotiated.
                (0, gso, kind, JUMBO_FRAME + tag + 1, true),
            ]);
        }
        // What is cut into segments may be longer.
        cases.extend([tcp4, tcp4 | ecn].map(|gso| (F_MTU, gso, kind, 60000, true)));
    }
    for (features, gso, kind, len, passes) in cases {
        for merged in [0, MRG_RXBUF] {
            let mut bench = Bench::with_mtu(JUMBO, features | merged | OFFLOADS);
            (0..2).for_each(|_| drop(bench.buffers(&[u32::try_from(LARGEST).unwrap()])));
            let mut first = frame(len);
            first[1] = gso;
            first[12 + 12..][..2].copy_from_slice(&kind);
            bench.arrives(&first);
            bench.arrives(&frame(61));
            let lens: Vec<_> = bench.receive().iter().map(|used| used.1 as usize).collect();
            let expected = if passes { vec![len, 61] } else { vec![61] };
            assert_eq!(lens, expected, "{features:#x}, {gso:#x}, {kind:x?}, {len}");
            assert_eq!(bench.rig.core.summary().host_errors.total, 0);
        }
    }
}
