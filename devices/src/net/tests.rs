// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Expectations are from virtio 1.3, 5.1 and 2.7.4; the clause stands at each test.

mod ahead;
mod control;
mod lost;
mod mtu;
mod multi_queue;

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use event_manager::{EventManager, SubscriberOps};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::pool::{Reason, Structure};
use crate::queue::{Queue, QueueFeatures};
use crate::testing::{Desc, INDIRECT_DESC, Memory, Rig, scatter};
use crate::virtio::{EventFds, Worker};
use crate::waiters::Waiters;

/// VIRTIO_NET_F_MRG_RXBUF.
const MRG_RXBUF: u64 = 1 << 15;
/// The device's address and MTU, where nothing else is said.
const MAC: [u8; 6] = [2, 0, 0, 1, 2, 3];
const MTU: u16 = 1500;
/// VIRTIO_F_EVENT_IDX.
const EVENT_IDX: u64 = 1 << 29;
/// The largest packet of 5.1.6.3: "14 bytes of Ethernet header, plus 40 bytes of the IPv6 header, plus 65535 bytes",
/// and 12 bytes of header.
const LARGEST: usize = 12 + 14 + 40 + 65535;

/// A wire: what is on its way in, what went out, what was asked for.
#[derive(Debug, Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    offloads: Vec<ReceiveOffloads>,
    broken: Option<io::ErrorKind>,
    detached: bool,
    attach_fails: bool,
    /// Files that were attached and detached, of all queues of a tap.
    order: Arc<Mutex<Vec<(RawFd, bool)>>>,
    /// Host-virtual addresses and lengths of the parts that the last frame was read into.
    parts: Vec<(u64, u64)>,
    /// What the driver writes where while a frame is read.
    meanwhile: Option<(GuestMemoryMmap, u64, Vec<u8>)>,
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Wire>>, Arc<EventFd>);

impl Shared {
    fn new() -> Self {
        Self(Arc::default(), Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Wire) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        self.with(|wire| std::mem::take(&mut wire.sent))
    }
}

impl Tap for Shared {
    fn attach(&mut self, attached: bool) -> io::Result<()> {
        let fd = self.fd();
        self.with(|wire| {
            assert_eq!(wire.detached, attached, "neither attached nor detached twice");
            if wire.attach_fails && attached {
                return Err(io::Error::other("broken"));
            }
            wire.detached = !attached;
            wire.order.lock().unwrap().push((fd, attached));
            // As a tap does.
            wire.incoming.clear();
            Ok(())
        })
    }
    fn set_offloads(&mut self, offloads: ReceiveOffloads) -> io::Result<()> {
        self.with(|wire| wire.offloads.push(offloads));
        Ok(())
    }
    fn receive(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<usize> {
        self.with(|wire| {
            assert!(!wire.detached, "a detached queue is read");
            let incoming = wire.incoming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            wire.parts.clear();
            let parts = &mut wire.parts;
            let len = scatter(
                &incoming,
                &mut frame.inspect(|part| {
                    parts.push((part.ptr_guard().as_ptr().addr() as u64, part.len() as u64));
                }),
            );
            assert!(parts.len() <= 256 + 2, "a queue's descriptors, and two more");
            if let Some((ram, address, bytes)) = wire.meanwhile.take() {
                ram.write_slice(&bytes, GuestAddress(address)).unwrap();
            }
            Ok(len)
        })
    }
    fn send(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for slice in frame {
            let mut part = vec![0; slice.len()];
            slice.copy_to(&mut part[..]);
            bytes.extend(part);
        }
        self.with(|wire| {
            assert!(!wire.detached, "a detached queue is written");
            if let Some(kind) = wire.broken {
                return Err(kind.into());
            }
            wire.sent.push(bytes);
            Ok(())
        })
    }
    fn fd(&self) -> RawFd {
        self.1.as_raw_fd()
    }
}

/// A driver and a device on a wire.
struct Bench {
    rig: Rig,
    wire: Shared,
}

impl Bench {
    fn new(features: u64) -> Self {
        Self::in_memory(Memory::new(), features)
    }

