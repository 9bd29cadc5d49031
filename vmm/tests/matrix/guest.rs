// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare-metal guest: built once, booted with devices to attack.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cvmm_hostile::table::DISK_PATTERN;
use serde_json::Value;
use tempfile::TempDir;

/// Longer than any run takes, also on an emulated host.
const LIMIT: Duration = Duration::from_secs(300);
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// A program without a C library and without relocations, entered at `_start`.
const FLAGS: &str = "-C panic=abort -C relocation-model=static -C link-arg=-nostartfiles -C link-arg=-static \
                     -C link-arg=-no-pie -C link-arg=-Wl,--build-id=none";
pub const DISK_BYTES: usize = 4096;

/// Builds the guest, or finds it up to date.
fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
        let status = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--release", "--package", "cvmm-hostile", "--features", "guest"])
            .args(["--bin", "hostile-guest", "--target", TARGET, "--target-dir"])
            .arg(&target_dir)
            .env("RUSTFLAGS", FLAGS)
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "the guest does not build");
        target_dir.join(TARGET).join("release/hostile-guest")
    })
}

/// A run that is over.
pub struct Run {
    pub console: String,
    pub report: Value,
    pub disks: Vec<Vec<u8>>,
}

/// Devices to attack: so many on either transport.
#[derive(Clone, Copy, Default)]
pub struct Victims {
    pub disks: usize,
    pub rngs: usize,
    pub nets: usize,
}

/// Runs the rest of its arguments where there are taps t0, t1, ... and no other network.
const WITH_TAPS: &str = "mount -t sysfs sysfs /sys && for tap in $(seq 0 $(($1 - 1))); do \
                         ip tuntap add dev t$tap mode tap && ip link set t$tap up || exit 1; done && shift && exec \"$@\"";

/// Starts `program`, with taps if there must be some.
fn command(program: &Path, taps: usize) -> Command {
    if taps == 0 {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", WITH_TAPS, "sh", &taps.to_string()]).arg(program);
    command
}

fn can_make_taps() -> bool {
    command(Path::new("true"), 1).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Boots the guest with `scenario` on its command line, the victims, and the witness. None, and a word about it, where
/// that can't be done.
pub fn boot(scenario: &str, victims: Victims) -> Option<Run> {
    let Victims { disks, rngs, nets } = victims;
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("not tested: there is no /dev/kvm here");
        return None;
    }
    if nets > 0 && !can_make_taps() {
        eprintln!("not tested: taps need root, unshare and ip");
        return None;
    }
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut cvmm = command(Path::new(env!("CARGO_BIN_EXE_cvmm")), 2 * nets);
    let mut taps = 0..;
    cvmm.args(["run", "--mem", "34M", "--pool", "2M", "--cmdline", scenario, "--kernel"]).arg(guest());
    let mut images = Vec::new();
    for transport in ["mmio", "pci"] {
        for number in 0..disks {
            let image = path(&format!("disk-{transport}-{number}"));
            fs::write(&image, [DISK_PATTERN; DISK_BYTES]).unwrap();
            cvmm.arg("--blk").arg(format!("path={},transport={transport}", image.display()));
            images.push(image);
        }
        for tap in taps.by_ref().take(nets) {
            cvmm.arg("--net").arg(format!("tap=t{tap},transport={transport}"));
        }
        for _ in 0..rngs {
            cvmm.arg("--rng").arg(format!("transport={transport}"));
        }
    }
    cvmm.args(["--rng", "transport=mmio", "--report"]).arg(path("report")).arg("--console");
    cvmm.arg(format!("file={}", path("console").display()));
    let mut child = cvmm.stdin(Stdio::null()).stderr(fs::File::create(path("log")).unwrap()).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |name| fs::read_to_string(path(name)).unwrap_or_default();
    let console = text("console");
    let log: Vec<_> = text("log")
        .lines()
        .filter(|line| !line.contains(": refused, and stopped"))
        .map(String::from)
        .collect();
    assert_eq!(status.code(), Some(0), "{status}: {log:#?}\n{console}");
    let report = serde_json::from_str(&text("report")).unwrap();
    Some(Run { console, report, disks: images.iter().map(|image| fs::read(image).unwrap()).collect() })
}
