// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A request queue on its thread.

use std::os::fd::RawFd;
use std::sync::Arc;

use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;

use super::request::{Host, Progress, Request};
use super::ring::{Flights, Ring};
use super::{Disk, ID_LEN};
use crate::ErrorLog;
use crate::pool::Refusal;
use crate::queue::{Chain, Queue, TURN_BYTES, Turn};
use crate::virtio::{HostIo, Lane, Queues};

/// What serves one request queue.
#[derive(Debug)]
pub(super) struct RequestLane {
    index: u16,
    disk: Arc<dyn Disk>,
    id: [u8; ID_LEN],
    /// Without VIRTIO_BLK_F_FLUSH a completed write is on the disk (virtio 1.3, 5.2.6.2).
    write_through: bool,
    chain: Chain,
    /// Requests under way, where the host works on several at a time.
    flights: Option<Flights>,
    errors: ErrorLog,
}

impl RequestLane {
    pub(super) fn new(
        index: u16,
        disk: Arc<dyn Disk>,
        id: [u8; ID_LEN],
        ring: Option<Box<dyn Ring>>,
        errors: ErrorLog,
    ) -> Self {
        let flights = ring.map(Flights::new);
        Self { index, disk, id, write_through: true, chain: Chain::default(), flights, errors }
    }

    /// A turn, as [`Queue::turn`] has it, of which some requests go on after its end.
    fn turn(&mut self, queue: &mut Queue) -> Result<Turn, Refusal> {
        let Self { index, disk, id, write_through, chain, flights, errors } = self;
        let (queue_index, disk, write_through) = (*index, disk.as_ref(), *write_through);
        let mut turn = Turn { interrupt: false, more: true };
        let mut bytes = 0u64;
        for _ in 0..queue.size() {
            // Room comes with a completion, and that with another turn.
            if flights.as_ref().is_some_and(Flights::is_full)
                || (!queue.pop(chain)? && !queue.rearm(chain)?)
            {
                turn.more = false;
                break;
            }
            bytes = bytes.saturating_add(chain.readable_len()).saturating_add(chain.writable_len());
            let host = Host { gate: queue.gate(), queue: queue_index, disk, id, write_through, errors };
            let request = Request::read(&host, chain)?;
            let ring = flights.as_mut().and_then(Flights::next);
            match request.begin(&host, chain, ring)? {
                Progress::Done(served) => {
                    bytes = bytes.saturating_add(served.work);
                    queue.push(chain.head(), served.written)?;
                }
                Progress::UnderWay => {
                    if let Some(flights) = flights {
                        flights.begin(request, chain);
                    }
                }
            }
            // The host may take long over each, and a reset is waited for by a vCPU.
            if bytes >= TURN_BYTES || queue.is_waited_for() {
                break;
            }
        }
        Ok(turn)
    }

    /// Gives back the requests that have completed.
    fn give_back(&mut self, queue: Option<&mut Queue>) -> Result<(), Refusal> {
        let Self { index, disk, id, write_through, flights, errors, .. } = self;
        let Some(flights) = flights else { return Ok(()) };
        let Some(queue) = queue else {
            // Does not happen: they are waited for before a queue goes.
            while flights.completed().is_some() {}
            return Ok(());
        };
        let (disk, write_through) = (disk.as_ref(), *write_through);
        while let Some((flight, moved)) = flights.completed() {
            let host = Host { gate: queue.gate(), queue: *index, disk, id, write_through, errors };
            let served = flight.request.finish(&host, &flight.chain, moved)?;
            queue.push(flight.chain.head(), served.written)?;
        }
        Ok(())
    }
}

impl Lane for RequestLane {
    fn start(&mut self, features: u64) {
        self.write_through = features & 1 << VIRTIO_BLK_F_FLUSH == 0;
    }

    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal> {
        let Some(queue) = queues.get(index) else { return Ok(Turn::default()) };
        queue.suppress_notifications()?;
        let mut served = self.give_back(Some(&mut *queue)).and_then(|()| self.turn(queue));
        if let Some(flights) = self.flights.as_mut().filter(|flights| flights.len() > 0) {
            flights.ring.submit();
            // Some are done by now.
            if let Some(queue) = queues.get(index).filter(|_| served.is_ok()) {
                self.give_back(Some(queue))?;
            }
        }
        if served.is_err() {
            // What came before it is done first. Then nothing goes on.
            self.settle(queues);
        } else if let (Ok(turn), Some(queue)) = (&mut served, queues.get(index)) {
            turn.interrupt = queue.wants_interrupt()?;
        }
        served
    }

    fn under_way(&self) -> usize {
        self.flights.as_ref().map_or(0, Flights::len)
    }

    fn complete(&mut self, queues: &mut Queues) -> Result<Turn, Refusal> {
        if self.under_way() == 0 {
            return Ok(Turn::default());
        }
        let mut queue = queues.get(self.index);
        self.give_back(queue.as_deref_mut())?;
        let interrupt = queue.map_or(Ok(false), Queue::wants_interrupt)?;
        Ok(Turn { interrupt, more: false })
    }

    fn settle(&mut self, queues: &mut Queues) {
        while self.under_way() > 0 {
            if let Some(flights) = &mut self.flights {
                flights.ring.wait();
            }
            // Each call takes one at least, whatever comes of it.
            let _ = self.complete(queues);
        }
    }

    fn host_io(&self) -> Option<HostIo> {
        Some(if self.flights.is_some() { HostIo::Ring } else { HostIo::Synchronous })
    }

    fn host_fds(&self) -> Vec<(RawFd, u16)> {
        self.flights.iter().map(|flights| (flights.ring.fd(), self.index)).collect()
    }
}
