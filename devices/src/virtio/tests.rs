// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is the same over every transport: each test here runs over virtio-mmio, and over virtio-pci with MSI-X and with
//! its interrupt pin. Expectations are from virtio 1.3: 2.1, 2.2 and 3.1; the clause stands at each test. What a
//! transport adds is tested beside it.

mod devices;
mod equality;
mod initialisation;
mod queues;
mod refusals;
mod restricted;

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use event_manager::{EventManager, SubscriberOps};

use super::*;
use crate::pool::{Pool, Refusal};
use crate::queue::{Chain, QueueLayout, Turn};
use crate::testing::{Desc, Driver, INDIRECT_DESC, Memory, REQUIRED, Transport, over_each_transport};

/// The sizes of the toy's queues.
pub(crate) const QUEUES: [u16; 2] = [16, 8];
/// What a driver of the toy accepts.
pub(crate) const FEATURES: u64 = REQUIRED | INDIRECT_DESC | 1 << 3;

/// What the toy was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    Start(u64),
    Stop,
    Serve(u16),
}

/// Fills the device-writable buffers of a chain with 0x5a, and offers feature 3 of its own.
#[derive(Debug)]
pub(crate) struct Toy {
    calls: Arc<Mutex<Vec<Call>>>,
    chain: Chain,
}

impl Toy {
    /// A toy, and what it will be told.
    pub(crate) fn new() -> (Box<Self>, Arc<Mutex<Vec<Call>>>) {
        let calls = Arc::default();
        (Box::new(Self { calls: Arc::clone(&calls), chain: Chain::default() }), calls)
    }
}

impl DeviceType for Toy {
    fn kind(&self) -> Kind {
        Kind::Rng
    }
    fn features(&self) -> u64 {
        1 << 3
    }
    fn max_queue_sizes(&self) -> &[u16] {
        &QUEUES
    }
    fn buffers(&self) -> u64 {
        64
    }
    fn config_space(&self) -> Vec<u8> {
        (1..=10).collect()
    }
    fn into_lanes(self: Box<Self>, _pool: &Pool) -> Vec<Box<dyn Lane>> {
        vec![self]
    }
}

impl Lane for Toy {
    fn start(&mut self, features: u64) {
        self.calls.lock().unwrap().push(Call::Start(features));
    }
    fn stop(&mut self) {
        self.calls.lock().unwrap().push(Call::Stop);
    }
    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal> {
        self.calls.lock().unwrap().push(Call::Serve(index));
        let Some(queue) = queues.get(index) else { return Ok(Turn::default()) };
        queue.turn(&mut self.chain, |gate, chain| {
            let bytes = [0x5a; 64];
            let written = crate::queue::parts(chain.writable(), 0, 64).write(gate, &bytes).unwrap();
            Ok(u32::try_from(written).unwrap())
        })
    }
}

/// An event loop with a device's worker.
pub(crate) struct Loop(EventManager<Worker>);

impl Loop {
    pub(crate) fn new(worker: Worker) -> Self {
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(worker);
        let mut events = Self(events);
        // A bus that lets a device use memory again makes it look at its queues.
        events.run();
        events
    }

    /// Runs until there is nothing more to do.
    pub(crate) fn run(&mut self) {
        while self.pass() > 0 {}
    }

    /// Handles what there is now, and returns how many events that were.
    pub(crate) fn pass(&mut self) -> usize {
        self.0.run_with_timeout(0).unwrap()
    }
}

/// A toy behind its registers, with its worker in an event loop.
pub(crate) struct Bench<T> {
    pub(crate) memory: Rc<Memory>,
    pub(crate) transport: T,
    pub(crate) events: Loop,
    calls: Arc<Mutex<Vec<Call>>>,
    pub(crate) drivers: Vec<Driver>,
}

impl<T: Transport> Bench<T> {
    pub(crate) fn new() -> Self {
        Self::saying(RestrictedDma::default())
    }

