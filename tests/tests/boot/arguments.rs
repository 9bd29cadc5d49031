// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bad input that only a KVM host can tell. The rest is with cvmm itself, in vmm/tests.

use cvmm_tests::host::{Exit, Host};
use cvmm_tests::pattern;

use crate::disk::Images;
use crate::guest::{Guest, LIMIT};

/// What a running guest uses, another one does not get.
#[test]
fn a_second_cvmm_gets_neither_disk_nor_tap() {
    let (host, images) = (Host::shared(), Images::new());
    let tap = host.tap("cvmm-t0", "192.168.90.1/24").unwrap();
    let net = format!("--net=tap={}", tap.name());
    let first = Guest::new(&host, "none").disk(&images.pattern("disk", pattern::SEED, 1 << 20), "disk", "");
    let disk = first.file("disk");
    let mut first = first.option(net.clone()).start();
    first.wait_for("Linux version");
    let locked = format!("it is locked by process {} (cvmm); ", first.process.pid());
    for (option, named, why) in [
        (format!("--blk=path={disk}"), "--blk path=", locked.as_str()),
        (format!("--blk=path={disk},ro"), "--blk path=", &locked),
        (net, "--net tap=cvmm-t0: ", "the tap 'cvmm-t0' is busy"),
    ] {
        let (code, error) = refused(Guest::new(&host, "none").option(option));
        assert_eq!(code, Exit::Code(2), "{error}");
        assert!(error.starts_with(&format!("cvmm: {named}")) && error.contains(why), "{error}");
    }
    first.stop(libc::SIGTERM);
}

/// How cvmm ended without having started its guest, and the one line that says why.
fn refused(guest: Guest<'_>) -> (Exit, String) {
    let mut run = guest.start();
    let exit = run.process.wait(LIMIT).unwrap();
    let (stdout, stderr) = (run.process.stdout(), run.process.stderr());
    assert_eq!((stdout.as_str(), stderr.lines().count()), ("", 1), "{stderr}");
    (exit, stderr)
}
