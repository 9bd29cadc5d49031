// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transfers that are under way while their queue goes on.

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;

use vm_memory::VolatileSlice;

use super::request::Request;
use crate::queue::{Chain, TURN_BYTES};

/// Transfers of one queue that are under way at most. More wait in the queue.
pub const MAX_UNDER_WAY: u16 = 64;

/// What moves data between a disk and the pool, several transfers at a time. A transfer has a token, below [`MAX_UNDER_WAY`],
/// that no other one has until it has completed. Its memory is the driver's until then.
pub trait Ring: Debug + Send {
    /// Fills `to` from `offset`. `Some`: so many bytes, at once. `None`: it is under way, after the next [`Ring::submit`].
    fn read(
        &mut self,
        token: u16,
        offset: u64,
        to: &mut dyn Iterator<Item = VolatileSlice<'_>>,
    ) -> io::Result<Option<u64>>;

    /// Writes `from` at `offset`; the rest as for [`Ring::read`].
    fn write(
        &mut self,
        token: u16,
        offset: u64,
        from: &mut dyn Iterator<Item = VolatileSlice<'_>>,
    ) -> io::Result<Option<u64>>;

    /// Hands what has begun to the host.
    fn submit(&mut self);

    /// A transfer that has completed since, and how many bytes it moved.
    fn completed(&mut self) -> Option<(u16, io::Result<u64>)>;

    /// Returns when one of those under way has completed.
    fn wait(&mut self);

    /// Its file, readable when something has completed.
    fn fd(&self) -> RawFd;
}

/// A request that is under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) request: Request,
    pub(super) chain: Chain,
}

/// The requests of one queue that are under way.
#[derive(Debug)]
pub(super) struct Flights {
    pub(super) ring: Box<dyn Ring>,
    /// By token.
    flights: Vec<Flight>,
    free: Vec<u16>,
    /// What they move. A reset waits for all of it.
    bytes: u64,
}

impl Flights {
    pub(super) fn new(ring: Box<dyn Ring>) -> Self {
        let flights = std::iter::repeat_with(Flight::default).take(MAX_UNDER_WAY.into()).collect();
        Self { ring, flights, free: (0..MAX_UNDER_WAY).collect(), bytes: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Whether another one has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() || self.bytes >= TURN_BYTES
    }

    /// The ring, and the token of the next one.
    pub(super) fn next(&mut self) -> Option<(u16, &mut dyn Ring)> {
        let ring: &mut dyn Ring = self.ring.as_mut();
        Some((self.free.last().copied()?, ring))
    }

    /// The request with the next token is under way. Leaves another chain to walk the next one with.
    pub(super) fn begin(&mut self, request: Request, chain: &mut Chain) {
        let token = self.free.pop().map(usize::from);
        if let Some(flight) = token.and_then(|token| self.flights.get_mut(token)) {
            flight.request = request;
            std::mem::swap(&mut flight.chain, chain);
            self.bytes = self.bytes.saturating_add(request.data_len());
        }
    }

    /// A request that has completed, with its outcome.
    pub(super) fn completed(&mut self) -> Option<(&Flight, io::Result<u64>)> {
        let (token, moved) = self.ring.completed()?;
        let flight = self.flights.get(usize::from(token))?;
        self.free.push(token);
        self.bytes = self.bytes.saturating_sub(flight.request.data_len());
        Some((flight, moved))
    }
}
