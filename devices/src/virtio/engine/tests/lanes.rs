// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several lanes of one device.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::*;
use crate::pool::{Reason, Structure};

/// Long enough for a thread that does not wait to be seen not to.
const WHILE: Duration = Duration::from_millis(50);

/// How a turn ends.
type End = Result<Turn, Refusal>;

/// Two queues, each with a lane of its own, whose turns begin and end when the test says so.
#[derive(Debug)]
struct Two(Vec<OnCue>);

#[derive(Debug)]
struct OnCue {
    queue: u16,
    begun: Sender<u16>,
    ends: Mutex<Receiver<End>>,
}

impl DeviceType for Two {
    fn kind(&self) -> Kind {
        Kind::Blk
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
    fn lane_of(&self, queue: u16) -> usize {
        queue.into()
    }
    fn into_lanes(self: Box<Self>, _pool: &Pool) -> Vec<Box<dyn Lane>> {
        self.0.into_iter().map(|lane| Box::new(lane) as _).collect()
    }
}

impl Lane for OnCue {
    fn start(&mut self, _features: u64) {}
    fn serve(&mut self, index: u16, _queues: &mut Queues) -> Result<Turn, Refusal> {
        assert_eq!(index, self.queue);
        self.begun.send(index).unwrap();
        self.ends.lock().unwrap().recv_timeout(LIMIT).expect("the test ends each turn")
    }
}

/// A device with two lanes that has been started.
struct Rig {
    handle: Handle,
    memory: std::rc::Rc<Memory>,
    interrupts: Arc<Interrupts>,
    begun: Receiver<u16>,
    ends: [Sender<End>; 2],
}

impl Rig {
    fn new() -> Self {
        let (memory, interrupts) = (Memory::new(), Arc::<Interrupts>::default());
        let (begin, begun) = channel();
        let (first, ends_first) = channel();
        let (second, ends_second) = channel();
        let lane = |(queue, ends)| OnCue { queue, begun: begin.clone(), ends: Mutex::new(ends) };
        let lanes = [(0, ends_first), (1, ends_second)].map(lane).into();
        let handle = Handle::new("two", Box::new(Two(lanes)), &memory.gate, interrupts.clone());
        handle.start(0, Vec::new());
        Self { handle, memory, interrupts, begun, ends: [first, second] }
    }

    /// What the other threads see.
    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn end(&self, queue: usize, end: End) {
        self.ends[queue].send(end).unwrap();
    }
}

/// A turn at each queue, on a thread of its own. Both have begun when this returns.
fn two_turns<'s>(
    scope: &'s Scope<'s, '_>,
    handle: &'s Handle,
    begun: &Receiver<u16>,
) -> [ScopedJoinHandle<'s, bool>; 2] {
    [0, 1].map(|queue| {
        let turn = scope.spawn(move || handle.serve(queue));
        assert_eq!(begun.recv_timeout(LIMIT), Ok(queue), "a turn at one queue waits for one at the other");
        turn
    })
}

const DONE: End = Ok(Turn { interrupt: false, more: false });

fn refusal(queue: u16) -> Refusal {
    let (structure, reason) = (Structure::Descriptor, Reason::WrongDirection);
    Refusal { queue, structure, address: 0, length: 16, reason }
}

fn waits<T>(thread: &ScopedJoinHandle<'_, T>) -> bool {
    thread::sleep(WHILE);
    !thread.is_finished()
}

#[test]
fn a_reset_waits_for_the_turns_of_all_lanes() {
    let rig = Rig::new();
    let handle = rig.handle();
    thread::scope(|scope| {
        let turns = two_turns(scope, handle, &rig.begun);
        let reset = scope.spawn(|| handle.reset());
        for queue in [1, 0] {
            assert!(waits(&reset), "the reset does not wait for queue {queue}");
            rig.end(queue, DONE);
        }
        reset.join().unwrap();
        for turn in turns {
            turn.join().unwrap();
        }
    });
    // Nothing is served until the driver has started the device again.
    assert!(!handle.serve(0) && !handle.serve(1));
}

