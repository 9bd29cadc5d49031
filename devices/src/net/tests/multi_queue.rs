// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VIRTIO_NET_F_MQ: several pairs of queues (virtio 1.3, 5.1.2, 5.1.6.5.6).

use super::*;
use crate::testing::REQUIRED;
use crate::virtio::{Core, Interrupt};

/// VIRTIO_NET_F_CTRL_VQ and VIRTIO_NET_F_MQ.
pub(super) const CTRL_VQ: u64 = 1 << 17;
pub(super) const MQ: u64 = 1 << 22;

/// Notes the queues of used buffer notifications.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<u16>>);

impl Interrupt for Recorder {
    fn used_buffer(&self, queue: u16) {
        self.0.lock().unwrap().push(queue);
    }
    fn config_change(&self) {}
    fn reset(&self) {}
}

impl Recorder {
    fn take(&self) -> Vec<u16> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A device with three pairs, and a driver.
pub(super) struct Multi {
    pub(super) rig: Rig,
    pub(super) wires: Vec<Shared>,
    interrupts: Arc<Recorder>,
}

fn wires() -> Vec<Shared> {
    let wires: Vec<_> = (0..3).map(|_| Shared::new()).collect();
    let order = Arc::default();
    for (pair, wire) in wires.iter().enumerate() {
        wire.with(|wire| (wire.detached, wire.order) = (pair > 0, Arc::clone(&order)));
    }
    wires
}

fn net(wires: &[Shared]) -> Net {
    Net::new(wires.iter().map(|wire| Box::new(wire.clone()) as _).collect(), MAC, MTU)
}

impl Multi {
    pub(super) fn new(features: u64) -> Self {
        let (wires, interrupts, memory) = (wires(), Arc::<Recorder>::default(), Memory::new());
        let core = Core::new("device", Box::new(net(&wires)), memory.gate.clone(), interrupts.clone());
        let mut rig = Rig { memory, core, interrupts: Arc::default(), drivers: Vec::new() };
        rig.initialise(features | REQUIRED);
        Self { rig, wires, interrupts }
    }

    /// VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET (5.1.6.5.5).
    pub(super) fn set_pairs(&mut self, pairs: u16) -> u8 {
        let [low, high] = pairs.to_le_bytes();
        self.command(6, &[4, 0, low, high])
    }

    /// Gives a command, and returns the `ack` byte; it was preset to something that is none.
    pub(super) fn command(&mut self, queue: u16, command: &[u8]) -> u8 {
        let driver = &mut self.rig.drivers[usize::from(queue)];
        let ack = driver.request(&[command], &[1]);
        self.rig.memory.write(ack[0].0, &[0xee]);
        self.rig.serve(queue);
        assert!(matches!(self.rig.drivers[usize::from(queue)].take_used()[..], [(_, 1)]));
        self.rig.memory.gather(&ack)[0]
    }

    pub(super) fn attached(&self) -> Vec<bool> {
        self.wires.iter().map(|wire| wire.with(|wire| !wire.detached)).collect()
    }

    fn arrives(&self, pair: usize, frame: &[u8]) {
        self.wires[pair].with(|wire| wire.incoming.push_back(frame.to_vec()));
        self.wires[pair].1.write(1).unwrap();
    }

    /// Sends a frame on a pair. It is used at once, whether it was sent or not.
    fn sends(&mut self, pair: u16, frame: &[u8]) {
        let queue = pair * 2 + 1;
        self.rig.drivers[usize::from(queue)].request(&[frame], &[]);
        self.rig.serve(queue);
        assert!(matches!(self.rig.drivers[usize::from(queue)].take_used()[..], [(_, 0)]));
    }

    /// Lengths of the frames that went out, wire by wire.
    fn sent(&self) -> Vec<Vec<usize>> {
        self.wires.iter().map(|wire| wire.sent().iter().map(Vec::len).collect()).collect()
    }

    /// Lengths of the frames that came in, pair by pair.
    fn received(&mut self) -> Vec<Vec<usize>> {
        let lens = |used: Vec<(u32, u32)>| used.into_iter().map(|(_, len)| len as usize).collect();
        (0..3).map(|pair| lens(self.rig.drivers[pair * 2].take_used())).collect()
    }

