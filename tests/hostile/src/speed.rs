// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is told to do as fast as it can, and what it answers. Guest and lab share the words.

use core::fmt;

/// So many times as long as it measures, a guest waits for the first request to be completed, and for the last ones.
pub const PATIENCE: u32 = 100;

/// What is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A disk is read at random places.
    RandomRead,
    /// It is written there.
    RandomWrite,
    /// A disk is read from its start to its end, and again.
    SequentialRead,
    /// It is written in that order.
    SequentialWrite,
    /// An entropy device fills buffers.
    Entropy,
    /// Frames are sent.
    Send,
    /// Frames are received.
    Receive,
}

impl Load {
    /// With their words.
    pub const ALL: [(&'static str, Self); 7] = [
        ("random-read", Self::RandomRead),
        ("random-write", Self::RandomWrite),
        ("sequential-read", Self::SequentialRead),
        ("sequential-write", Self::SequentialWrite),
        ("entropy", Self::Entropy),
        ("send", Self::Send),
        ("receive", Self::Receive),
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, load)| *load == self).map_or("", |(word, _)| word)
    }

    /// The device type (virtio 1.3, 5).
    pub fn device(self) -> u32 {
        match self {
            Self::Send | Self::Receive => 1,
            Self::Entropy => 4,
            _ => 2,
        }
    }

    /// Whether each request is at a random place.
    pub fn is_random(self) -> bool {
        matches!(self, Self::RandomRead | Self::RandomWrite)
    }

    /// Whether the disk is written.
    pub fn is_write(self) -> bool {
        matches!(self, Self::RandomWrite | Self::SequentialWrite)
    }
}

/// What a guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub load: Load,
    /// On virtio-pci, else on virtio-mmio.
    pub pci: bool,
    /// Bytes of a request.
    pub bytes: u32,
    /// Requests at one time, in each queue.
    pub depth: u16,
    /// Queues of the device, which share nothing but the CPU.
    pub queues: u16,
    /// CPUs that share the queues: 1 or 2.
    pub cpus: u16,
    /// Whether to use event indices (VIRTIO_F_EVENT_IDX).
    pub event_idx: bool,
    /// How long, in ticks of the time stamp counter.
    pub ticks: u64,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, pci, bytes, depth, queues, cpus, event_idx, ticks } = *self;
        let (load, pci, event_idx) = (load.word(), u8::from(pci), u8::from(event_idx));
        write!(f, "{load} {pci} {bytes} {depth} {queues} {cpus} {event_idx} {ticks}")
    }
}

impl Order {
    /// Reads an order as it was written.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let word = words.next()?;
        let (_, load) = Load::ALL.into_iter().find(|(of, _)| *of == word)?;
        let pci = words.next()? == "1";
        let bytes = words.next()?.parse().ok()?;
        let [depth, queues, cpus] = [words.next()?, words.next()?, words.next()?].map(str::parse);
        let (depth, queues, cpus) = (depth.ok()?, queues.ok()?, cpus.ok()?);
        let event_idx = words.next()? == "1";
        let ticks = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self { load, pci, bytes, depth, queues, cpus, event_idx, ticks })
    }
}

/// What a guest has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Requests that were completed.
    pub requests: u64,
    /// In how many ticks of the time stamp counter.
    pub ticks: u64,
    /// How often the device was notified, which is an exit each.
    pub notifications: u64,
    /// Bytes that the device says it wrote.
    pub written: u64,
}

/// The word before the numbers.
const DONE: &str = "done ";

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, ticks, notifications, written } = self;
        write!(f, "{DONE}{requests} {ticks} {notifications} {written}")
    }
}

impl Done {
    /// Reads an answer as it was written.
    pub fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix(DONE)?.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let done = Self { requests: next()?, ticks: next()?, notifications: next()?, written: next()? };
        numbers.next().is_none().then_some(done)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn orders_and_answers_are_read_as_they_were_written() {
        for (word, load) in Load::ALL {
            let order = Order {
                load,
                pci: true,
                bytes: 4096,
                depth: 32,
                queues: 2,
                cpus: 1,
                event_idx: false,
                ticks: u64::MAX,
            };
            assert_eq!(Order::parse(&order.to_string()), Some(order), "{word}");
        }
        let done = Done { requests: 1, ticks: 2, notifications: 3, written: 4 };
        assert_eq!(Done::parse(&done.to_string()), Some(done));
        assert_eq!(Done::parse("done 1 2 3"), None);
        assert_eq!(Order::parse("random-read 0 4096 32 1 1 1"), None);
    }
}
