// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The matrix: every structure that a driver can point a device at, in every place where it must not be, on either
//! transport. The rows are in tests/hostile/src/table; the driver is a guest of its own in tests/hostile/src/guest,
//! which any /dev/kvm runs, one without hardware virtualization, too.
//!
//! The guest looks from inside: DEVICE_NEEDS_RESET and its interrupt, no byte of private memory and none of the pool
//! changed, another device goes on, and after a reset the device serves. Here is the outside: the report has exactly
//! the refusals of the rows, and no disk has a byte that it should not have.

mod guest;

use cvmm_hostile::guest::BEHAVIOURS;
use cvmm_hostile::table::{
    CASES_PER_DEVICE, Case, DISK_PATTERN, Kind, MESSAGES, Places, Record, Request, WRITTEN, cases,
};
use guest::Victims;
use serde_json::Value;

#[test]
fn blk_with_plain_chains() {
    matrix(Kind::Blk, false);
}

#[test]
fn blk_with_indirect_tables_and_event_indices() {
    matrix(Kind::Blk, true);
}

#[test]
fn rng_with_plain_chains() {
    matrix(Kind::Rng, false);
}

#[test]
fn rng_with_indirect_tables_and_event_indices() {
    matrix(Kind::Rng, true);
}

#[test]
fn net_with_plain_chains() {
    matrix(Kind::Net, false);
}

#[test]
fn net_with_indirect_tables_and_event_indices() {
    matrix(Kind::Net, true);
}

fn matrix(kind: Kind, indirect: bool) {
    let cases: Vec<_> = cases(kind, indirect).collect();
    let shares: Vec<_> = cases.chunks(CASES_PER_DEVICE).collect();
    let (count, none) = (shares.len(), Victims::default());
    let (name, victims) = match kind {
        Kind::Blk => ("blk", Victims { disks: count, ..none }),
        Kind::Rng => ("rng", Victims { rngs: count, ..none }),
        Kind::Net => ("net", Victims { nets: count, ..none }),
    };
    let features = if indirect { "indirect" } else { "plain" };
    let Some(run) = guest::boot(&format!("matrix={name},{features}"), victims) else { return };

    check_console(&run.console, 2 * cases.len());
    let (mut victims, mut others) = (0, 0);
    for transport in ["mmio", "pci"] {
        let devices = run.report["devices"].as_array().unwrap().iter();
        let mut devices = devices.filter(|d| d["kind"] == name && d["transport"] == transport);
        for (number, share) in shares.iter().enumerate() {
            let device = devices.next().unwrap();
            let places = places(device, &run.report);
            let records = share.iter().filter_map(|case| case.record(&places, indirect));
            check_refusals(device, kind.id_and_queue().1, records);
            check_transfers(device, kind, share, &places, indirect);
            victims += 1;
            if kind == Kind::Blk {
                let disk = number + if transport == "pci" { shares.len() } else { 0 };
                check_disk(&run.disks[disk], share, &places, indirect);
            }
        }
        others += devices.count();
    }
    assert_eq!((victims, others), (2 * shares.len(), usize::from(kind == Kind::Rng)));
    // The device that nobody attacked.
    let witness =
        run.report["devices"].as_array().unwrap().iter().rfind(|d| d["transport"] == "mmio").unwrap();
    assert_eq!((&witness["kind"], &witness["refused"]), (&Value::from("rng"), &Value::from(0)));
}

/// Each case went well from inside.
fn check_console(console: &str, cases: usize) {
    let failed: Vec<_> = console.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(console.lines().filter(|line| line.starts_with("ok ")).count(), cases);
}

/// MSI-X: a message goes to the local APICs, or it is refused.
#[test]
fn messages_of_msix_table_entries() {
    let Some(run) = guest::boot("matrix=messages", Victims { rngs: 1, ..Victims::default() }) else { return };
    check_console(&run.console, MESSAGES.len());
    let devices = run.report["devices"].as_array().unwrap();
    let device = devices.iter().find(|device| device["transport"] == "pci").unwrap();
    let places = places(device, &run.report);
    check_refusals(device, 0, MESSAGES.iter().filter_map(|message| message.record(&places)));
    assert_eq!(run.report["refused"], device["refused"]);
}