    fn in_memory(memory: Rc<Memory>, features: u64) -> Self {
        let wire = Shared::new();
        let net = Net::new(vec![Box::new(wire.clone())], MAC, MTU);
        Self { rig: Rig::start(memory, Box::new(net), features), wire }
    }

    fn arrives(&self, frame: &[u8]) {
        self.wire.with(|wire| wire.incoming.push_back(frame.to_vec()));
        self.wire.1.write(1).unwrap();
    }

    /// Buffers for receiving, preset to 0xee.
    fn buffers(&mut self, lens: &[u32]) -> Vec<(u64, u32)> {
        let places = self.rig.drivers[0].request(&[], lens);
        for &(address, len) in &places {
            self.rig.memory.write(address, &vec![0xee; len as usize]);
        }
        places
    }

    fn receive(&mut self) -> Vec<(u32, u32)> {
        self.rig.serve(0);
        self.rig.drivers[0].take_used()
    }

    fn transmit(&mut self) -> Vec<(u32, u32)> {
        self.rig.serve(1);
        self.rig.drivers[1].take_used()
    }
}

/// A frame as the tap gives it: `struct virtio_net_hdr` (5.1.6) and a packet; what stands in
/// `num_buffers`, at offset 10, is not for the driver.
fn frame(len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| u8::try_from(i % 199 + 1).unwrap()).collect();
    frame[0] = 0; // flags: a tap without offloads sets none
    frame[10..12].fill(0xff);
    frame
}

/// What the driver has to find: the same with `num_buffers` of ours.
fn received(frame: &[u8], num_buffers: u16) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes[10..12].copy_from_slice(&num_buffers.to_le_bytes());
    bytes
}

/// 5.1.4: the MAC is at the start; 5.1.3.1: what a feature requires is offered with it.
#[test]
fn configuration_space_and_features_fit_the_device() {
    let net = Net::new(vec![Box::new(Shared::new())], MAC, MTU);
    assert_eq!(net.config_space()[..6], MAC);
    let features = net.features();
    let has = |bit: u32| features & 1 << bit != 0;
    assert!(has(5), "MAC");
    assert!(has(3), "MTU");
    let (csum, guest_csum) = (0, 1);
    for (feature, required) in [(7, guest_csum), (8, guest_csum), (11, csum), (12, csum)] {
        assert!(!has(feature) || has(required), "{feature} requires {required}");
    }
    assert!(!has(9) || has(7) || has(8), "GUEST_ECN");
    assert!(!has(13) || has(11) || has(12), "HOST_ECN");
    // Fields and queues of which there are none: STATUS, CTRL_VQ, MQ, HASH_REPORT, RSS.
    assert!([16, 17, 22, 57, 60].into_iter().all(|bit| !has(bit)));
}

/// 5.1.6.4.1: what the guest has not accepted is not sent to it; 5.1.3.1: TSO and ECN require GUEST_CSUM.
#[test]
fn the_tap_is_told_what_the_guest_accepted() {
    let (csum, tso4, tso6, ecn) = (1 << 1, 1 << 7, 1 << 8, 1 << 9);
    for (features, expected) in [
        (0, [false; 4]),
        (csum, [true, false, false, false]),
        (csum | tso4, [true, true, false, false]),
        (csum | tso6, [true, false, true, false]),
        (csum | tso4 | tso6 | ecn, [true; 4]),
        (tso4 | tso6 | ecn, [false; 4]),
        // The other direction is the guest's business.
        (1 | 1 << 11 | 1 << 12 | 1 << 13, [false; 4]),
    ] {
        let [csum, tso4, tso6, ecn] = expected;
        let bench = Bench::new(features);
        let offloads = bench.wire.with(|wire| wire.offloads.clone());
        assert_eq!(offloads, [ReceiveOffloads { csum, tso4, tso6, ecn }], "{features:#x}");
    }
}

