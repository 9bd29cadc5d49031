// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Names of the assertions that the guest makes, written down a second time: one that it no longer makes is missed.

use cvmm_tests::pattern;

fn names(prefix: &str, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{prefix}-{name}")).collect()
}

pub fn pool() -> Vec<String> {
    names("pool", &["created", "assigned", "is-ram", "is-reserved", "slots", "used"])
}

pub fn pci() -> Vec<String> {
    names("pci", &["host-bridge", "functions", "modern"])
}

pub fn acpi() -> Vec<String> {
    names("acpi", &["tables", "devices", "no-complaints"])
}

pub fn cpus() -> Vec<String> {
    names("cpus", &["online", "run", "topology", "caches"])
}

pub fn mem() -> Vec<String> {
    names("mem", &["map", "total", "usable"])
}

pub fn rng() -> Vec<String> {
    names("rng", &["current", "bytes"])
}

/// The disks of `modes` (`vda:rw`), each with its mode's assertions.
pub fn blk(modes: &[&str]) -> Vec<String> {
    let mut all = vec!["blk-disks".to_owned()];
    for (disk, mode) in modes.iter().map(|word| word.split_once(':').unwrap()) {
        let disk = format!("blk-{disk}");
        all.extend(names(&disk, &["limits"]));
        match mode {
            "rw" => {
                all.extend(names(&disk, &["mount", "write", "unmount"]));
                all.extend(pattern::FILES.iter().map(|(file, _)| format!("{disk}-file-{file}")));
            }
            "ro" => all.extend(names(&disk, &["is-read-only", "refuses-writes", "pattern"])),
            "raw" => all.extend(names(&disk, &["pattern", "write-zeroes", "discard", "parallel", "batch"])),
            other => panic!("no such mode: {other}"),
        }
    }
    all
}

/// With a transfer.
pub fn net() -> Vec<String> {
    let transfer = names("net", &["transfer", "sent", "received", "large-sent", "large-received"]);
    [names("net", &["interface", "offloads", "up", "ping"]), transfer].concat()
}

/// A hostile driver of these devices.
pub fn hostile(devices: &[&str]) -> Vec<String> {
    let mut all = names("hostile", &["devices", "unbind", "bench", "rebind"]);
    for device in devices {
        let label = format!("hostile-{device}");
        all.extend(names(&label, &["reset", "works-again", "honest", "after-reset"]));
        all.extend(names(
            &label,
            &["features-without-access-platform", "features-without-version-1", "features-not-offered"],
        ));
        all.extend(names(&format!("{label}-queue"), &QUEUES));
        if device.starts_with("vd") {
            all.extend(names(&label, &REQUESTS));
            all.extend(names(&label, &["dead-until-reset", "write-to-read-only"]));
        } else {
            all.extend(names(&label, &BUFFERS));
        }
    }
    all
}

/// Queues in wrong places.
pub const QUEUES: [&str; 13] = [
    "descriptors-in-private",
    "available-in-private",
    "used-in-private",
    "descriptors-past-end",
    "descriptors-before-start",
    "available-event-past-end",
    "used-event-past-end",
    "descriptors-wrap",
    "used-wraps",
    "descriptors-misaligned",
    "size-zero",
    "size-six",
    "size-too-large",
];

/// Wrong requests to a disk.
pub const REQUESTS: [&str; 24] = [
    "data-in-private",
    "data-past-end",
    "data-before-start",
    "data-wraps",
    "data-huge",
    "data-second-buffer-in-private",
    "write-from-private",
    "header-in-private",
    "status-in-private",
    "indirect-table-in-private",
    "indirect-table-past-end",
    "indirect-table-wraps",
    "indirect-entry-in-private",
    "indirect-with-next",
    "indirect-in-indirect",
    "indirect-odd-length",
    "indirect-empty",
    "loop",
    "next-outside-table",
    "head-outside-table",
    "index-jumps",
    "readable-after-writable",
    "nothing-writable",
    "nothing-readable",
];

/// Wrong buffers for a network or entropy device.
pub const BUFFERS: [&str; 4] = ["buffer-in-private", "buffer-past-end", "buffer-wraps", "wrong-direction"];
