// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A cell of the matrix: what the driver does, and what must be in the report.

use super::malformed::{MALFORMED, Malformed};
use super::subject::{Descriptor, INDIRECT, NEXT, Part, SUBJECTS, Table};
use super::way::{Expected, For, WAYS};
use super::{DESCRIPTOR, Kind, Places, Request, Subject, Way};

/// A case.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    /// A structure in the wrong place.
    Misplaced(&'static Subject, &'static Way),
    /// A chain, or an available ring, that is wrong in itself.
    Malformed(&'static Malformed, Kind),
}

/// A refusal, as the report has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// What was pointed at, or described wrongly.
    pub structure: &'static str,
    /// Its guest-physical address.
    pub address: u64,
    /// Its length.
    pub length: u64,
    /// What was wrong.
    pub reason: &'static str,
}

/// What the driver writes for a case.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What is asked for: the type in blk's header.
    pub request: Request,
    /// Where the descriptor table is.
    pub descriptors: u64,
    /// Where the available ring is.
    pub available: u64,
    /// Where the used ring is.
    pub used: u64,
    /// What is in the descriptor table.
    pub queue_table: Table,
    /// Where the indirect table is, and what is in it.
    pub indirect: Option<(u64, Table)>,
    /// The entry of the available ring.
    pub head: u16,
    /// The index of the available ring.
    pub index: u16,
}

impl Setup {
    /// An honest request in honest places.
    pub fn honest(places: &Places, request: Request, indirect: bool) -> Self {
        let chain = request.chain(places);
        let mut setup = Self {
            request,
            descriptors: places.descriptors(),
            available: places.available(),
            used: places.used(),
            queue_table: chain,
            indirect: None,
            head: 0,
            index: 1,
        };
        if indirect {
            setup.queue_table = Table::default();
            setup.queue_table[0] = Descriptor {
                address: places.table(),
                length: u32::from(request.buffers()) * 16,
                flags: INDIRECT,
                next: 0,
            };
            setup.indirect = Some((places.table(), chain));
        }
        setup
    }

    /// What is in the table that has the buffers.
    pub fn chain(&self) -> Table {
        self.indirect.map_or(self.queue_table, |(_, table)| table)
    }

    /// The last descriptor of an honest request.
    pub fn last(&self) -> Descriptor {
        self.chain()[usize::from(self.request.buffers()) - 1]
    }

    /// Has its first descriptor go on at another index.
    pub fn go_on_at(&mut self, index: u16) {
        let first = &mut self.buffers()[0];
        (first.flags, first.next) = (first.flags | NEXT, index);
    }

    /// The table that has the buffers.
    pub fn buffers(&mut self) -> &mut Table {
        self.indirect.as_mut().map_or(&mut self.queue_table, |(_, table)| table)
    }
}

impl Case {
    /// Its name: row and row.
    pub fn name(&self) -> (&'static str, &'static str) {
        match self {
            Case::Misplaced(subject, way) => (subject.name, way.name),
            Case::Malformed(malformed, _) => ("malformed", malformed.name),
        }
    }

    /// Where its rows say it follows from.
    pub fn clauses(&self) -> (&'static str, &'static str) {
        match self {
            Case::Misplaced(subject, way) => (subject.clause, way.clause),
            Case::Malformed(malformed, _) => ("virtio 1.3, 2.7", malformed.clause),
        }
    }

    /// What the driver writes.
    pub fn setup(&self, places: &Places, indirect: bool) -> Setup {
        let (subject, way) = match self {
            Case::Misplaced(subject, way) => (subject, way),
            Case::Malformed(malformed, kind) => return malformed.setup(*kind, places, indirect),
        };
        let mut setup = Setup::honest(places, subject.request, indirect);
        let (address, length) = (way.place)(places, subject);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        match subject.part {
            Part::Descriptors => setup.descriptors = address,
            Part::Available => setup.available = address,
            Part::Used => setup.used = address,
            Part::Indirect => {
                (setup.queue_table[0].address, setup.queue_table[0].length) = (address, length);
                if let Some((place, _)) = &mut setup.indirect {
                    *place = address;
                }
            }
            Part::Buffer(index) => {
                let buffer = &mut setup.buffers()[usize::from(index)];
                (buffer.address, buffer.length) = (address, length);
            }
        }
        setup
    }

    /// The refusal that must be in the report; `None` if there must be none.
    pub fn record(&self, places: &Places, indirect: bool) -> Option<Record> {
        let (subject, way) = match self {
            Case::Misplaced(subject, way) => (subject, way),
            Case::Malformed(malformed, kind) => return Some(malformed.record(*kind, places, indirect)),
        };
        let Expected::Refused(reason) = way.expected else { return None };
        let (address, length) = (way.place)(places, subject);
        // virtio 1.3, 2.7.5.2: a chain has no more than 2^32 bytes, the ones before this buffer included.
        if let Part::Buffer(index @ 1..) = subject.part
            && length == u64::from(u32::MAX)
        {
            let table = if indirect { places.table() } else { places.descriptors() };
            let address = table + DESCRIPTOR * u64::from(index);
            let reason = "the chain has more than 2^32 bytes";
            return Some(Record { structure: "descriptor", address, length: DESCRIPTOR, reason });
        }
        Some(Record { structure: subject.record, address, length, reason })
    }

    fn is_for(&self, kind: Kind, indirect: bool) -> bool {
        match self {
            Case::Malformed(malformed, _) => malformed.is_for(kind, indirect),
            Case::Misplaced(subject, way) => {
                let table = subject.part == Part::Indirect;
                let buffer = matches!(subject.part, Part::Buffer(_));
                let fits = match way.of {
                    For::All => true,
                    For::Long => subject.length > subject.alignment,
                    For::Areas => !table && !buffer,
                    For::Pointed => table || buffer,
                    For::Buffers => buffer,
                    For::Tables => table,
                };
                subject.kind == kind && fits && (indirect || !subject.indirect)
            }
        }
    }
}

/// The cases of a device type, with indirect tables and event indices or without.
pub fn cases(kind: Kind, indirect: bool) -> impl Iterator<Item = Case> {
    let misplaced = SUBJECTS.iter().flat_map(|s| WAYS.iter().map(move |w| Case::Misplaced(s, w)));
    misplaced
        .chain(MALFORMED.iter().map(move |m| Case::Malformed(m, kind)))
        .filter(move |case| case.is_for(kind, indirect))
}
