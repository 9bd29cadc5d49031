// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests that are under way while their queue goes on.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::virtio::HostIo;

/// A host that moves data when it is asked to, and says so when the test wants.
#[derive(Debug, Default)]
struct State {
    begun: Vec<(u16, u64)>,
    under_way: Vec<(u16, u64)>,
    completed: VecDeque<(u16, io::Result<u64>)>,
    most: usize,
}

#[derive(Clone, Debug)]
struct Ringed {
    disk: Shared,
    state: Arc<Mutex<State>>,
    event: Arc<EventFd>,
}

impl Ringed {
    fn new() -> Self {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        Self { disk: Shared::new(), state: Arc::default(), event }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    /// Completes what is in this place of those under way, as `outcome` says of the bytes that were moved.
    fn complete(&self, place: usize, outcome: impl FnOnce(u64) -> io::Result<u64>) {
        self.with(|state| {
            let (token, moved) = state.under_way.remove(place);
            state.completed.push_back((token, outcome(moved)));
        });
    }

    fn under_way(&self) -> usize {
        self.with(|state| state.under_way.len())
    }

    fn begin(&self, token: u16, moved: io::Result<u64>) -> io::Result<Option<u64>> {
        let moved = moved?;
        self.with(|state| {
            let used = state.under_way.iter().chain(&state.begun).any(|(other, _)| *other == token);
            assert!(!used && token < MAX_UNDER_WAY, "token {token}");
            state.begun.push((token, moved));
        });
        Ok(None)
    }
}

impl Disk for Ringed {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn read_only(&self) -> bool {
        self.disk.read_only()
    }
    fn can_punch(&self) -> bool {
        self.disk.can_punch()
    }
    fn ring(&self, _pool: &Pool) -> Option<Box<dyn Ring>> {
        Some(Box::new(self.clone()))
    }
    fn read_at(&self, offset: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.disk.read_at(offset, to)
    }
    fn write_at(&self, offset: u64, from: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.disk.write_at(offset, from)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.disk.write_zeroes(offset, len, unmap)
    }
}

impl Ring for Ringed {
    fn read(
        &mut self,
        token: u16,
        offset: u64,
        to: &mut dyn Iterator<Item = VolatileSlice<'_>>,
    ) -> io::Result<Option<u64>> {
        self.begin(token, self.disk.read_at(offset, to))
    }
    fn write(
        &mut self,
        token: u16,
        offset: u64,
        from: &mut dyn Iterator<Item = VolatileSlice<'_>>,
    ) -> io::Result<Option<u64>> {
        self.begin(token, self.disk.write_at(offset, from))
    }
    fn submit(&mut self) {
        self.with(|state| {
            state.under_way.append(&mut state.begun);
            state.most = state.most.max(state.under_way.len());
        });
    }
    fn completed(&mut self) -> Option<(u16, io::Result<u64>)> {
        self.with(|state| state.completed.pop_front())
    }
    fn wait(&mut self) {
        self.submit();
        if self.with(|state| state.completed.is_empty()) {
            self.complete(0, Ok);
        }
    }
    fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

/// A driver of a disk with a ring.
struct Ahead {
    rig: Rig,
    host: Ringed,
}

impl Ahead {
    fn new(features: u64) -> Self {
        let host = Ringed::new();
        let blk = Blk::new(Arc::new(host.clone()), "", 64 << 20, 1);
        Self { rig: Rig::start(Memory::new(), Box::new(blk), features | INDIRECT_DESC), host }
    }

    /// Asks for a sector; where its bytes and its status come.
    fn read(&mut self, sector: u64) -> Vec<(u64, u32)> {
        let places = self.rig.drivers[0].request(&[&header(IN, sector)], &[512, 1]);
        self.rig.memory.write(places[1].0, &[0xee]);
        places
    }

    fn assert_read(&self, places: &[(u64, u32)], sector: u64) {
        let mut bytes = self.rig.memory.gather(places);
        assert_eq!(bytes.pop(), Some(OK), "status");
        assert!(bytes == self.host.disk.bytes(sector * 512, 512), "sector {sector}");
    }