/// What is wrong without an address: tests/hostile/src/guest/behaviour.
#[test]
fn behaviour_beyond_addresses() {
    let Some(run) = guest::boot("matrix=behaviour", Victims { disks: 1, rngs: 1, nets: 0 }) else { return };
    check_console(&run.console, 2 * BEHAVIOURS);
    let devices = run.report["devices"].as_array().unwrap();
    assert!(devices.iter().filter(|device| device["kind"] == "rng").all(|device| device["refused"] == 0));
    assert!(run.disks.iter().flatten().all(|byte| *byte == DISK_PATTERN), "a disk was written");
}

fn places(device: &Value, report: &Value) -> Places {
    let pool = &report["memory"]["pools"][0];
    let [base, size] = ["base", "size"].map(|field| pool[field].as_u64().unwrap());
    Places { pool: base, pool_end: base + size, registers: device["window"]["base"].as_u64().unwrap() }
}

/// The report of `device` has these refusals and no other.
fn check_refusals(device: &Value, queue: u16, records: impl Iterator<Item = Record>) {
    let mut expected: Vec<(Record, u64)> = Vec::new();
    for record in records {
        match expected.iter_mut().find(|(other, _)| *other == record) {
            Some((_, count)) => *count += 1,
            None => expected.push((record, 1)),
        }
    }
    let refusals = device["refusals"].as_array().unwrap();
    let number = |refusal: &Value, field: &str| refusal[field].as_u64().unwrap();
    let text = |refusal: &Value, field: &str| refusal[field].as_str().unwrap().to_owned();
    for (refusal, (record, count)) in refusals.iter().zip(&expected) {
        let Record { structure, address, length, reason } = record;
        let seen = (text(refusal, "structure"), number(refusal, "address"), number(refusal, "length"));
        assert_eq!(seen, ((*structure).to_owned(), *address, *length), "{refusal} is not {record:x?}");
        let seen = (number(refusal, "queue"), text(refusal, "reason"), number(refusal, "count"));
        assert_eq!(seen, (u64::from(queue), (*reason).to_owned(), *count), "{refusal} is not {record:x?}");
    }
    assert_eq!(refusals.len(), expected.len(), "{refusals:#?} {expected:#x?}");
    let total: u64 = expected.iter().map(|(_, count)| count).sum();
    assert_eq!(device["refused"], total);
}

/// The device moved the bytes of the requests that were to be served, and no other: none went into a packet.
fn check_transfers(device: &Value, kind: Kind, cases: &[Case], places: &Places, indirect: bool) {
    let served = cases.iter().filter(|case| case.record(places, indirect).is_none());
    let requests: Vec<_> = served.map(|case| case.setup(places, indirect).request).collect();
    // After each case comes an honest request.
    let requests = requests.into_iter().chain(cases.iter().map(|_| kind.request()));
    let (read, written) = requests.fold((0, 0), |(read, written), request| match request {
        Request::Read => (read + 16, written + 512 + 1),
        Request::Write => (read + 16 + 512, written + 1),
        Request::Random => (read, written + 512),
        Request::Send => (read + 12 + 512, written),
    });
    assert_eq!(device["dma"]["written"]["bytes"], written);
    // Of a disk's request the header is read before it is known to fit its buffers.
    if kind != Kind::Blk {
        assert_eq!(device["dma"]["read"]["bytes"], read);
    }
}

/// A disk has what it had, but for the sector that a served request wrote.
fn check_disk(disk: &[u8], cases: &[Case], places: &Places, indirect: bool) {
    let mut expected = [DISK_PATTERN; guest::DISK_BYTES];
    let writes = |case: &&Case| {
        case.setup(places, indirect).request == Request::Write && case.record(places, indirect).is_none()
    };
    if cases.iter().any(|case| writes(&case)) {
        expected[1024..1536].fill(WRITTEN);
    }
    assert!(disk == expected, "the disk has other bytes than were written to it");
}

/// Each row says from where it follows, and the rows have names of their own.
#[test]
fn every_row_names_its_clause() {
    for (kind, indirect) in
        [Kind::Blk, Kind::Rng, Kind::Net].into_iter().flat_map(|kind| [(kind, false), (kind, true)])
    {
        let cases: Vec<_> = cases(kind, indirect).collect();
        let mut names: Vec<_> = cases.iter().map(Case::name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(cases.iter().all(|case| !case.clauses().0.is_empty() && !case.clauses().1.is_empty()));
        println!("{kind:?}, indirect {indirect}: {} cases", cases.len());
    }
}
