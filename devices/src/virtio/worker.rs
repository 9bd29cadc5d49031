// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Drives a device from an event loop: queue notifications and the host side's readiness.

use std::io;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Handle;

/// Marks the host side's files among the events; below it is the index of the queue to serve.
const HOST: u32 = 1 << 16;

/// One eventfd a queue: the driver's notifications, by ioeventfd or from a register write.
#[derive(Debug)]
pub struct EventFds(Vec<EventFd>);

impl EventFds {
    /// Makes `count` of them.
    pub fn new(count: usize) -> io::Result<Self> {
        (0..count).map(|_| EventFd::new(EFD_NONBLOCK)).collect::<io::Result<_>>().map(Self)
    }

    /// Wakes the worker for the queue with this index, if there is such a queue.
    pub fn notify(&self, index: u32) {
        if let Some(fd) = usize::try_from(index).ok().and_then(|index| self.0.get(index)) {
            // Fails only if 2^64 - 2 notifications are pending: then the worker is awake.
            let _ = fd.write(1);
        }
    }

    /// Wakes the worker for every queue.
    pub fn notify_all(&self) {
        for fd in &self.0 {
            let _ = fd.write(1);
        }
    }

    /// All, in queue order, to register as ioeventfds.
    pub fn iter(&self) -> impl Iterator<Item = &EventFd> {
        self.0.iter()
    }
}

/// Serves queues of a device from an event loop.
#[derive(Debug)]
pub struct Worker {
    handle: Arc<Handle>,
    notifications: Arc<EventFds>,
    /// Indices of the queues that it serves.
    queues: Vec<u16>,
}

impl Worker {
    /// The worker of all queues of the device behind `handle`, woken through `notifications`.
    pub fn new(handle: Arc<Handle>, notifications: Arc<EventFds>) -> Self {
        let queues = (0..).zip(notifications.iter()).map(|(index, _)| index).collect();
        Self { handle, notifications, queues }
    }

    /// A worker for each lane of the device, to run on threads of their own.
    pub fn split(self) -> Vec<Self> {
        let Self { handle, notifications, queues } = self;
        let mut workers: Vec<Self> = Vec::new();
        for index in queues {
            let lane = handle.lane_of(index);
            let of_lane = |worker: &&mut Self| {
                worker.queues.first().is_some_and(|first| handle.lane_of(*first) == lane)
            };
            match workers.iter_mut().find(of_lane) {
                Some(worker) => worker.queues.push(index),
                None => workers.push(Self {
                    handle: Arc::clone(&handle),
                    notifications: Arc::clone(&notifications),
                    queues: vec![index],
                }),
            }
        }
        workers
    }

    /// For the end of its thread.
    pub fn finish(&self) -> Finish {
        let Self { handle, notifications, queues } = self;
        let (handle, notifications) = (Arc::clone(handle), Arc::clone(notifications));
        Finish(Self { handle, notifications, queues: queues.clone() })
    }

    /// Turns are bounded; a queue that is not empty afterwards gets its next turn through the event loop, so that
    /// other events have theirs in between.
    fn again(&self, index: u16, more: bool) {
        if more {
            self.notifications.notify(u32::from(index));
        }
    }
}

/// What is left to do for a worker whose event loop has ended.
#[derive(Debug)]
pub struct Finish(Worker);

impl Finish {
    /// Waits, on the worker's thread, for what it has under way on the host's side.
    pub fn run(self) {
        for index in self.0.queues {
            self.0.handle.finish(index);
        }
    }
}

impl MutEventSubscriber for Worker {
    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        let Ok(index) = u16::try_from(events.data() & !HOST) else { return };
        if events.data() & HOST == 0
            && let Some(fd) = self.notifications.0.get(usize::from(index))
        {
            let _ = fd.read();
        }
        let more = self.handle.serve(index);
        self.again(index, more);
    }

    fn init(&mut self, ops: &mut EventOps) {
        let mut add = |events| {
            if let Err(error) = ops.add(events) {
                log::error!("the device's event loop failed: {error}");
            }
        };
        for (index, fd) in (0u16..).zip(self.notifications.iter()) {
            if self.queues.contains(&index) {
                add(Events::with_data(fd, index.into(), EventSet::IN));
            }
        }
        for (fd, index) in self.handle.host_fds().into_iter().filter(|(_, index)| self.queues.contains(index))
        {
            // Edge-triggered: while the driver gives us no buffers, a readable file must not keep the loop busy.
            let data = HOST | u32::from(index);
            add(Events::with_data_raw(fd, data, EventSet::IN | EventSet::EDGE_TRIGGERED));
        }
    }
}
