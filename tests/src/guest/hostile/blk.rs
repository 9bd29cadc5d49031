// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests to a disk: one that is honest, and one for each way to be not.

use anyhow::{Result, ensure};

use super::bench::{Bench, Places, QUEUE_SIZE};
use super::registers::Registers;
use super::request::{Descriptor, Request, chain, indirect, readable, writable};
use crate::guest::report::Report;
use crate::pattern;

const READ: u32 = 0;
const WRITE: u32 = 1;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
/// Feature bit: the disk is read-only.
const READ_ONLY: u64 = 1 << 5;
const SECTOR: u32 = 512;

/// Makes a request that must be refused.
type Make = fn(&Places) -> Request;

/// All cases read one sector, but for the one that says so. A read has a header, data and a status byte.
const CASES: [(&str, Make); 24] = [
    ("data-in-private", |at| data(at, writable(at.private, SECTOR))),
    ("data-past-end", |at| data(at, writable(at.pool.end - 256, SECTOR))),
    ("data-before-start", |at| data(at, writable(at.pool.start - 256, SECTOR))),
    ("data-wraps", |at| data(at, writable(u64::MAX - 255, SECTOR))),
    ("data-huge", |at| data(at, writable(at.data, u32::MAX))),
    ("data-second-buffer-in-private", |at| {
        let halves = [writable(at.data, 256), writable(at.private, 256)];
        Request::new(chain(&[header(at), halves[0], halves[1], status(at)]))
    }),
    ("write-from-private", |at| Request::new(chain(&[header(at), readable(at.private, SECTOR), status(at)]))),
    ("header-in-private", |at| {
        Request::new(chain(&[readable(at.private_table, 16), buffer(at), status(at)]))
    }),
    ("status-in-private", |at| Request::new(chain(&[header(at), buffer(at), writable(at.private, 1)]))),
    ("indirect-table-in-private", |at| {
        Request::new(vec![indirect(at.private_table, 48)]).with_table(at.private_table, honest_chain(at))
    }),
    ("indirect-table-past-end", |at| Request::new(vec![indirect(at.pool.end - 32, 48)])),
    ("indirect-table-wraps", |at| {
        Request::new(vec![indirect(u64::MAX - 15, 48)]).with_table(at.table, honest_chain(at))
    }),
    ("indirect-entry-in-private", |at| {
        let entries = chain(&[header(at), writable(at.private, SECTOR), status(at)]);
        Request::new(vec![indirect(at.table, 48)]).with_table(at.table, entries)
    }),
    ("indirect-with-next", |at| {
        let descriptors = vec![indirect(at.table, 48).with_next(1), status(at)];
        Request::new(descriptors).with_table(at.table, honest_chain(at))
    }),
    ("indirect-in-indirect", |at| {
        Request::new(vec![indirect(at.table, 16)]).with_table(at.table, vec![indirect(at.table + 256, 48)])
    }),
    ("indirect-odd-length", |at| {
        Request::new(vec![indirect(at.table, 47)]).with_table(at.table, honest_chain(at))
    }),
    ("indirect-empty", |at| Request::new(vec![indirect(at.table, 0)]).with_table(at.table, honest_chain(at))),
    ("loop", |at| {
        Request::new(vec![header(at).with_next(1), buffer(at).with_next(2), status(at).with_next(1)])
    }),
    ("next-outside-table", |at| Request::new(vec![header(at).with_next(QUEUE_SIZE)])),
    ("head-outside-table", |at| Request { head: QUEUE_SIZE, ..Request::new(honest_chain(at)) }),
    ("index-jumps", |at| Request { index: QUEUE_SIZE + 1, ..Request::new(honest_chain(at)) }),
    ("readable-after-writable", |at| {
        Request::new(chain(&[header(at), buffer(at), readable(at.data + 1024, 16), status(at)]))
    }),
    ("nothing-writable", |at| {
        Request::new(chain(&[header(at), readable(at.data, SECTOR), readable(at.status, 1)]))
    }),
    ("nothing-readable", |at| Request::new(chain(&[writable(at.header, 16), buffer(at), status(at)]))),
];