    /// A buffer on each receive queue.
    fn buffers(&mut self) {
        (0..3).for_each(|pair| drop(self.rig.drivers[pair * 2].request(&[], &[200])));
    }
}

/// 5.1.2, 5.1.3, 5.1.4: queues, features, `max_virtqueue_pairs` at offset 8.
#[test]
fn several_pairs_are_offered_if_there_are_several() {
    let one = net(&wires()[..1]);
    assert_eq!(one.max_queue_sizes(), [256; 2]);
    assert_eq!(one.features() & (CTRL_VQ | MQ), 0);
    assert_eq!(one.config_space()[..6], MAC);

    let wires = wires();
    let three = net(&wires);
    assert_eq!(three.max_queue_sizes(), [256; 7]);
    // 5.1.3.1: VIRTIO_NET_F_MQ requires VIRTIO_NET_F_CTRL_VQ.
    assert_eq!(three.features(), one.features() | CTRL_VQ | MQ);
    assert_eq!(three.config_space()[..10], [2, 0, 0, 1, 2, 3, 0, 0, 3, 0]);
    let fds: Vec<_> = wires.iter().map(|wire| wire.1.as_raw_fd()).collect();
    // A lane for each pair; the control queue is the first one's.
    assert_eq!((0..7).map(|queue| three.lane_of(queue)).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 0]);
    let lanes = Box::new(three).into_lanes(Memory::new().gate.pool());
    let host_fds: Vec<_> = lanes.iter().map(|lane| lane.host_fds()).collect();
    assert_eq!(host_fds, [[(fds[0], 0)], [(fds[1], 2)], [(fds[2], 4)]]);
    // Not to be had from the options, and no reason to panic.
    assert!(net(&[]).max_queue_sizes().is_empty());
}

/// 5.1.6.5.6: pairs are used as far as the driver says, each on its own queue of the tap; 5.1.6.5.6.2: one at first.
#[test]
fn pairs_are_used_as_far_as_the_driver_says() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    for (pairs, attached) in [
        (None, [true, false, false]),
        (Some(2), [true, true, false]),
        (Some(3), [true; 3]),
        (Some(3), [true; 3]),
        (Some(2), [true, true, false]),
        (Some(1), [true, false, false]),
        (Some(3), [true; 3]),
        (Some(1), [true, false, false]),
    ] {
        if let Some(pairs) = pairs {
            assert_eq!(multi.set_pairs(pairs), 0);
        }
        assert_eq!(multi.attached(), attached, "{pairs:?}");
        multi.buffers();
        (0..3).for_each(|pair| multi.sends(pair, &frame(60 + usize::from(pair))));
        for (pair, attached) in attached.into_iter().enumerate() {
            if attached {
                multi.arrives(pair, &frame(80 + pair));
            }
            multi.rig.serve(u16::try_from(pair * 2).unwrap());
        }
        let expected = |len| -> Vec<Vec<usize>> {
            let lens = |pair: usize| attached[pair].then_some(len + pair);
            (0..3).map(|pair| lens(pair).into_iter().collect()).collect()
        };
        assert_eq!(multi.sent(), expected(60), "{pairs:?}");
        assert_eq!(multi.received(), expected(80), "{pairs:?}");
    }
    assert_eq!(multi.rig.refusals().total, 0);
}

/// A tap gives a queue that is attached the next number, and fills a gap with the last: in this order, the numbers of
/// its queues are those of ours, as 5.1.6.5.6 has it for the frames of one flow.
#[test]
fn pairs_come_and_go_at_the_end() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    multi.set_pairs(3);
    multi.set_pairs(1);
    multi.set_pairs(3);
    multi.rig.core.set_status(0);
    let order = multi.wires[0].with(|wire| wire.order.lock().unwrap().clone());
    let [second, third] = [1, 2].map(|pair| multi.wires[pair].1.as_raw_fd());
    let up_and_down = [(second, true), (third, true), (third, false), (second, false)];
    assert_eq!(order, [up_and_down, up_and_down].concat());
}

/// 5.1.6.4.1: each pair counts its own buffers, and a frame that waits on one holds up no other.
#[test]
fn a_frame_that_waits_on_one_pair_holds_up_no_other() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    multi.set_pairs(3);
    (0..3).for_each(|pair| multi.arrives(pair, &frame(80 + pair)));
    (0..3).for_each(|pair| multi.rig.serve(pair * 2));
    for pair in [2, 0, 1] {
        let places = multi.rig.drivers[pair * 2].request(&[], &[200]);
        (0..3).for_each(|pair| multi.rig.serve(pair * 2));
        let mut expected = vec![vec![]; 3];
        expected[pair] = vec![80 + pair];
        assert_eq!(multi.received(), expected);
        assert_eq!(multi.rig.memory.gather(&places)[..80 + pair], received(&frame(80 + pair), 1));
    }
}

/// 5.1.6.5.6.2: "After initialization of reset, the device MUST queue packets only on receiveq1".
#[test]
fn a_reset_leaves_one_pair() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    multi.set_pairs(3);
    // One that waits for a buffer is not for the next driver.
    multi.arrives(1, &frame(80));
    multi.rig.serve(2);
    multi.rig.core.set_status(0);
    assert_eq!(multi.attached(), [true, false, false]);
    multi.rig.initialise(REQUIRED | CTRL_VQ | MQ);
    multi.buffers();
    (0..3).for_each(|pair| multi.rig.serve(pair * 2));
    assert_eq!(multi.set_pairs(3), 0);
    (0..3).for_each(|pair| multi.rig.serve(pair * 2));
    assert_eq!(multi.received(), vec![vec![0; 0]; 3]);
    multi.arrives(1, &frame(81));
    multi.rig.serve(2);
    assert_eq!(multi.received(), [vec![], vec![81], vec![]]);
}

