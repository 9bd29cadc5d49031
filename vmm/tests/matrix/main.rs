// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The matrix: every structure that a driver can point a device at, in every place where it must not be, on either
//! transport. The rows are in tests/hostile/src/table; the driver is a guest of its own in tests/hostile/src/guest,
//! which any /dev/kvm runs, one without hardware virtualization, too.
//!
//! The guest looks from inside: DEVICE_NEEDS_RESET and its interrupt, no byte of private memory, of the pool and of another
//! device's pool changed, that device goes on, and after a reset the device serves. The outside is in `check`. The lab runs the
//! same guest on a KVM with hardware virtualization (tests/tests/boot/matrix.rs).

mod check;
mod guest;
mod network;
mod page;
mod program;
mod victims;

use check::behaviour_cases;
use cvmm_hostile::guest::FLOODS;
use cvmm_hostile::table::{Case, Kind, PROBE, SENT, cases, messages};
use page::PLACES;
use victims::Victims;

/// Types of queues that floods of network devices are for.
const FLOODED: [Kind; 3] = [Kind::Net, Kind::Receive, Kind::Control];

/// A test for each device type, without and with indirect tables and event indices.
macro_rules! over_each_kind {
    ($($plain:ident, $indirect:ident: $kind:ident;)*) => {$(
        #[test]
        fn $plain() {
            matrix(Kind::$kind, false);
        }

        #[test]
        fn $indirect() {
            matrix(Kind::$kind, true);
        }
    )*

        #[test]
        fn every_kind_has_its_tests() {
            assert_eq!(Kind::ALL.map(|(_, kind)| kind), [$(Kind::$kind),*]);
        }
    };
}

over_each_kind! {
    blk_with_plain_chains, blk_with_indirect_tables_and_event_indices: Blk;
    rng_with_plain_chains, rng_with_indirect_tables_and_event_indices: Rng;
    net_with_plain_chains, net_with_indirect_tables_and_event_indices: Net;
    receive_with_plain_chains, receive_with_indirect_tables_and_event_indices: Receive;
    control_with_plain_chains, control_with_indirect_tables_and_event_indices: Control;
}

fn matrix(kind: Kind, indirect: bool) {
    let (name, _) = Kind::ALL.into_iter().find(|(_, other)| *other == kind).unwrap();
    let features = if indirect { "indirect" } else { "plain" };
    let scenario = format!("matrix={name},{features}");
    let so_many = 2 * cases(kind, indirect).count();
    let Some(run) = guest::boot(&scenario, so_many, Victims::of(kind, indirect)) else { return };
    check::matrix(&run, kind, indirect);
}

/// The bit changes nothing about what is refused, and the driver finds its pool in the registers.
#[test]
fn blk_by_the_plan() {
    let victims = Victims { plan: true, ..Victims::of(Kind::Blk, true) };
    let so_many = 2 * cases(Kind::Blk, true).count();
    let Some(run) = guest::boot("matrix=blk,indirect", so_many, victims) else { return };
    check::matrix(&run, Kind::Blk, true);
    let devices = run.report["devices"].as_array().unwrap();
    for device in devices.iter().filter(|device| device["kind"] == "blk") {
        let accepted = device["features"]["accepted_names"].as_array().unwrap();
        assert!(accepted.iter().any(|name| name == "RESTRICTED_DMA"), "{device:#}");
    }
}

#[test]
fn messages_of_msix_table_entries() {
    for (scenario, kind) in [("matrix=blk,messages", Kind::Blk), ("matrix=rng,messages", Kind::Rng)] {
        let Some(run) = guest::boot(scenario, messages().count(), Victims::of_messages(kind)) else { return };
        check::messages(&run);
    }
}

#[test]
fn messages_of_net() {
    let victims = Victims::of_messages(Kind::Net);
    let Some(run) = guest::boot("matrix=net,messages", messages().count(), victims) else { return };
    check::messages(&run);
}

/// tests/hostile/src/guest/behaviour.
#[test]
fn behaviour_beyond_addresses() {
    behaviour(&[Kind::Blk, Kind::Rng]);
}

#[test]
fn behaviour_of_net() {
    behaviour(&[Kind::Net, Kind::Receive, Kind::Control]);
}

fn behaviour(kinds: &[Kind]) {
    for (name, kind) in Kind::ALL.into_iter().filter(|(_, kind)| kinds.contains(kind)) {
        let (scenario, victims) = (format!("matrix={name},behaviour"), Victims::of_behaviour(kind));
        let Some(run) = guest::boot(&scenario, behaviour_cases(kind), victims) else { continue };
        check::behaviour(&run, kind);
    }
}

/// tests/hostile/src/guest/flood.rs, for the queues of network devices. The receiving one is flooded from both sides: the host
/// has always another frame.
#[test]
fn floods_of_net() {
    for kind in FLOODED {
        let (name, _) = Kind::ALL.into_iter().find(|(_, other)| *other == kind).unwrap();
        let boot = if kind == Kind::Receive { guest::boot_flooded } else { guest::boot };
        let Some(run) = boot(&format!("matrix={name},flood"), FLOODS, Victims::one(kind)) else { continue };
        check::console(&run, FLOODS);
        let frames = run.frames.as_ref().unwrap();
        let sent = |frame: &[u8]| match kind {
            Kind::Net => frame == [SENT; 512],
            Kind::Receive => frame == PROBE,
            _ => false,
        };
        assert!(frames.iter().all(|frame| sent(frame)), "{name}: other frames were sent than were to be");
        assert_eq!(frames.is_empty(), kind == Kind::Control, "{name}");
        check::witness(&run);
    }
}

/// Each row says from where it follows, and the rows have names of their own. Prints how many cases there are, and the guide
/// has the same numbers.
#[test]
fn every_row_names_its_clause() {
    // Cases, those of them that are correct, so that they must be served, and those that need taps.
    let (mut total, mut correct, mut taps) = (0, 0, 0);
    for (kind, indirect) in Kind::ALL.into_iter().flat_map(|(_, kind)| [(kind, false), (kind, true)]) {
        let cases: Vec<_> = cases(kind, indirect).collect();
        let mut names: Vec<_> = cases.iter().map(Case::name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(cases.iter().all(|case| !case.clauses().0.is_empty() && !case.clauses().1.is_empty()));
        total += 2 * cases.len();
        correct += 2 * cases.iter().filter(|case| case.record(&PLACES, indirect).is_none()).count();
        taps += if kind.id_and_queue().0 == 1 { 2 * cases.len() } else { 0 };
    }
    // Messages of each type of device.
    let of = |kinds: &[Kind]| kinds.iter().map(|kind| behaviour_cases(*kind)).sum::<usize>();
    let with_taps = of(&FLOODED) + FLOODED.len() * FLOODS;
    let (told, behaviours) = (3 * messages().count(), of(&[Kind::Blk, Kind::Rng]) + with_taps);
    let all = total + told + behaviours;
    correct += 3 * messages().filter(|(message, ..)| message.refused.is_none()).count();
    taps += messages().count() + with_taps;
    let guide = include_str!("../../../resources/guide/tests.md").replace('\n', " ");
    for words in [
        format!("tries {all} cases, {} without root,", all - taps),
        format!("{correct} of them are correct, and must be accepted"),
    ] {
        assert!(guide.contains(&words), "resources/guide/tests.md does not say: {words}");
    }
    guest::say(&format!(
        "matrix: {all} cases: {total} of structures and places, {told} of messages, {behaviours} of behaviour; \
         {correct} of them correct, to be served; {taps} of them with taps"
    ));
}