pub(super) fn run(label: &str, bench: &Bench, registers: &Registers, seed: u64, report: &Report) {
    report.check(&format!("{label}-honest"), || honest(bench, registers, seed));
    for (name, request) in CASES {
        report.check(&format!("{label}-{name}"), || {
            bench.start(registers, 0)?;
            let kind = if name == "write-from-private" { WRITE } else { READ };
            for place in [bench.places.header, bench.places.private_table] {
                write_header(bench, place, kind);
            }
            bench.refuse(registers, 0, &request(&bench.places))?;
            Ok("NEEDS_RESET, nothing moved".into())
        });
    }
    report.check(&format!("{label}-dead-until-reset"), || {
        bench.start(registers, 0)?;
        write_header(bench, bench.places.header, READ);
        let Places { private, .. } = bench.places;
        bench.refuse(registers, 0, &data(&bench.places, writable(private, SECTOR)))?;
        let second = Request { index: 2, ..Request::new(honest_chain(&bench.places)) };
        bench.refuse(registers, 0, &second)?;
        Ok("an honest request after a refused one was not served".into())
    });
    report.check(&format!("{label}-after-reset"), || honest(bench, registers, seed));
    if registers.offered() & READ_ONLY != 0 {
        report.check(&format!("{label}-write-to-read-only"), || write_fails(bench, registers, seed));
    }
}

/// Reads the first sector as an honest driver would: the disk holds the pattern.
fn honest(bench: &Bench, registers: &Registers, seed: u64) -> Result<String> {
    bench.start(registers, 0)?;
    let at = &bench.places;
    write_header(bench, at.header, READ);
    bench.serve(registers, 0, &Request::new(honest_chain(at)))?;
    let result: u8 = bench.at(at.status).read(at.status);
    ensure!(result == OK, "the read ended with status {result}");
    let read = bench.at(at.data).bytes(at.data, u64::from(SECTOR));
    ensure!(
        read == pattern::bytes(seed, read.len()),
        "the first sector is not the pattern: {:02x?}...",
        &read[..16]
    );
    Ok("a read was served".into())
}

/// The device itself refuses to write, whatever the kernel thinks of the disk.
fn write_fails(bench: &Bench, registers: &Registers, seed: u64) -> Result<String> {
    bench.start(registers, 0)?;
    let at = &bench.places;
    write_header(bench, at.header, WRITE);
    let request = Request::new(chain(&[header(at), readable(at.data, SECTOR), status(at)]));
    bench.serve(registers, 0, &request)?;
    let result: u8 = bench.at(at.status).read(at.status);
    ensure!(result == IO_ERROR, "the write ended with status {result}, but should with {IO_ERROR}");
    honest(bench, registers, seed)?;
    Ok("an error, and the sector is as before".into())
}

/// Kind of request, reserved, sector (virtio 1.3, 5.2.6).
fn write_header(bench: &Bench, place: u64, kind: u32) {
    let memory = bench.at(place);
    memory.write(place, kind);
    memory.write(place + 4, 0_u32);
    memory.write(place + 8, 0_u64);
}

fn header(at: &Places) -> Descriptor {
    readable(at.header, 16)
}

fn buffer(at: &Places) -> Descriptor {
    writable(at.data, SECTOR)
}

fn status(at: &Places) -> Descriptor {
    writable(at.status, 1)
}

fn honest_chain(at: &Places) -> Vec<Descriptor> {
    chain(&[header(at), buffer(at), status(at)])
}

/// A read into another buffer than an honest one.
fn data(at: &Places, buffer: Descriptor) -> Request {
    Request::new(chain(&[header(at), buffer, status(at)]))
}