/// A frame that waits on a pair is lost with the pair, which starts afresh when it is used again.
#[test]
fn a_waiting_frame_is_lost_with_its_pair() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    multi.set_pairs(2);
    multi.arrives(1, &frame(80));
    multi.rig.serve(2);
    multi.set_pairs(1);
    multi.buffers();
    multi.rig.serve(2);
    multi.set_pairs(2);
    multi.rig.serve(2);
    assert_eq!(multi.received(), vec![vec![0; 0]; 3]);
}

/// The host has no queue to give: the driver is told, and all is as it was.
#[test]
fn a_pair_that_the_tap_does_not_give_is_an_error() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    multi.wires[2].with(|wire| wire.attach_fails = true);
    assert_eq!(multi.set_pairs(3), 1);
    assert_eq!(multi.attached(), [true, false, false]);
    assert_eq!(multi.set_pairs(2), 0);
    assert_eq!(multi.set_pairs(3), 1);
    assert_eq!(multi.attached(), [true, true, false]);
    multi.buffers();
    multi.arrives(1, &frame(80));
    multi.rig.serve(2);
    assert_eq!(multi.received(), [vec![], vec![80], vec![]]);
    multi.wires[2].with(|wire| wire.attach_fails = false);
    assert_eq!(multi.set_pairs(3), 0);
    assert_eq!(multi.attached(), [true; 3]);
}

/// 5.1.6.4.1: offloads are of the device, flags of every queue.
#[test]
fn offloads_are_the_same_on_every_pair() {
    for (features, flags) in [(0, 0), (1 << 1, 2)] {
        let mut multi = Multi::new(CTRL_VQ | MQ | features);
        let told: Vec<_> = multi.wires.iter().map(|wire| wire.with(|wire| wire.offloads.len())).collect();
        assert_eq!(told, [1, 0, 0]);
        multi.set_pairs(3);
        for pair in 0..3 {
            let places = multi.rig.drivers[pair * 2].request(&[], &[200]);
            let mut frame = frame(60);
            frame[0] = 2;
            multi.arrives(pair, &frame);
            multi.rig.serve(u16::try_from(pair * 2).unwrap());
            assert_eq!(multi.rig.memory.gather(&places)[0], flags);
        }
    }
}

/// 2.7.7.2, 2.7.10: event indices are of one queue each, and an interrupt says which queue it is for.
#[test]
fn event_indices_and_interrupts_are_of_one_queue() {
    let mut multi = Multi::new(CTRL_VQ | MQ | EVENT_IDX);
    // The control queue is polled, and two others want to hear of their second used buffer.
    for (queue, event) in [(6, 100), (2, 1), (5, 1)] {
        let at = multi.rig.drivers[queue].used_event();
        multi.rig.memory.write_u16(at, event);
    }
    assert_eq!(multi.set_pairs(3), 0);
    assert_eq!(multi.interrupts.take(), [0; 0]);
    for expected in [vec![0, 1, 3, 4], vec![2, 5], vec![]] {
        multi.buffers();
        for pair in 0..3u16 {
            multi.arrives(usize::from(pair), &frame(60));
            multi.rig.serve(pair * 2);
            multi.sends(pair, &frame(60));
        }
        assert_eq!(multi.interrupts.take(), expected);
    }
    multi.sends(1, &frame(60));
    let events: Vec<_> =
        multi.rig.drivers.iter().map(|driver| multi.rig.memory.read_u16(driver.avail_event())).collect();
    // Receive queues ask when a frame finds no buffer: none did.
    assert_eq!(events, [0, 3, 0, 4, 0, 3, 1]);
}

/// Each queue of the tap wakes the device for its pair, also when the pair was put to use later.
#[test]
fn frames_on_any_pair_wake_the_worker() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    let notifications = Arc::new(EventFds::new(7).unwrap());
    let mut events = EventManager::new().unwrap();
    events.add_subscriber(Worker::new(multi.rig.core.handle().clone(), notifications.clone()));
    let mut settle = || (0..100).take_while(|_| events.run_with_timeout(0).unwrap() > 0).count();
    settle();
    multi.rig.drivers[6].request(&[&[4, 0, 3, 0]], &[1]);
    notifications.notify(6);
    assert!((1..100).contains(&settle()));
    assert_eq!(multi.attached(), [true; 3]);
    multi.buffers();
    for pair in [2, 1, 0] {
        multi.arrives(pair, &frame(80 + pair));
        assert_eq!(settle(), 1);
        let mut expected = vec![vec![]; 3];
        expected[pair] = vec![80 + pair];
        assert_eq!(multi.received(), expected);
    }
    multi.rig.drivers[5].request(&[&frame(70)], &[]);
    notifications.notify(5);
    assert!((1..100).contains(&settle()));
    assert_eq!(multi.sent(), [vec![], vec![], vec![70]]);
}
