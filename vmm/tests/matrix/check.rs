// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The outside of a run: its report has exactly the refusals of the rows, each device moved the bytes of the requests that
//! were to be served, and no disk or network has a byte that it should not have.

use cvmm_hostile::guest::behaviours;
use cvmm_hostile::table::subject::Part;
use cvmm_hostile::table::{
    self as table, CASES_PER_DEVICE, Case, DISK_PATTERN, Kind, PROBE, Places, Record, Request, SENT, Use,
    WRITTEN, cases,
};
use serde_json::Value;

use super::victims::Victims;

pub const DISK_BYTES: usize = 4096;

/// Structures and reasons of what the rows of behaviour must have refused. Of each queue: its areas before the pool, across
/// its end, and elsewhere, and a table that was not negotiated.
const OF_EACH: [(&str, &str); 10] = [
    ("descriptor-table", "crosses the start of the pool"),
    ("available-ring", "crosses the start of the pool"),
    ("used-ring", "crosses the start of the pool"),
    ("descriptor-table", "crosses the end of the pool"),
    ("available-ring", "crosses the end of the pool"),
    ("used-ring", "crosses the end of the pool"),
    ("descriptor-table", "outside the pool"),
    ("available-ring", "outside the pool"),
    ("used-ring", "outside the pool"),
    ("descriptor", "INDIRECT without the feature"),
];
/// Of a disk: chains of 65536 and without end, data over descriptors, data over the available ring.
const OF_BLK: [(&str, &str); 3] = [
    ("descriptor", "the chain loops or is longer than the queue"),
    ("descriptor", "INDIRECT without the feature"),
    ("available-ring", "the available index is more than the queue size ahead"),
];
/// Of the entropy device beside a disk: a table that is its own descriptor.
const OF_RNG_BESIDE: [(&str, &str); 1] = [("descriptor", "INDIRECT inside an indirect table")];
/// What may be there too, unless it is more than the record holds: the second word of each row of memory that changes, and a
/// head that is none.
const OF_RACES: [(&str, &str); 6] = [
    ("readable-buffer", "outside the pool"),
    ("writable-buffer", "outside the pool"),
    ("indirect-table", "outside the pool"),
    ("writable-buffer", "crosses the end of the pool"),
    ("descriptor", "the chain has more than 2^32 bytes"),
    ("available-ring", "no such descriptor in its table"),
];
const OF_MESSAGES: (&str, &str) = ("message", "not in the interrupt window");

/// A run that is over.
pub struct Run {
    pub console: String,
    pub report: Value,
    pub disks: Vec<Vec<u8>>,
    /// What the guest sent, if somebody listened.
    pub frames: Option<Vec<Vec<u8>>>,
}

/// All cases of a device type.
pub fn matrix(run: &Run, kind: Kind, indirect: bool) {
    let cases: Vec<_> = cases(kind, indirect).collect();
    let shares: Vec<_> = cases.chunks(CASES_PER_DEVICE).collect();
    console(run, 2 * cases.len());
    let name = name(kind);
    let (mut victims, mut frames) = (0, Vec::new());
    for transport in ["mmio", "pci"] {
        let devices = run.report["devices"].as_array().unwrap().iter();
        let is_victim =
            |d: &&Value| d["kind"] == name && d["transport"] == transport && d["pool"] == "victims";
        let devices: Vec<_> = devices.filter(is_victim).collect();
        assert_eq!(devices.len(), shares.len());
        for (device, share) in devices.into_iter().zip(&shares) {
            let places = places(device, &run.report);
            let records = share.iter().filter_map(|case| case.record(&places, indirect));
            refusals(device, records.map(|record| (kind.id_and_queue().1, record)));
            let requests = requests(kind, share, &places, indirect);
            transfers(device, kind, &requests);
            frames.extend(requests.iter().filter_map(frame));
            if kind == Kind::Blk {
                disk(&run.disks[victims], &requests);
            }
            victims += 1;
        }
    }
    witness(run);
    if let Some(sent) = &run.frames {
        assert!(*sent == frames, "the network got other frames than were to be sent: {sent:x?}");
    }
}