/// 5.1.6.2, 2.7.4.1: header and packet in any arrangement of descriptors, also in an indirect table.
#[test]
fn a_frame_is_sent_however_it_is_cut() {
    let mut bench = Bench::new(INDIRECT_DESC);
    let sent = frame(1526);
    for cuts in [vec![], vec![12], vec![10], vec![11, 12, 13], vec![0, 5, 5, 600, 1526]] {
        let edges: Vec<usize> = [0].into_iter().chain(cuts).chain([sent.len()]).collect();
        let pieces: Vec<&[u8]> = edges.windows(2).map(|pair| &sent[pair[0]..pair[1]]).collect();
        bench.rig.drivers[1].request(&pieces, &[]);
        // 2.7.8: nothing is written to a transmitted buffer.
        assert!(matches!(bench.transmit()[..], [(_, 0)]));
        assert_eq!(bench.wire.sent(), [sent.as_slice()]);
    }
    let memory = bench.rig.memory.clone();
    let (at, table) = (memory.alloc(1526, 1), memory.alloc(32, 16));
    memory.write(at, &sent);
    memory.write_table(table, &[Desc::readable(at, 12).then(1), Desc::readable(at + 12, 1514)]);
    bench.rig.drivers[1].chain(&[Desc::indirect(table, 32)]);
    assert!(matches!(bench.transmit()[..], [(_, 0)]));
    assert_eq!(bench.wire.sent(), [sent]);
    assert_eq!(bench.rig.refusals().total, 0);
}

/// Many frames keep their order and are all used.
#[test]
fn a_full_transmit_queue_is_sent_in_order() {
    let mut bench = Bench::new(0);
    for n in 0..=255 {
        let mut frame = frame(60);
        frame[20] = n;
        bench.rig.drivers[1].request(&[&frame], &[]);
    }
    assert_eq!(bench.transmit(), (0..256).map(|head| (head, 0)).collect::<Vec<_>>());
    assert_eq!(
        bench.wire.sent().iter().map(|frame| frame[20]).collect::<Vec<_>>(),
        (0..=255).collect::<Vec<_>>()
    );
    assert!(bench.rig.interrupts.take().0 > 0);
}

/// 5.1.6.3: the largest packet there is.
#[test]
fn the_largest_packet_is_sent_whole() {
    let mut bench = Bench::new(0);
    bench.rig.drivers[1].request(&[&frame(LARGEST)], &[]);
    assert!(matches!(bench.transmit()[..], [(_, 0)]));
    assert!(bench.wire.sent() == [frame(LARGEST)]);
}

#[test]
fn the_largest_packet_is_received_whole() {
    let mut bench = Bench::new(0);
    let places = bench.buffers(&[u32::try_from(LARGEST).unwrap()]);
    bench.arrives(&frame(LARGEST));
    assert_eq!(bench.receive(), [(0, u32::try_from(LARGEST).unwrap())]);
    assert!(bench.rig.memory.gather(&places) == received(&frame(LARGEST), 1));
}

/// For each pair: 2 pages of each queue, 256 receive buffers of a slot, and the largest packet, in slots.
#[test]
fn room_is_for_receive_buffers_and_the_largest_packet() {
    let pair = 2 * 2 * 4096 + 256 * 2048 + 33 * 2048;
    for (pairs, control) in [(1, 0), (2, 2 * 4096)] {
        let taps = (0..pairs).map(|_| Box::new(Shared::new()) as _).collect();
        assert_eq!(Net::new(taps, MAC, MTU).room(), pairs * pair + control);
    }
}

