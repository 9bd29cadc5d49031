// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker gives way to those who wait for the engine, and loses nothing by it. Lanes work at the same time, and stop
//! together.

mod lanes;

use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::pool::Pool;
use crate::queue::Turn;
use crate::testing::{Interrupts, Memory};
use crate::virtio::tests::Loop;
use crate::virtio::{EventFds, Kind, Worker};

/// Turns that there are for queue 0.
const TURNS: u32 = 5;
/// After this it is an error.
const LIMIT: Duration = Duration::from_secs(30);

/// Has so many turns left for queue 0, and a file on the host's side that may be ready.
#[derive(Debug)]
struct Busy {
    left: Arc<AtomicU32>,
    host: EventFd,
}

impl DeviceType for Busy {
    fn kind(&self) -> Kind {
        Kind::Net
    }
    fn features(&self) -> u64 {
        0
    }
    fn max_queue_sizes(&self) -> &[u16] {
        &[8, 8]
    }
    fn buffers(&self) -> u64 {
        0
    }
    fn config_space(&self) -> Vec<u8> {
        Vec::new()
    }
    fn into_lanes(self: Box<Self>, _pool: &Pool) -> Vec<Box<dyn Lane>> {
        vec![self]
    }
}

impl Lane for Busy {
    fn start(&mut self, _features: u64) {}
    fn serve(&mut self, index: u16, _queues: &mut Queues) -> Result<Turn, Refusal> {
        let left = self.left.load(Ordering::SeqCst).saturating_sub(u32::from(index == 0));
        self.left.store(left, Ordering::SeqCst);
        Ok(Turn { interrupt: false, more: left > 0 })
    }
    fn host_fds(&self) -> Vec<(RawFd, u16)> {
        vec![(self.host.as_raw_fd(), 0)]
    }
}

/// A vCPU waits to disable queue 1 when the worker comes to queue 0: the notification, or the edge of a file that is ready,
/// is consumed then. Afterwards all of queue 0's work is done, without another.
#[test]
fn work_that_gives_way_is_done_afterwards() {
    for by_host in [false, true] {
        let (left, host) = (Arc::new(AtomicU32::new(TURNS)), EventFd::new(EFD_NONBLOCK).unwrap());
        let device = Busy { left: left.clone(), host: host.try_clone().unwrap() };
        let (gate, interrupts) = (Memory::new().gate.clone(), Arc::<Interrupts>::default());
        let handle = Arc::new(Handle::new("busy", Box::new(device), &gate, interrupts));
        handle.start(0, Vec::new());
        let notifications = Arc::new(EventFds::new(2).unwrap());
        let mut events = Loop::new(Worker::new(handle.clone(), notifications.clone()));
        thread::scope(|scope| {
            let (passed, has_passed) = channel();
            let (go_on, goes_on) = channel();
            // As if a turn at queue 1 were under way.
            let turn = handle.engines[0].engine.lock().unwrap();
            let vcpu = scope.spawn(|| handle.stop_queue(1));
            let deadline = Instant::now() + LIMIT;
            while handle.waiting() == 0 {
                assert!(Instant::now() < deadline, "the vCPU does not wait");
                thread::yield_now();
            }
            match by_host {
                true => host.write(1).unwrap(),
                false => notifications.notify(0),
            }
            // A thread, so that one that does not give way fails the test and does not hang it.
            scope.spawn(move || {
                passed.send(events.pass()).unwrap();
                if goes_on.recv().is_ok() {
                    events.run();
                }
            });
            assert_eq!(has_passed.recv_timeout(LIMIT), Ok(1), "the worker gives way");
            assert_eq!(left.load(Ordering::SeqCst), TURNS);
            drop(turn);
            vcpu.join().unwrap();
            go_on.send(()).unwrap();
        });
        assert_eq!(left.load(Ordering::SeqCst), 0, "turns are lost, by the host: {by_host}");
    }
}
