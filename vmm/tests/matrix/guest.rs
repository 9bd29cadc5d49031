// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Boots the guest on this machine's KVM.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_thp_disable;
use tempfile::TempDir;

use crate::check::Run;
use crate::network::{self, Capture, Flood};
use crate::program;
use crate::victims::{MEMORY, Victims};

/// Longer than any case takes, however busy this machine is: a guest that prints nothing for so long is ended.
const LIMIT: Duration = Duration::from_secs(300);

/// Boots the guest with `scenario` on its command line, the victims, and the witness. None, and a word about it, where
/// that can't be done: then so many `cases` are not tested.
pub fn boot(scenario: &str, cases: usize, victims: Victims) -> Option<Run> {
    boot_on(scenario, cases, victims, false)
}

/// The same, with a host that has always another frame for the guest.
pub fn boot_flooded(scenario: &str, cases: usize, victims: Victims) -> Option<Run> {
    boot_on(scenario, cases, victims, true)
}

fn boot_on(scenario: &str, cases: usize, victims: Victims, flooded: bool) -> Option<Run> {
    let not_tested = |why| say(&format!("matrix: {scenario}: {cases} cases NOT TESTED: {why}"));
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        not_tested("there is no /dev/kvm here");
        return None;
    }
    if victims.nets == 0 {
        return Some(run(Command::new(env!("CARGO_BIN_EXE_cvmm")), scenario, victims, None));
    }
    let owned = scenario.to_owned();
    let run = network::alone(move |capture| {
        let cvmm = Path::new(env!("CARGO_BIN_EXE_cvmm"));
        let command = network::with_taps(cvmm, victims.taps(), victims.pairs);
        let _flood = flooded.then(|| Flood::start(victims.taps()));
        run(command, &owned, victims, Some(&capture))
    });
    if run.is_none() {
        not_tested("taps need root, unshare and ip");
    }
    run
}

fn run(mut cvmm: Command, scenario: &str, victims: Victims, capture: Option<&Capture>) -> Run {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let image = |number| path(&format!("disk{number}"));
    (0..victims.images()).for_each(|number| fs::write(image(number), victims.contents()).unwrap());
    cvmm.arg("run").args(victims.options(image, |number| format!("t{number}")));
    cvmm.args(["--cmdline", scenario, "--kernel"]).arg(program::guest());
    cvmm.args(["--report", &path("report"), "--console", &format!("file={}", path("console"))]);
    // Huge pages, which a host may give to all, would count for what nobody touched.
    set_thp_disable(true).unwrap();
    let mut child = cvmm.stdin(Stdio::null()).stderr(fs::File::create(path("log")).unwrap()).spawn().unwrap();
    let (mut printed, mut since) = (0, Instant::now());
    let (mut frames, mut peak) = (Vec::new(), 0);
    let status = loop {
        let status = child.try_wait().unwrap();
        frames.extend(capture.map(Capture::take).unwrap_or_default());
        if let Some(status) = status {
            break status;
        }
        peak = peak.max(resident(child.id()).unwrap_or(0));
        let length = fs::metadata(path("console")).map_or(0, |console| console.len());
        if length != printed {
            (printed, since) = (length, Instant::now());
        }
        if since.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("nothing new for {LIMIT:?}: {}", fs::read_to_string(path("console")).unwrap_or_default());
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
    let cases = console.lines().filter(|line| line.starts_with("ok ")).count();
    say(&format!("matrix: {scenario}: {cases} cases, at most {peak} KiB resident"));
    let most = most_memory(&victims);
    assert!(peak > 0 && peak <= most, "{peak} KiB were resident: no more than {most} are understood");
    let report = serde_json::from_str(&text("report")).unwrap();
    let disks = (0..victims.images()).map(|number| fs::read(image(number)).unwrap()).collect();
    Run { console, report, disks, frames: capture.map(|_| frames) }
}

/// What may be resident, in KiB: guest memory, all of it, which the guest fills as it starts; the program and its libraries,
/// and what it starts with; and for each device the stacks and buffers that it has from the start. Not what the guest does
/// later: a run has up to 2 MiB less.
fn most_memory(victims: &Victims) -> usize {
    const OF_CVMM: usize = 8704;
    const OF_DEVICE: usize = 64;
    // With a ring, and what is under way there.
    const OF_DISK: usize = 96;
    const OF_NET: usize = 192;
    // A thread, and a buffer for a frame.
    const OF_MORE_PAIRS: usize = 128;
    // On both transports, and the witness.
    let (disks, others) = (2 * victims.disks, 2 * victims.rngs + 1);
    let of_net = OF_NET + OF_MORE_PAIRS * (victims.pairs - 1);
    (MEMORY << 10) + OF_CVMM + OF_DEVICE * others + OF_DISK * disks + of_net * 2 * victims.nets
}

/// The most memory that a process had resident, guest memory included, in KiB. None once it has ended.
fn resident(pid: u32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix(" kB")?.parse().ok()
}

/// Says it on standard error, past the capture of tests that pass.
pub fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