    /// With a toy that says `restricted` of its pool.
    pub(crate) fn saying(restricted: RestrictedDma) -> Self {
        let memory = Memory::new();
        let (toy, calls) = Toy::new();
        let (transport, worker) = T::plug_saying(toy, memory.gate.clone(), restricted);
        let drivers = QUEUES.map(|size| Driver::new(&memory, size)).into();
        Self { memory, transport, events: Loop::new(worker), calls, drivers }
    }

    pub(crate) fn set_up_queue(&self, queue: u16) {
        self.transport.set_queue(queue, self.drivers[usize::from(queue)].layout);
    }

    /// From reset to `status`, by the steps of 3.1.1, with both queues set up if that is DRIVER_OK.
    pub(crate) fn initialise(&mut self, status: u8) {
        self.drivers = QUEUES.map(|size| Driver::new(&self.memory, size)).into();
        self.transport.reset();
        for step in [1, 3, 11, 15].into_iter().filter(|step| *step <= status) {
            match step {
                11 => self.transport.accept(FEATURES),
                15 => [0, 1].into_iter().for_each(|queue| {
                    self.set_up_queue(queue);
                    self.transport.enable_queue(queue);
                    assert!(self.transport.queue_enabled(queue));
                }),
                _ => {}
            }
            self.transport.set_status(step);
            assert_eq!(self.transport.status(), step);
        }
    }

    /// The same, in a pool with nothing in it.
    pub(crate) fn restart(&mut self, status: u8) {
        self.transport.reset();
        self.memory.clear();
        self.initialise(status);
    }

    pub(crate) fn started() -> Self {
        let mut bench = Self::new();
        bench.initialise(15);
        bench
    }

    /// Notifies a queue and lets the worker do what there is.
    pub(crate) fn notify(&mut self, queue: u16) {
        self.transport.notify(queue);
        self.events.run();
    }

    /// One request on `queue`; what came back.
    pub(crate) fn request(&mut self, queue: u16) -> Vec<(u32, u32)> {
        self.drivers[usize::from(queue)].request(&[], &[4]);
        self.notify(queue);
        self.drivers[usize::from(queue)].take_used()
    }

    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    pub(crate) fn refusals(&self) -> crate::pool::Refusals {
        self.memory.gate.audit().refusals()
    }

    pub(crate) fn layouts(&self) -> [QueueLayout; 2] {
        self.transport.with_core(|core| [core.queue_layout(0), core.queue_layout(1)])
    }

    /// Layouts of queues that nobody has set up.
    pub(crate) fn fresh_layouts() -> [QueueLayout; 2] {
        QUEUES.map(|size| QueueLayout { size, ..QueueLayout::default() })
    }

    /// DEVICE_NEEDS_RESET, and the configuration change notification that goes with it (2.1.2).
    pub(crate) fn assert_needs_reset(&self, status: u8, refusals: u64) {
        assert_eq!(self.transport.status(), status | 64);
        assert!(self.transport.take_interrupts().1);
        assert_eq!(self.refusals().total, refusals);
    }

    /// 2.1.2: what a reset clears; then everything works as on the first day.
    pub(crate) fn assert_works_after_reset(&mut self) {
        self.transport.reset();
        assert_eq!((self.transport.status(), self.transport.take_interrupts()), (0, (false, false)));
        for (queue, size) in (0..).zip(QUEUES) {
            assert!(!self.transport.queue_enabled(queue));
            assert_eq!(self.transport.max_queue_size(queue), size);
        }
        assert_eq!(self.layouts(), Self::fresh_layouts());
        assert_eq!(self.take_calls().last(), Some(&Call::Stop));
        self.initialise(15);
        assert_eq!(self.request(0), [(0, 4)]);
        assert_eq!(self.request(1), [(0, 4)]);
        assert_eq!((self.transport.status(), self.transport.take_interrupts()), (15, (true, false)));
    }
}