/// 5.1.6.2: header and packet are device-readable; 2.7.4.2.
#[test]
fn a_transmit_buffer_of_the_wrong_shape_is_refused() {
    let frame = frame(100);
    let shapes: [(&[&[u8]], &[u32]); 5] = [
        (&[&frame], &[1]),
        (&[&frame], &[0]),
        (&[], &[100]),
        (&[&frame[..11]], &[]),
        (&[&[], &frame[..3]], &[]),
    ];
    for (readable, writable) in shapes {
        let mut bench = Bench::new(0);
        bench.rig.drivers[1].request(readable, writable);
        bench.rig.assert_refused(1);
        assert_eq!(bench.rig.refusals().first[0].0.reason, Reason::WrongDirection);
        assert_eq!(bench.wire.sent(), [[0u8; 0]; 0]);
    }
}

/// 5.1.6.4.1: num_buffers is 1; the frame, and nothing behind it.
#[test]
fn a_frame_is_received_into_one_buffer() {
    for features in [0, MRG_RXBUF] {
        for (buffer, len) in [(1526, 1526), (1526, 60), (12, 12), (2048, 13)] {
            let mut bench = Bench::new(features);
            let places = bench.buffers(&[buffer]);
            bench.arrives(&frame(len));
            assert_eq!(bench.receive(), [(0, u32::try_from(len).unwrap())]);
            let mut expected = received(&frame(len), 1);
            expected.resize(buffer as usize, 0xee);
            assert_eq!(bench.rig.memory.gather(&places), expected);
            assert_eq!(bench.rig.interrupts.take(), (1, 0));
        }
    }
}

/// 5.1.6.4.1: without VIRTIO_NET_F_GUEST_CSUM "the device MUST set flags to zero"; a tap says DATA_VALID regardless.
#[test]
fn flags_are_for_drivers_that_asked_for_them() {
    const GUEST_CSUM: u64 = 1 << 1;
    const DATA_VALID: u8 = 2;
    for (features, expected) in [(0, 0), (GUEST_CSUM, DATA_VALID)] {
        let mut bench = Bench::new(features);
        let places = bench.buffers(&[100]);
        let mut frame = frame(60);
        frame[0] = DATA_VALID;
        bench.arrives(&frame);
        bench.receive();
        assert_eq!(bench.rig.memory.gather(&places)[0], expected);
    }
}

/// What arrived before the driver was there has the shape that another driver could take: it is not for this one.
#[test]
fn frames_from_before_the_driver_are_not_delivered() {
    let wire = Shared::new();
    wire.with(|wire| wire.incoming.push_back(frame(60)));
    let net = Net::new(vec![Box::new(wire.clone())], MAC, MTU);
    let mut bench = Bench { rig: Rig::start(Memory::new(), Box::new(net), 0), wire };
    bench.buffers(&[100]);
    assert_eq!(bench.receive(), []);
    bench.arrives(&frame(61));
    assert_eq!(bench.receive(), [(0, 61)]);
}

/// 5.1.6.3.2: "each buffer can be split across multiple descriptor elements", num_buffers too.
#[test]
fn a_frame_is_received_however_the_buffer_is_cut() {
    for first in 0..=13 {
        for second in 0..=13 {
            for features in [0, MRG_RXBUF] {
                let mut bench = Bench::new(features);
                let places = bench.buffers(&[first, second, 60]);
                bench.arrives(&frame(55));
                assert_eq!(bench.receive(), [(0, 55)]);
                let bytes = bench.rig.memory.gather(&places);
                assert_eq!(bytes[..55], received(&frame(55), 1), "{first} {second}");
                assert!(bytes[55..].iter().all(|byte| *byte == 0xee));
            }
        }
    }
}

