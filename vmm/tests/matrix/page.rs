// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The page for those who would rather read the rows than their source.

use std::fmt::Write;
use std::path::Path;

use cvmm_hostile::guest::{Behaviour, behaviours};
use cvmm_hostile::table::malformed::MALFORMED;
use cvmm_hostile::table::subject::SUBJECTS;
use cvmm_hostile::table::way::{Expected, WAYS};
use cvmm_hostile::table::{self, Case, Kind, MESSAGES, Places, cases};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../resources/review/matrix.md");
/// Asks for the page to be written.
const WRITE: &str = "CVMM_WRITE_PAGE";

/// Where things are in the machine of a run; the registers are those of one of its devices.
pub const PLACES: Places = Places {
    pool: 18 << 20,
    pool_end: 20 << 20,
    other: 16 << 20,
    registers: 0xd000_0000,
    window: 0xd000_1000,
    bar: 0xcfff_0000,
};

/// The page has the rows, all of them, with what the runs make of them.
#[test]
fn the_page_has_the_rows() {
    let page = page();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let there = std::fs::read_to_string(Path::new(PAGE)).unwrap();
    assert!(
        there == page,
        "{PAGE} has other rows; {WRITE}=1 cargo test -p cvmm --test matrix page writes it"
    );
}

/// A case as it is run: on either transport.
struct Run {
    kind: Kind,
    indirect: bool,
    case: Case,
}

fn page() -> String {
    let features = |kind| [(kind, false), (kind, true)];
    let of = |(kind, indirect)| cases(kind, indirect).map(move |case| Run { kind, indirect, case });
    let runs: Vec<Run> = Kind::ALL.into_iter().flat_map(|(_, kind)| features(kind)).flat_map(of).collect();
    let mut page = format!(
        "# The matrix\n\n\
         The rows of [the hostile guest](../../tests/hostile/src/table). The test that runs them writes this page \
         (`{WRITE}=1 cargo test -p cvmm --test matrix page`), and fails if the page is out of date. `cargo test -p cvmm \
         --test matrix` runs all rows, on any `/dev/kvm`; those of network devices need root.\n\n\
         There are {} cases of places, chains and messages. After each of them:\n\n\
         - Private memory is as before. It is full of a pattern from page 0 to its end. Two parts are not: what the loader put \
         there, and the guest's own program, which alone is not checked.\n\
         - The pool is as before, except for what a correct request writes.\n\
         - No other byte has left by a disk or a tap.\n\
         - Another device, with a pool of its own, has served a request meanwhile.\n\
         - The device serves a correct request after a reset.\n\
         - The report has exactly the refusals that are named here, with the address and length that the driver gave.\n\n\
         A device that has refused has set DEVICE_NEEDS_RESET and sent a configuration change notification (virtio 1.3, \
         2.1.2).\n\n\
         The guest finds its devices by the device tree only, and never by ACPI. It polls: it takes no interrupt. It reads the \
         registers that say whether one was sent.\n\n\
         Places and chains are tried twice: with indirect tables and event indices, and with neither. The rows of behaviour try \
         each without the other, for each type of queue. Here that would only be a repetition: no row is about event \
         indices.\n\n",
        2 * runs.len() + 3 * table::messages().count()
    );
    structures(&mut page);
    ways(&mut page, &runs);
    malformed(&mut page, &runs);
    messages(&mut page);
    behaviour(&mut page);
    page
}

fn names(kinds: impl Iterator<Item = Kind>) -> String {
    let name = |kind| Kind::ALL.into_iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name);
    kinds.map(name).collect::<Vec<_>>().join(", ")
}

/// Names of structures, each once.
fn columns() -> Vec<&'static str> {
    let mut names = Vec::new();
    for subject in SUBJECTS {
        if !names.contains(&subject.name) {
            names.push(subject.name);
        }
    }
    names
}

fn structures(page: &mut String) {
    *page += "## Structures\n\n`net`, `receive` and `control` are queues of a network device; `net` transmits. Event fields have no \
              rows of their own. They are the last two bytes of their rings (virtio 1.3, 2.7.6 and 2.7.8), and the check of a ring \
              includes its event field, used or not.\n\n\
              | structure | of | bytes | alignment | clause |\n|---|---|---|---|---|\n";
    for name in columns() {
        let mut of: Vec<_> = SUBJECTS.iter().filter(|subject| subject.name == name).collect();
        while let Some(first) = of.first().copied() {
            let (same, other): (Vec<_>, _) = of.into_iter().partition(|s| {
                (s.length, s.alignment, s.clause) == (first.length, first.alignment, first.clause)
            });
            let kinds = names(same.iter().map(|subject| subject.kind));
            let (length, alignment, clause) = (first.length, first.alignment, first.clause);
            writeln!(page, "| {name} | {kinds} | {length} | {alignment} | {clause} |").unwrap();
            of = other;
        }
    }
}

