// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VIRTIO_BLK_F_MQ: several request queues (virtio 1.3, 5.2.2), and event indices on each.

use super::*;

/// VIRTIO_BLK_F_MQ.
const MQ: u64 = 1 << 12;
/// VIRTIO_F_EVENT_IDX.
const EVENT_IDX: u64 = 1 << 29;

/// 5.2.3, 5.2.4: `num_queues` is at offset 34, where the feature is offered; with one queue there is nothing to offer.
#[test]
fn several_queues_are_offered_if_there_are_several() {
    for (queues, offered, num_queues) in [(0, 1, 0), (1, 1, 0), (2, 2, 2), (0x102, 0x102, 0x102)] {
        let blk = Blk::new(Arc::new(Shared::new()), "", 1 << 20, queues);
        assert_eq!(blk.max_queue_sizes(), vec![256; offered]);
        assert_eq!(blk.features() & MQ != 0, num_queues != 0);
        assert!((0..2).all(|queue| blk.lane_of(queue) == usize::from(queue)), "a lane for each");
        let config = blk.config_space();
        assert_eq!(u16::from_le_bytes([config[34], config[35]]), num_queues);
        assert_eq!((config[32], config[33], config.len()), (0, 0, 60), "writeback, unused0");
    }
}

/// Each queue serves the same disk, and answers on itself.
#[test]
fn every_queue_reads_and_writes_the_disk() {
    let mut bench = Bench::with_queues(Shared::new(), F_FLUSH | MQ, 3);
    for queue in 0..3 {
        let sector = u64::from(queue) * 2;
        let data = [u8::try_from(queue).unwrap() + 1; 512];
        let answer = bench.request_on(queue, &[&header(OUT, sector), &data], &[1]);
        assert_eq!((answer.status, answer.used_len), (OK, 1));
        assert_eq!(bench.disk.calls(), [Call::Write(sector * 512, 512)]);
        for reader in 0..3 {
            let answer = bench.request_on(reader, &[&header(IN, sector)], &[512, 1]);
            assert_eq!((answer.status, answer.data), (OK, data.to_vec()));
        }
    }
    assert!(bench.rig.drivers.iter_mut().all(|driver| driver.take_used().is_empty()));
}

/// A refusal names the queue that it was on.
#[test]
fn a_request_of_the_wrong_shape_is_refused_on_its_queue() {
    let mut bench = Bench::with_queues(Shared::new(), F_FLUSH | MQ, 3);
    bench.rig.drivers[2].request(&[&header(IN, 0)], &[]);
    bench.rig.assert_refused(2);
    assert_eq!(bench.rig.refusals().first[0].0.queue, 2);
}

/// 2.7.7.2, 2.7.10: `used_event` and `avail_event` are of one queue each.
#[test]
fn event_indices_are_of_one_queue() {
    let mut bench = Bench::with_queues(Shared::new(), F_FLUSH | MQ | EVENT_IDX, 2);
    // Queue 0 wants to hear of its third used buffer, queue 1 of its first.
    bench.rig.memory.write_u16(bench.rig.drivers[0].used_event(), 2);
    for (queue, interrupts) in [(0, 0), (1, 1), (0, 0), (1, 0), (0, 1), (0, 0)] {
        bench.request_on(queue, &[&header(FLUSH, 0)], &[1]);
        assert_eq!(bench.rig.interrupts.take(), (interrupts, 0), "queue {queue}");
    }
    // Each is to be told of the next: 4 were served on one, 2 on the other.
    let event = |queue: usize| bench.rig.memory.read_u16(bench.rig.drivers[queue].avail_event());
    assert_eq!((event(0), event(1)), (4, 2));
}
