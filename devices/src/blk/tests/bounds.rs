// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver can have the device do at once has an end.

use super::*;
use crate::testing::{BASE, Desc, SIZE};

fn large() -> Bench {
    let disk = Shared::new();
    disk.with(|store| store.size = 1 << 40);
    Bench::with(disk, F_FLUSH)
}

/// 5.2.6.2: not more than `max_discard_sectors` and `max_write_zeroes_sectors`.
#[test]
fn a_range_of_more_sectors_than_offered_is_an_error() {
    let mut bench = large();
    let most = request::MAX_PUNCH_SECTORS;
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(bench.ask(kind, 0, &range(8, most, 0), 0).status, OK);
        assert_eq!(bench.disk.calls().len(), 1);
        assert_eq!(bench.ask(kind, 0, &range(8, most + 1, 0), 0).status, IOERR);
        assert_eq!(bench.disk.calls(), []);
    }
}

/// A few bytes in the queue can be much work on the disk, where a file system writes zeros: a turn counts it.
#[test]
fn ranges_are_work_of_a_turn() {
    let mut bench = large();
    let sectors = 4 << 11;
    for round in 0..6u64 {
        let range = range(round << 13, sectors, 0);
        bench.rig.drivers[0].request(&[&header(WRITE_ZEROES, 0), &range], &[1]);
    }
    // Turns of 8 MiB; each range has 4 MiB, and the driver's buffers a little.
    for done in [2, 4, 6] {
        assert!(bench.rig.core.handle().serve(0), "the turn after {done}");
        assert_eq!(bench.rig.drivers[0].take_used().len(), 2, "{done}");
    }
    assert!(!bench.rig.core.handle().serve(0));
    assert_eq!(bench.disk.calls().len(), 6);
}

/// A flush may take the storage seconds: a reset, and the end of the run, wait for one at most. So it is where each write is one.
#[test]
fn a_turn_has_one_flush() {
    let write = header(OUT, 0);
    let data = [0; 512];
    for (features, request) in [
        (F_FLUSH, &[&header(FLUSH, 0)[..]][..]),
        (0, &[&write[..], &data]),
        (0, &[&header(WRITE_ZEROES, 0), &range(0, 8, 0)]),
    ] {
        let mut bench = Bench::with(Shared::new(), features);
        for _ in 0..3 {
            bench.rig.drivers[0].request(request, &[1]);
        }
        for turn in 0..3 {
            assert!(bench.rig.core.handle().serve(0), "there is more after turn {turn}");
            assert_eq!(bench.rig.drivers[0].take_used().len(), 1, "turn {turn}");
            let flushes = bench.disk.calls().into_iter().filter(|call| *call == Call::Flush);
            assert_eq!(flushes.count(), 1, "turn {turn}");
        }
        assert!(!bench.rig.core.handle().serve(0));
        assert!(bench.rig.drivers[0].take_used().is_empty());
    }
}

/// 2.4.1: the write of the status register waits for the flush that is under way, and not for all that are due after it.
#[test]
fn a_reset_waits_for_one_flush() {
    const DUE: usize = 20;
    let mut bench = Bench::with(Shared::new(), F_FLUSH);
    for _ in 0..DUE {
        bench.rig.drivers[0].request(&[&header(FLUSH, 0)], &[1]);
    }
    let handle = Arc::clone(bench.rig.core.handle());
    bench.disk.with(|store| store.held = Some(Arc::clone(&handle)));
    let worker = std::thread::spawn(move || while handle.serve(0) {});
    while bench.disk.with(|store| store.calls.is_empty()) {
        assert!(!worker.is_finished(), "no flush");
        std::thread::yield_now();
    }
    bench.rig.core.set_status(0);
    worker.join().unwrap();
    assert_eq!(bench.disk.calls(), [Call::Flush]);
    bench.disk.with(|store| store.held = None);
}

/// Likewise for the read that is under way, however long that takes; what is due after it is done then.
#[test]
fn whoever_waits_waits_for_one_read() {
    const DUE: usize = 20;
    let mut bench = Bench::new();
    for _ in 0..DUE {
        bench.rig.drivers[0].request(&[&header(IN, 0)], &[512, 1]);
    }
    let handle = Arc::clone(bench.rig.core.handle());
    bench.disk.with(|store| store.held = Some(Arc::clone(&handle)));
    let worker = std::thread::spawn(move || handle.serve(0));
    while bench.disk.with(|store| store.reads) == 0 {
        assert!(!worker.is_finished(), "no read");
        std::thread::yield_now();
    }
    // This waits for the engine, and the read for somebody who waits.
    assert!(bench.rig.core.handle().allow_dma(true));
    assert!(worker.join().unwrap(), "there is more to do");
    assert_eq!(bench.disk.with(|store| store.reads), 1);
    assert_eq!(bench.rig.drivers[0].take_used().len(), 1);
    bench.disk.with(|store| store.held = None);
    bench.rig.serve(0);
    assert_eq!(bench.rig.drivers[0].take_used().len(), DUE - 1);
}

/// More data than the pool holds can only be the same bytes several times: work without end for a few descriptors.
#[test]
fn a_request_larger_than_the_pool_is_an_error() {
    let mut bench = large();
    let memory = bench.rig.memory.clone();
    let half = u32::try_from(SIZE / 2).unwrap();
    let (at, status) = (memory.alloc(16, 1), memory.alloc(1, 1));
    memory.write(at, &header(IN, 0));
    let data = Desc::writable(BASE, half);
    let read = |bench: &mut Bench, rest: &[Desc]| {
        let before = memory.gate.audit().written().bytes;
        let ends = [&[Desc::readable(at, 16), data, data], rest, &[Desc::writable(status, 1)]].concat();
        bench.rig.drivers[0].chain(&ends);
        bench.rig.serve(0);
        assert_eq!(bench.rig.drivers[0].take_used().len(), 1);
        memory.gate.audit().written().bytes - before
    };
    assert_eq!(read(&mut bench, &[Desc::writable(at, 512)]), 1, "the status alone is written");
    assert_eq!(memory.gather(&[(status, 1)]), [IOERR]);
    assert_eq!(bench.disk.calls(), []);
    assert!(read(&mut bench, &[]) > 1, "as much as the pool holds is read");
}