fn ways(page: &mut String, runs: &[Run]) {
    let columns = columns();
    let Places { pool, pool_end, other, .. } = PLACES;
    write!(
        page,
        "\n## Structures in wrong places\n\n\
         The device's pool is {pool:#x} to {pool_end:#x}, another's is {other:#x} to {pool:#x}. A number counts cases: over \
         device types, both transports, and with and without indirect tables and event indices. Half of them are on mmio, half on \
         PCI. The place is that of the first structure in the row. The place of an area is a multiple of its alignment, so a used \
         ring crosses an end of the pool by at least two bytes. An odd place is `misaligned`. Rows without a clause have this one: \
         {}.\n\n\
         | way | place | must be | {} | clause |\n|---|---|---|{}---|\n",
        WAYS[0].clause,
        columns.join(" | "),
        "---|".repeat(columns.len()),
    )
    .unwrap();
    for way in WAYS {
        let here = |run: &&Run| matches!(run.case, Case::Misplaced(_, w) if (w.name, w.clause) == (way.name, way.clause));
        let mut counts = vec![0; columns.len()];
        let (mut place, mut reasons) = (None, Vec::new());
        for run in runs.iter().filter(here) {
            let Case::Misplaced(subject, _) = run.case else { continue };
            counts[columns.iter().position(|name| *name == subject.name).unwrap()] += 2;
            place = place.or_else(|| Some((way.place)(&PLACES, subject)));
            let reason = match (way.expected, run.case.record(&PLACES, run.indirect)) {
                (Expected::Served, None) => "**served**",
                (Expected::Refused(_), Some(record)) => record.reason,
                (expected, record) => panic!("{}: {expected:?}, but {record:?}", way.name),
            };
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let (base, length) = place.unwrap();
        let counts = counts.iter().map(|count| if *count == 0 { String::new() } else { count.to_string() });
        let counts = counts.collect::<Vec<_>>().join(" | ");
        let clause = if way.clause == WAYS[0].clause { "" } else { way.clause };
        let (name, reasons) = (way.name, reasons.join("; or "));
        writeln!(page, "| {name} | {base:#x}, {length} | {reasons} | {counts} | {clause} |").unwrap();
    }
}

fn malformed(page: &mut String, runs: &[Run]) {
    *page += "\n## Chains and rings that are wrong in themselves\n\n\
              A table inside a table after a buffer needs a request of two buffers; a request to an entropy device has one. A buffer of no \
              bytes inside the pool is right or wrong, depending on the request. Here it is wrong, and in `buffers-of-no-bytes` below \
              it is right.\n\n\
              | row | of | cases | refused | because | clause |\n|---|---|---|---|---|---|\n";
    for row in MALFORMED {
        let here = |run: &&Run| matches!(run.case, Case::Malformed(m, _) if (m.name, m.kinds) == (row.name, row.kinds));
        let mut of: Vec<_> = runs.iter().filter(here).collect();
        let record = of.first().and_then(|run| run.case.record(&PLACES, run.indirect)).unwrap();
        let (count, structure) = (2 * of.len(), record.structure);
        of.dedup_by_key(|run| run.kind);
        let kinds = names(of.iter().map(|run| run.kind));
        let (name, reason, clause) = (row.name, row.reason, row.clause);
        writeln!(page, "| {name} | {kinds} | {count} | {structure} | {reason} | {clause} |").unwrap();
    }
}

fn messages(page: &mut String) {
    let usual = MESSAGES[0].clause;
    write!(
        page,
        "\n## Messages of MSI-X table entries\n\nThey are tried on blk, rng and net, on PCI, each in three entries: an unused one, \
         one for the queue, and one for configuration changes. Rows without a clause have this one: {usual}.\n\n\
         | row | address | must be | clause |\n|---|---|---|---|\n"
    )
    .unwrap();
    for message in MESSAGES {
        let clause = if message.clause == usual { "" } else { message.clause };
        let (name, address) = (message.name, (message.address)(&PLACES));
        let result = message.refused.unwrap_or("**accepted**");
        writeln!(page, "| {name} | {address:#x} | {result} | {clause} |").unwrap();
    }
}

fn behaviour(page: &mut String) {
    *page += "\n## Behaviour\n\nThe [rows](../../tests/hostile/src/guest/behaviour) are programs, and each says what it asserts. \
              Some of those for a disk use the entropy device, too. Floods also run on each queue of a network device. The host \
              floods the receiving queue at the same time.\n\n\
              | row | of | on | clause |\n|---|---|---|---|\n";
    for row in behaviours(Kind::Blk) {
        let of = Kind::ALL
            .map(|(_, kind)| kind)
            .into_iter()
            .filter(|kind| behaviours(*kind).any(|other| other == row));
        let Behaviour { name, clause, on_pci } = row;
        let (of, on) = (names(of), if on_pci { "PCI" } else { "both" });
        writeln!(page, "| {name} | {of} | {on} | {clause} |").unwrap();
    }
}