/// 5.1.6.4.1: num_buffers says how many, all but the last are full, and all are used together.
#[test]
fn a_frame_is_spread_over_mergeable_buffers() {
    for (buffers, len, used) in [
        (vec![100, 100, 100], 250, vec![100, 100, 50]),
        (vec![100, 100, 100], 200, vec![100, 100]),
        (vec![12, 12, 300], 100, vec![12, 12, 76]),
        (vec![50, 13, 1500], 64, vec![50, 13, 1]),
    ] {
        let mut bench = Bench::new(MRG_RXBUF);
        let places: Vec<_> = buffers.iter().flat_map(|&len| bench.buffers(&[len])).collect();
        bench.arrives(&frame(len));
        assert_eq!(bench.receive(), (0..).zip(used.clone()).collect::<Vec<_>>());
        let filled: Vec<_> = places.iter().zip(&used).map(|(&(at, _), &len)| (at, len)).collect();
        let expected = received(&frame(len), u16::try_from(used.len()).unwrap());
        assert_eq!(bench.rig.memory.gather(&filled), expected);
        assert_eq!(bench.rig.interrupts.take(), (1, 0));
    }
}

/// A frame waits for as many buffers as it takes; until then none is used (5.1.6.4.1: "together").
#[test]
fn a_frame_waits_for_buffers() {
    for features in [MRG_RXBUF, MRG_RXBUF | EVENT_IDX] {
        let mut bench = Bench::new(features);
        bench.arrives(&frame(250));
        bench.arrives(&frame(60));
        assert_eq!(bench.receive(), []);
        let mut places = Vec::new();
        for _ in 0..2 {
            places.extend(bench.buffers(&[100]));
            assert_eq!(bench.receive(), []);
        }
        if features & EVENT_IDX != 0 {
            // 2.7.10.2: the driver is to tell of the next buffer it adds.
            let event = bench.rig.memory.read_u16(bench.rig.drivers[0].avail_event());
            assert_eq!(event, bench.rig.drivers[0].avail);
        }
        assert_eq!(bench.rig.interrupts.take(), (0, 0));
        places.extend(bench.buffers(&[100]));
        assert_eq!(bench.receive(), [(0, 100), (1, 100), (2, 50)]);
        let bytes = bench.rig.memory.gather(&places);
        assert_eq!(bytes[..250], received(&frame(250), 3));
        // The one behind it is not lost.
        let places = bench.buffers(&[100]);
        assert_eq!(bench.receive(), [(3, 60)]);
        assert_eq!(bench.rig.memory.gather(&places)[..60], received(&frame(60), 1));
    }
}

/// A frame, and a notification of buffers, each wake the device; a frame that waits keeps nothing busy.
#[test]
fn frames_and_buffers_wake_the_worker() {
    let mut bench = Bench::new(0);
    let notifications = Arc::new(EventFds::new(2).unwrap());
    let mut events = EventManager::new().unwrap();
    events.add_subscriber(Worker::new(bench.rig.core.handle().clone(), notifications.clone()));
    let mut settle = || (0..100).take_while(|_| events.run_with_timeout(0).unwrap() > 0).count();
    settle();
    bench.arrives(&frame(60));
    assert_eq!(settle(), 1);
    bench.buffers(&[100]);
    notifications.notify(0);
    assert!((1..100).contains(&settle()));
    assert_eq!(bench.rig.drivers[0].take_used(), [(0, 60)]);
    // More frames than one turn takes.
    (0..200).for_each(|_| drop(bench.buffers(&[100])));
    (0..200).for_each(|_| bench.arrives(&frame(61)));
    assert!((2..100).contains(&settle()));
    assert_eq!(bench.rig.drivers[0].take_used().len(), 200);
}

/// A reset, say, comes between two frames; and a frame takes no more chains than there are descriptors.
#[test]
fn a_turn_gives_way_after_a_frame() {
    let mut bench = Bench::new(0);
    (0..3).for_each(|_| drop(bench.buffers(&[100])));
    (0..3).for_each(|_| bench.arrives(&frame(60)));
    let gate = bench.rig.core.summary().gate.clone();
    let layout = bench.rig.drivers[0].layout;
    let mut queue = Queue::new(&gate, 0, layout.size, layout, QueueFeatures::default()).unwrap();
    let waiters = Waiters::default();
    let _waiter = waiters.announce();
    queue.give_way_to(&waiters);
    let (mut receiver, mut chain) = (receive::Receiver::default(), Chain::default());
    let mut turn = || {
        let turn = receiver.turn(0, &mut queue, &mut chain, &mut bench.wire.clone(), &ErrorLog::default());
        turn.unwrap().more
    };
    for head in 0..3 {
        assert!(turn());
        assert_eq!(bench.rig.drivers[0].take_used(), [(head, 60)]);
    }
    assert!(!turn());
}