/// The same for a bus that takes the device's access to memory away (PCI: Bus Master Enable).
#[test]
fn a_device_without_dma_has_no_lane_in_a_turn() {
    let rig = Rig::new();
    let handle = rig.handle();
    thread::scope(|scope| {
        let turns = two_turns(scope, handle, &rig.begun);
        let stopped = scope.spawn(|| handle.allow_dma(false));
        for queue in [1, 0] {
            assert!(waits(&stopped), "it does not wait for queue {queue}");
            rig.end(queue, DONE);
        }
        assert!(stopped.join().unwrap());
        for turn in turns {
            turn.join().unwrap();
        }
    });
    assert!(!handle.serve(0) && !handle.serve(1));
    assert!(!handle.allow_dma(true));
    rig.end(1, DONE);
    assert!(!handle.serve(1));
    assert_eq!(rig.begun.try_recv(), Ok(1));
}

/// virtio 1.3, 2.1.2: when a driver sees DEVICE_NEEDS_RESET, the device is no longer at work, on no queue.
#[test]
fn a_refusal_in_one_lane_stops_all() {
    let rig = Rig::new();
    let (handle, gate) = (rig.handle(), rig.memory.gate.clone());
    thread::scope(|scope| {
        let [first, second] = two_turns(scope, handle, &rig.begun);
        rig.end(0, Err(refusal(0)));
        assert!(waits(&first), "it does not wait for queue 1");
        assert!(!handle.needs_reset());
        rig.end(1, Ok(Turn { interrupt: false, more: true }));
        assert!(!first.join().unwrap());
        assert!(second.join().unwrap());
    });
    assert!(handle.needs_reset());
    assert_eq!(rig.interrupts.take(), (1, 1));
    assert_eq!(gate.audit().refusals().total, 1);
    assert!(!handle.serve(0) && !handle.serve(1));
    // A reset brings both back.
    handle.reset();
    handle.start(0, Vec::new());
    for queue in [0, 1] {
        rig.end(queue.into(), DONE);
        assert!(!handle.serve(queue));
        assert_eq!(rig.begun.try_recv(), Ok(queue));
    }
}

/// Neither waits for the other for ever, and the driver hears of it once.
#[test]
fn two_lanes_that_refuse_at_a_time_stop_once() {
    let rig = Rig::new();
    let (handle, gate) = (rig.handle(), rig.memory.gate.clone());
    thread::scope(|scope| {
        let turns = two_turns(scope, handle, &rig.begun);
        [0, 1].into_iter().for_each(|queue| rig.end(queue.into(), Err(refusal(queue))));
        let deadline = Instant::now() + LIMIT;
        while !turns.iter().all(ScopedJoinHandle::is_finished) {
            // A hang would not end the test: the threads are waited for.
            if Instant::now() > deadline {
                std::process::abort();
            }
            thread::yield_now();
        }
    });
    assert!(handle.needs_reset());
    assert_eq!(rig.interrupts.take(), (2, 1));
    assert_eq!(gate.audit().refusals().total, 2);
}

/// A worker for each lane, which looks at its own queues only.
#[test]
fn each_lane_has_a_worker() {
    let rig = Rig::new();
    let notifications = Arc::new(EventFds::new(2).unwrap());
    let workers = Worker::new(Arc::new(rig.handle), notifications.clone()).split();
    let mut loops: Vec<_> = workers.into_iter().map(Loop::new).collect();
    assert_eq!(loops.len(), 2);
    notifications.notify(1);
    assert_eq!(loops[0].pass(), 0);
    rig.ends[1].send(DONE).unwrap();
    assert_eq!(loops[1].pass(), 1);
    assert_eq!(rig.begun.try_recv(), Ok(1));
}
