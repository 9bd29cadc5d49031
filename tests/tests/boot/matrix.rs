// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare-metal guest of vmm/tests/matrix on a KVM with hardware virtualization, where Linux guests boot: the same cases,
//! and the same looks at them from outside, but for two: nobody listens to the taps, and nobody looks at what cvmm has resident.
//! That nothing else was sent follows here from the bytes that the report says the device read.

#[path = "../../../vmm/tests/matrix/check.rs"]
mod check;
#[path = "../../../vmm/tests/matrix/program.rs"]
mod program;
#[path = "../../../vmm/tests/matrix/victims.rs"]
mod victims;

use cvmm_hostile::guest::FLOODS;
use cvmm_hostile::table::{ANSWERS, Kind};
use cvmm_tests::host::{CommandLine, Exit, Host};

use check::Run;
use victims::Victims;

/// A test for each device type, without and with indirect tables and event indices.
macro_rules! over_each_kind {
    ($($name:ident: $kind:ident, $indirect:literal;)*) => {$(
        #[test]
        fn $name() {
            let (name, features) = (word(Kind::$kind), if $indirect { "indirect" } else { "plain" });
            let victims = Victims::of(Kind::$kind, $indirect);
            check::matrix(&boot(&format!("matrix={name},{features}"), victims), Kind::$kind, $indirect);
        }
    )*

        #[test]
        fn every_kind_has_its_tests() {
            let all = Kind::ALL.into_iter().flat_map(|(_, kind)| [(kind, false), (kind, true)]);
            assert!(all.eq([$((Kind::$kind, $indirect)),*]));
        }
    };
}

over_each_kind! {
    disks_with_plain_chains: Blk, false;
    disks_with_indirect_tables_and_event_indices: Blk, true;
    entropy_devices_with_plain_chains: Rng, false;
    entropy_devices_with_indirect_tables_and_event_indices: Rng, true;
    transmit_queues_with_plain_chains: Net, false;
    transmit_queues_with_indirect_tables_and_event_indices: Net, true;
    receive_queues_with_plain_chains: Receive, false;
    receive_queues_with_indirect_tables_and_event_indices: Receive, true;
    control_queues_with_plain_chains: Control, false;
    control_queues_with_indirect_tables_and_event_indices: Control, true;
}

#[test]
fn messages_of_msix_table_entries() {
    for kind in [Kind::Rng, Kind::Blk, Kind::Net] {
        check::messages(&boot(&format!("matrix={},messages", word(kind)), Victims::of_messages(kind)));
    }
}

#[test]
fn behaviour_beyond_addresses() {
    for (name, kind) in Kind::ALL {
        check::behaviour(&boot(&format!("matrix={name},behaviour"), Victims::of_behaviour(kind)), kind);
    }
}

/// That of the queue that receives needs a host that floods it too, and is run on this machine's own KVM only.
#[test]
fn floods_of_network_devices() {
    for kind in [Kind::Net, Kind::Control] {
        let run = boot(&format!("matrix={},flood", word(kind)), Victims::one(kind));
        check::console(&run, FLOODS);
        check::witness(&run);
    }
}

fn word(kind: Kind) -> &'static str {
    Kind::ALL.into_iter().find(|(_, other)| *other == kind).map(|(word, _)| word).unwrap()
}

fn boot(scenario: &str, victims: Victims) -> Run {
    let host = Host::shared();
    let folder = host.folder().unwrap();
    let (kernel, report) = (folder.file("kernel"), folder.file("report"));
    host.put(program::guest(), &kernel).unwrap();
    let image = |number| folder.file(&format!("disk{number}"));
    for number in 0..victims.images() {
        host.write(image(number), &victims.contents()).unwrap();
    }
    // The host answers for this address on each of them.
    let address = format!("{}/32", ANSWERS.map(|part| part.to_string()).join("."));
    let tap = |number| format!("cvmm-m{number}");
    let make = if victims.pairs > 1 { Host::multi_queue_tap } else { Host::tap };
    let taps: Vec<_> =
        (0..victims.taps()).map(|number| make(&host, &tap(number), &address).unwrap()).collect();
    for tap in &taps {
        // IPv6 would look for neighbours and routers: the host is to say nothing by itself.
        host.write_at(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.name()), 0, b"1").unwrap();
    }
    let mut arguments = vec!["run".to_owned()];
    arguments.extend(victims.options(image, tap));
    arguments.extend([
        format!("--cmdline={scenario}"),
        format!("--kernel={kernel}"),
        format!("--report={report}"),
    ]);
    let arguments = arguments.into_iter().map(Into::into).collect();
    let command = CommandLine { program: host.cvmm().to_owned(), arguments, ..CommandLine::default() };
    let mut process = host.spawn(command).unwrap();
    let exit = process.wait_while_it_writes(crate::guest::LIMIT).unwrap();
    if exit != Exit::Code(0) {
        panic!("{:#}", process.failure(&format!("ended with {exit:?}")));
    }
    drop(taps);
    let report = serde_json::from_slice(&host.read(&report).unwrap()).unwrap();
    let disks = (0..victims.images()).map(|number| host.read(image(number)).unwrap()).collect();
    Run { console: process.stdout(), report, disks, frames: None }
}