/// MSI-X: a message goes to the local APICs, or it is refused.
pub fn messages(run: &Run) {
    let cases: Vec<_> = table::messages().collect();
    console(run, cases.len());
    let devices = run.report["devices"].as_array().unwrap().iter();
    let devices: Vec<_> = devices.filter(|device| device["transport"] == "pci").collect();
    let shares: Vec<_> = cases.chunks(CASES_PER_DEVICE).collect();
    assert_eq!(devices.len(), shares.len());
    let mut refused = 0;
    for (device, share) in devices.into_iter().zip(shares) {
        let places = places(device, &run.report);
        // A record says which vector it was.
        let records = share.iter().filter_map(|(message, _, entry)| Some((*entry, message.record(&places)?)));
        refusals(device, records);
        refused += device["refused"].as_u64().unwrap();
    }
    assert_eq!(run.report["refused"], refused);
    // After each of them the device served an honest request, and one more if the message was to tell of it.
    let told = cases.iter().filter(|(message, use_, _)| message.refused.is_none() && *use_ == Use::Queue);
    let served = cases.len() + told.count();
    assert!(run.disks.iter().flatten().all(|byte| *byte == DISK_PATTERN), "a disk was written");
    let frames = run.frames.as_deref().map(|frames| (frames.len(), frames.iter().all(|f| *f == [SENT; 512])));
    assert!(frames.is_none_or(|frames| frames == (served, true)), "other frames were sent");
    witness(run);
}

/// What is wrong without an address.
pub fn behaviour(run: &Run, kind: Kind) {
    console(run, behaviour_cases(kind));
    let devices = run.report["devices"].as_array().unwrap();
    let name = name(kind);
    for device in devices.iter().filter(|device| device["pool"] == "victims") {
        let text = |refusal: &Value, field: &str| refusal[field].as_str().unwrap().to_owned();
        let refusals = device["refusals"].as_array().unwrap().iter();
        let seen: Vec<_> = refusals.map(|it| (text(it, "structure"), text(it, "reason"))).collect();
        let certain = match kind {
            _ if device["kind"] != name => OF_RNG_BESIDE.to_vec(),
            Kind::Blk => [&OF_BLK[..], &OF_EACH].concat(),
            _ => OF_EACH.to_vec(),
        };
        for (structure, reason) in &certain {
            let is_it = |(s, r): &(String, String)| (&**s, &**r) == (*structure, *reason);
            assert!(seen.iter().any(is_it), "not refused: {structure}: {reason}: {device:#}");
        }
        for refusal in seen.iter().map(|(structure, reason)| (&**structure, &**reason)) {
            let message = device["transport"] == "pci" && refusal == OF_MESSAGES;
            let race = device["kind"] == name && OF_RACES.contains(&refusal);
            let is_known = certain.contains(&refusal) || race || message;
            assert!(is_known, "no row does this: {refusal:?}: {device:#}");
        }
    }
    assert!(
        run.disks.iter().all(|disk| *disk == Victims::of_behaviour(kind).contents()),
        "a disk was written"
    );
    let is_ours = |frame: &Vec<u8>| *frame == [SENT; 512] || *frame == PROBE;
    assert!(run.frames.iter().flatten().all(is_ours), "other frames were sent than were to be");
    witness(run);
}

/// How many cases the rows of behaviour are for a type of queue: those for PCI alone are one.
pub fn behaviour_cases(kind: Kind) -> usize {
    behaviours(kind).map(|row| if row.on_pci { 1 } else { 2 }).sum()
}

/// Each case went well from inside.
pub fn console(run: &Run, cases: usize) {
    let failed: Vec<_> = run.console.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(run.console.lines().filter(|line| line.starts_with("ok ")).count(), cases);
    assert!(run.console.lines().any(|line| line == format!("done: {cases} cases")), "{}", run.console);
}

/// What the report calls a device of this type.
fn name(kind: Kind) -> &'static str {
    match kind.id_and_queue().0 {
        1 => "net",
        2 => "blk",
        _ => "rng",
    }
}

/// The device that nobody attacked.
pub fn witness(run: &Run) {
    let devices = run.report["devices"].as_array().unwrap().iter();
    let [witness] = devices.filter(|device| device["pool"] == "witness").collect::<Vec<_>>()[..] else {
        panic!("there is one witness: {}", run.report["devices"])
    };
    assert_eq!((&witness["kind"], &witness["refused"]), (&Value::from("rng"), &Value::from(0)));
    assert!(witness["dma"]["written"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0));
}

fn places(device: &Value, report: &Value) -> Places {
    let pool = |name: &Value| {
        let pools = report["memory"]["pools"].as_array().unwrap();
        let pool = pools.iter().find(|pool| pool["name"] == *name).unwrap();
        let [base, size] = ["base", "size"].map(|field| pool[field].as_u64().unwrap());
        (base, base + size)
    };
    let ((pool, pool_end), other) = (pool(&device["pool"]), pool(&"witness".into()).0);
    let base = |device: &Value| device["window"]["base"].as_u64().unwrap();
    let others = || report["devices"].as_array().unwrap().iter().filter(|other| *other != device);
    let window = others().find(|other| other["pool"] == "witness").map(base).unwrap_or_default();
    let bar = others().find(|other| other["transport"] == "pci").map(base).unwrap_or_default();
    Places { pool, pool_end, other, registers: base(device), window, bar }
}