/// Nobody could take it: it is lost, and those after it are not.
#[test]
fn a_frame_that_no_buffer_can_take_is_lost() {
    let mut bench = Bench::new(0);
    bench.arrives(&frame(101));
    bench.arrives(&frame(100));
    let places = bench.buffers(&[100]);
    // 5.1.6.3.2: "MUST use only a single descriptor if MRG_RXBUF was not negotiated".
    bench.buffers(&[100]);
    assert_eq!(bench.receive(), [(0, 100)]);
    assert_eq!(bench.rig.memory.gather(&places), received(&frame(100), 1));

    let mut bench = Bench::new(MRG_RXBUF);
    (0..256).for_each(|_| drop(bench.buffers(&[12])));
    bench.arrives(&frame(256 * 12 + 1));
    bench.arrives(&frame(256 * 12));
    assert_eq!(bench.receive(), (0..256).map(|head| (head, 12)).collect::<Vec<_>>());
}

/// What waited for the driver that was is not given to the next one.
#[test]
fn a_waiting_frame_is_forgotten_at_a_reset() {
    let mut bench = Bench::new(0);
    bench.arrives(&frame(100));
    assert_eq!(bench.receive(), []);
    bench.rig.initialise(crate::testing::REQUIRED);
    bench.buffers(&[100]);
    assert_eq!(bench.receive(), []);
    bench.arrives(&frame(61));
    assert_eq!(bench.receive(), [(0, 61)]);
}

/// 5.1.6.3.1: device-writable, at least the size of the header.
#[test]
fn a_receive_buffer_of_the_wrong_shape_is_refused() {
    let shapes: [(&[&[u8]], &[u32]); 5] =
        [(&[&[0; 200]], &[]), (&[&[0]], &[200]), (&[&[]], &[200]), (&[], &[11]), (&[], &[5, 0, 6])];
    for (readable, writable) in shapes {
        for features in [0, MRG_RXBUF] {
            let mut bench = Bench::new(features);
            bench.rig.drivers[0].request(readable, writable);
            bench.arrives(&frame(100));
            bench.rig.assert_refused(0);
            assert_eq!(bench.rig.refusals().first[0].0.reason, Reason::WrongDirection);
            bench.rig.initialise(crate::testing::REQUIRED | features);
            bench.buffers(&[100]);
            bench.arrives(&frame(60));
            assert_eq!(bench.receive(), [(0, 60)]);
        }
    }
}

/// The second buffer of a frame is outside the pool: nothing goes there, and the first one is not given back as used.
#[test]
fn a_bad_buffer_among_mergeable_ones_is_refused() {
    let mut bench = Bench::new(MRG_RXBUF);
    bench.buffers(&[100]);
    let end = bench.rig.memory.end();
    bench.rig.drivers[0].chain(&[Desc::writable(end - 99, 100)]);
    bench.arrives(&frame(150));
    assert_eq!(bench.receive(), []);
    let refusal = bench.rig.refusals().first[0].0;
    let expected = (Structure::WritableBuffer, end - 99, 100, Reason::CrossesEnd);
    assert_eq!((refusal.structure, refusal.address, refusal.length, refusal.reason), expected);
    assert_eq!(bench.rig.memory.read(end - 99, 99), [0; 99]);
    assert_eq!((bench.rig.core.status(), bench.rig.interrupts.take().1), (15 | 64, 1));
}
