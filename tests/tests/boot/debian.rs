// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A real distribution's root file system on a disk: Debian with systemd boots to multi-user, has its network, and powers
//! off.

use std::path::Path;

use cvmm_tests::host::Host;
use cvmm_tests::{debian, pattern};

use crate::disk::{self, Images};
use crate::guest::{Guest, MIB};

/// Runs when all of multi-user.target is there, and says what came of it on the console.
const UNIT: &str = "\
[Unit]
Description=What the test asks
After=multi-user.target network-online.target
Wants=network-online.target

[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/console
ExecStart=/bin/bash /etc/cvmm-test
";

const SEED: u64 = 77;
const BYTES: u64 = 16 * MIB;

fn script() -> String {
    format!(
        "echo\n\
         echo \"cvmm-test: failed units:$(systemctl list-units --failed --plain --no-legend | cut -d' ' -f1 | tr '\\n' ' ')\"\n\
         echo \"cvmm-test: multi-user $(systemctl is-active multi-user.target)\"\n\
         echo \"cvmm-test: fetched $(curl --silent --show-error --max-time 60 http://192.168.77.1:5080/{SEED}/{BYTES} | sha256sum)\"\n\
         systemctl --no-block poweroff\n"
    )
}

#[test]
fn debian_with_systemd_boots_to_multi_user_on_mmio() {
    boots_to_multi_user("mmio");
}

#[test]
fn debian_with_systemd_boots_to_multi_user_on_pci() {
    boots_to_multi_user("pci");
}

fn boots_to_multi_user(transport: &str) {
    let base = debian::cached().unwrap();
    let (host, images) = (Host::shared(), Images::new());
    let image = images.path("root");
    std::fs::copy(&base, &image).unwrap();
    put(&image, "etc/cvmm-test", &script());
    put(&image, "etc/systemd/system/cvmm-test.service", UNIT);
    disk::link(
        &image,
        "etc/systemd/system/multi-user.target.wants/cvmm-test.service",
        "../cvmm-test.service",
    );
    let tap = host.tap("cvmm-t0", "192.168.77.1/24").unwrap();
    let _peer = host.peer(5080).unwrap();
    let guest = Guest::new(&host, "none");
    // The stock kernel finds no pool for PCI functions.
    let guest = if transport == "pci" { guest.patched() } else { guest };
    let mut run = guest
        .mem(512 * MIB)
        .pool(32 * MIB, None)
        .without_initrd()
        .disk(&image, "root", &format!(",transport={transport}"))
        .option(format!("--net=tap={},transport={transport}", tap.name()))
        .word("quiet root=/dev/vda rw")
        .start();
    let sum = pattern::sha256(&pattern::bytes(SEED, usize::try_from(BYTES).unwrap()));
    for (what, expected) in
        [("failed units:", ""), ("multi-user ", "active"), ("fetched ", &format!("{sum}  -"))]
    {
        let line = run.wait_for(&format!("cvmm-test: {what}"));
        let said = line.split_once(what).map_or("", |(_, said)| said.trim());
        assert_eq!(said, expected, "{what}, {transport}");
    }
    let ended = run.end(0, "powered-off");
    ended.report.assert_honest(&[("blk0", 1), ("net0", 2)]);
}

/// Writes a file into the image.
fn put(image: &Path, name: &str, text: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    disk::put_file(image, file.path(), name);
}