/// The report of `device` has these refusals, each of a queue, and no other.
fn refusals(device: &Value, records: impl Iterator<Item = (u16, Record)>) {
    let mut expected: Vec<((u16, Record), u64)> = Vec::new();
    for record in records {
        match expected.iter_mut().find(|(other, _)| *other == record) {
            Some((_, count)) => *count += 1,
            None => expected.push((record, 1)),
        }
    }
    let refusals = device["refusals"].as_array().unwrap();
    let number = |refusal: &Value, field: &str| refusal[field].as_u64().unwrap();
    let text = |refusal: &Value, field: &str| refusal[field].as_str().unwrap().to_owned();
    for (refusal, ((queue, record), count)) in refusals.iter().zip(&expected) {
        let Record { structure, address, length, reason } = record;
        let seen = (text(refusal, "structure"), number(refusal, "address"), number(refusal, "length"));
        assert_eq!(seen, ((*structure).to_owned(), *address, *length), "{refusal} is not {record:x?}");
        let seen = (number(refusal, "queue"), text(refusal, "reason"), number(refusal, "count"));
        assert_eq!(seen, (u64::from(*queue), (*reason).to_owned(), *count), "{refusal} is not {record:x?}");
    }
    assert_eq!(refusals.len(), expected.len(), "{refusals:#?} {expected:#x?}");
    let total: u64 = expected.iter().map(|(_, count)| count).sum();
    assert_eq!(device["refused"], total);
}

/// What a device was to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    /// It served a request.
    Served(Request),
    /// It refused a buffer, and sent the frame that asked for one to put there.
    Asked,
}

/// What a device was to do in its cases: after each of them comes an honest request.
fn requests(kind: Kind, cases: &[Case], places: &Places, indirect: bool) -> Vec<Done> {
    let mut done = Vec::new();
    for case in cases {
        let area = |subject: &&cvmm_hostile::table::Subject| {
            matches!(subject.part, Part::Descriptors | Part::Available | Part::Used)
        };
        match (case, case.record(places, indirect)) {
            (_, None) => done.push(Done::Served(case.setup(places, indirect).request)),
            // Such a device is not started.
            (Case::Misplaced(subject, _), Some(_)) if area(subject) => {}
            (_, Some(_)) if kind == Kind::Receive => done.push(Done::Asked),
            (_, Some(_)) => {}
        }
        done.push(Done::Served(kind.request()));
    }
    done
}

/// The device moved the bytes of what it was to do, and no other.
fn transfers(device: &Value, kind: Kind, done: &[Done]) {
    let asked = 12 + PROBE.len();
    let (read, written) = done.iter().fold((0, 0), |(read, written), done| match done {
        Done::Served(Request::Read) => (read + 16, written + 512 + 1),
        Done::Served(Request::Write) => (read + 16 + 512, written + 1),
        Done::Served(Request::Random) => (read, written + 512),
        Done::Served(Request::Send) => (read + 12 + 512, written),
        // The answer is as long as the question; num_buffers is written after it.
        Done::Served(Request::Receive) => (read + asked, written + asked + 2),
        Done::Served(Request::Command) => (read + 2 + 2, written + 1),
        Done::Asked => (read + asked, written),
    });
    assert_eq!(device["dma"]["written"]["bytes"], written);
    // Of a disk's request the header is read before it is known to fit its buffers.
    if kind != Kind::Blk {
        assert_eq!(device["dma"]["read"]["bytes"], read);
    }
}

/// The frame that the host gets of it.
fn frame(done: &Done) -> Option<Vec<u8>> {
    match done {
        Done::Served(Request::Send) => Some(vec![SENT; 512]),
        Done::Served(Request::Receive) | Done::Asked => Some(PROBE.to_vec()),
        Done::Served(_) => None,
    }
}

/// A disk has what it had, but for the sector that a served request wrote.
fn disk(disk: &[u8], done: &[Done]) {
    let mut expected = [DISK_PATTERN; DISK_BYTES];
    if done.contains(&Done::Served(Request::Write)) {
        expected[1024..1536].fill(WRITTEN);
    }
    assert!(disk == expected, "the disk has other bytes than were written to it");
}