    fn used(&mut self) -> usize {
        self.rig.drivers[0].take_used().len()
    }

    fn errors(&self) -> u64 {
        self.rig.core.summary().host_errors.total
    }
}

/// 5.2.6, 2.7.8: the device completes requests in any order; each has its own data and status.
#[test]
fn requests_complete_in_any_order() {
    let mut ahead = Ahead::new(F_FLUSH);
    assert_eq!(ahead.rig.core.summary().host_io, Some(HostIo::Ring));
    let places: Vec<_> = (0..3).map(|sector| ahead.read(sector)).collect();
    ahead.rig.serve(0);
    assert_eq!((ahead.host.under_way(), ahead.used()), (3, 0));
    assert_eq!(ahead.rig.interrupts.take(), (0, 0));
    for (place, sector) in [(2, 2), (0, 0), (0, 1)] {
        ahead.host.complete(place, Ok);
        ahead.rig.serve(0);
        // Header, data and status are three descriptors.
        assert_eq!(ahead.rig.drivers[0].take_used(), [(3 * sector, 513)]);
        assert_eq!(ahead.rig.interrupts.take(), (1, 0));
        ahead.assert_read(&places[sector as usize], u64::from(sector));
    }
    assert_eq!(ahead.errors(), 0);
}

/// More than can be under way wait in the queue, and none is forgotten: no notification comes for them.
#[test]
fn what_has_no_place_waits_in_the_queue() {
    let mut ahead = Ahead::new(F_FLUSH);
    let all = usize::from(MAX_UNDER_WAY) + 15;
    let places: Vec<_> = (0..all).map(|request| ahead.read(request as u64 % SECTORS)).collect();
    ahead.rig.serve(0);
    let mut used = 0;
    while used < all {
        assert!(ahead.host.under_way() > 0);
        ahead.host.complete(0, Ok);
        ahead.rig.serve(0);
        used += ahead.used();
    }
    assert_eq!(ahead.host.with(|state| state.most), usize::from(MAX_UNDER_WAY));
    for (request, places) in places.iter().enumerate() {
        ahead.assert_read(places, request as u64 % SECTORS);
    }
}

/// What came short is done once more; what failed is an error of that request alone.
#[test]
fn short_and_failed_transfers_are_not_taken_for_done() {
    let mut ahead = Ahead::new(F_FLUSH);
    let places: Vec<_> = (0..3).map(|sector| ahead.read(sector)).collect();
    ahead.rig.serve(0);
    let reads = ahead.host.disk.with(|store| store.reads);
    ahead.host.complete(0, |_| Ok(100));
    ahead.host.complete(0, |_| Err(io::Error::from_raw_os_error(5)));
    ahead.host.complete(0, Ok);
    ahead.rig.serve(0);
    assert_eq!(ahead.rig.drivers[0].take_used(), [(0, 513), (3, 0), (6, 513)]);
    assert_eq!(ahead.host.disk.with(|store| store.reads), reads + 1);
    ahead.assert_read(&places[0], 0);
    ahead.assert_read(&places[2], 2);
    assert_eq!(ahead.rig.memory.gather(&places[1]).pop(), Some(IOERR));
    assert_eq!(ahead.errors(), 1);
}

/// A driver that changes the header of a request under way changes nothing.
#[test]
fn a_header_is_read_once() {
    let mut ahead = Ahead::new(F_FLUSH);
    let places = ahead.read(1);
    ahead.rig.serve(0);
    let table = ahead.rig.drivers[0].layout.descriptor_table;
    let place = u64::from_le_bytes(ahead.rig.memory.read(table, 8).try_into().unwrap());
    ahead.rig.memory.write(place, &header(OUT, 9));
    ahead.host.complete(0, Ok);
    ahead.rig.serve(0);
    assert_eq!(ahead.rig.drivers[0].take_used(), [(0, 513)]);
    ahead.assert_read(&places, 1);
    assert_eq!(ahead.host.disk.calls(), []);
}

/// 5.2.6.2: without VIRTIO_BLK_F_FLUSH a completed write is stable.
#[test]
fn a_write_under_way_is_flushed_before_it_is_completed() {
    for (features, flushes) in [(0, 1), (F_FLUSH, 0)] {
        let mut ahead = Ahead::new(features);
        ahead.rig.drivers[0].request(&[&header(OUT, 4), &[7; 512]], &[1]);
        ahead.rig.serve(0);
        assert_eq!(ahead.host.disk.calls(), [Call::Write(2048, 512)]);
        ahead.host.complete(0, Ok);
        ahead.rig.serve(0);
        assert_eq!(ahead.host.disk.calls(), vec![Call::Flush; flushes]);
        assert_eq!(ahead.used(), 1);
    }
}

/// 2.1.2: when the driver sees DEVICE_NEEDS_RESET, nothing is under way, and what was before the refusal is done.
#[test]
fn a_refusal_waits_for_what_is_under_way() {
    let mut ahead = Ahead::new(F_FLUSH);
    let places = [ahead.read(0), ahead.read(1)];
    ahead.rig.drivers[0].request(&[&header(IN, 0)], &[]);
    ahead.rig.serve(0);
    assert_eq!(ahead.rig.core.status(), 15 | 64);
    assert_eq!((ahead.host.under_way(), ahead.used()), (0, 2));
    ahead.assert_read(&places[0], 0);
    ahead.assert_read(&places[1], 1);
}

/// 2.4: when the write of the reset returns, nothing touches the driver's memory; likewise for a queue that is disabled, and a
/// bus that takes DMA away. The worker completes requests meanwhile, and begins none.
#[test]
fn who_stops_the_device_waits_for_what_is_under_way() {
    let ways: [fn(&mut Rig); 3] = [
        |rig| rig.core.set_status(0),
        |rig| rig.core.disable_queue(0),
        |rig| assert!(rig.core.handle().allow_dma(false)),
    ];
    for (way, stop) in ways.into_iter().enumerate() {
        let mut ahead = Ahead::new(F_FLUSH);
        let places = [ahead.read(0), ahead.read(1)];
        ahead.rig.serve(0);
        ahead.read(2);
        let (handle, host) = (Arc::clone(ahead.rig.core.handle()), ahead.host.clone());
        let released = Arc::new(AtomicBool::new(false));
        let release = Arc::clone(&released);
        let worker = std::thread::spawn(move || {
            for left in [1, 0] {
                std::thread::sleep(Duration::from_millis(30));
                release.store(left == 0, Ordering::SeqCst);
                host.complete(0, Ok);
                handle.serve(0);
                assert_eq!(host.under_way(), left);
            }
        });
        stop(&mut ahead.rig);
        assert!(released.load(Ordering::SeqCst), "way {way} does not wait");
        worker.join().unwrap();
        assert_eq!((ahead.host.under_way(), ahead.used()), (0, 2), "way {way}");
        ahead.assert_read(&places[0], 0);
        ahead.assert_read(&places[1], 1);
        ahead.rig.serve(0);
        assert_eq!((ahead.host.under_way(), ahead.used()), (0, 0), "way {way}");
    }
}

/// Who waited takes nothing from a device that goes on: what came meanwhile is served.
#[test]
fn what_comes_while_somebody_waits_is_served_afterwards() {
    let mut ahead = Ahead::new(F_FLUSH);
    ahead.read(0);
    ahead.rig.serve(0);
    ahead.read(1);
    let (handle, host) = (Arc::clone(ahead.rig.core.handle()), ahead.host.clone());
    let worker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        // The notification of the second, which has no turn now.
        assert!(!handle.serve(0) || host.under_way() == 0);
        host.complete(0, Ok);
        while handle.serve(0) {}
    });
    assert!(ahead.rig.core.handle().allow_dma(true));
    worker.join().unwrap();
    assert_eq!((ahead.host.under_way(), ahead.used()), (1, 1));
    // Nor does the end of the thread leave anything.
    ahead.rig.core.handle().finish(0);
    assert_eq!((ahead.host.under_way(), ahead.used()), (0, 1));
}
