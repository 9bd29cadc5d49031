// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare-metal guest of vmm/tests/matrix on a KVM with hardware virtualization, where Linux guests boot: the same cases,
//! and the same looks at them from outside. Those of network devices need a network without any other traffic, and are run
//! on this machine's own KVM only.

#[path = "../../../vmm/tests/matrix/check.rs"]
mod check;
#[path = "../../../vmm/tests/matrix/program.rs"]
mod program;
#[path = "../../../vmm/tests/matrix/victims.rs"]
mod victims;

use cvmm_hostile::table::Kind;
use cvmm_tests::host::{CommandLine, Exit, Host};

use check::Run;
use victims::Victims;

#[test]
fn disks_with_plain_chains() {
    matrix("matrix=blk,plain", Kind::Blk, false);
}

#[test]
fn disks_with_indirect_tables_and_event_indices() {
    matrix("matrix=blk,indirect", Kind::Blk, true);
}

#[test]
fn entropy_devices_with_plain_chains() {
    matrix("matrix=rng,plain", Kind::Rng, false);
}

#[test]
fn entropy_devices_with_indirect_tables_and_event_indices() {
    matrix("matrix=rng,indirect", Kind::Rng, true);
}

fn matrix(scenario: &str, kind: Kind, indirect: bool) {
    check::matrix(&boot(scenario, Victims::of(kind, indirect)), kind, indirect);
}

#[test]
fn messages_of_msix_table_entries() {
    check::messages(&boot("matrix=rng,messages", Victims::one(Kind::Rng)));
    check::messages(&boot("matrix=blk,messages", Victims::one(Kind::Blk)));
}

#[test]
fn behaviour_beyond_addresses() {
    check::behaviour(&boot("matrix=behaviour", Victims::OF_BEHAVIOUR));
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
    assert_eq!(victims.taps(), 0, "nobody makes taps here");
    let mut arguments = vec!["run".to_owned()];
    arguments.extend(victims.options(image, |number| format!("t{number}")));
    arguments.extend([
        format!("--cmdline={scenario}"),
        format!("--kernel={kernel}"),
        format!("--report={report}"),
    ]);
    let command = CommandLine { program: host.cvmm().to_owned(), arguments, ..CommandLine::default() };
    let mut process = host.spawn(command).unwrap();
    let exit = process.wait_while_it_writes(crate::guest::LIMIT).unwrap();
    if exit != Exit::Code(0) {
        panic!("{:#}", process.failure(&format!("ended with {exit:?}")));
    }
    let report = serde_json::from_slice(&host.read(&report).unwrap()).unwrap();
    let disks = (0..victims.images()).map(|number| host.read(image(number)).unwrap()).collect();
    Run { console: process.stdout(), report, disks, frames: None }
}
