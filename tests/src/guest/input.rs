// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cvmm.test=input`: the host sends `cvmm.input` bytes of [`pattern::lines`] to the console, from before the kernel runs. For
//! some time nobody reads them here, and then somebody does, with pauses.

use std::io::{self, Read};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::machine;
use super::options::Options;
use super::report::{Report, say};
use crate::pattern;

/// What the driver counts, and its modem lines.
const DRIVER: &str = "/proc/tty/driver/serial";
/// The driver has what it takes when it gets nothing more for so long.
const SETTLED: Duration = Duration::from_secs(2);
/// Of so many bytes each, a pause follows.
const PART: usize = 32 << 10;
const PAUSE: Duration = Duration::from_millis(500);
/// Before somebody gives up who waits for input.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn run(options: &Options, report: &Report) {
    report.check("input-held-back", || held_back(total(options)?));
    report.check("input-whole", || whole(total(options)?));
}

fn total(options: &Options) -> Result<u64> {
    options.number("input")?.context("the scenario input needs cvmm.input=BYTES")
}

/// While nobody reads, the driver takes no more than there is room for.
fn held_back(total: u64) -> Result<String> {
    let started = Instant::now();
    let (mut taken, mut since) = (0, Instant::now());
    while taken == 0 || since.elapsed() < SETTLED {
        ensure!(started.elapsed() < LIMIT, "after {LIMIT:?}, {taken} bytes had come, and it went on");
        thread::sleep(Duration::from_millis(50));
        let now = received()?;
        if now != taken {
            (taken, since) = (now, Instant::now());
        }
    }
    // From here on nothing is echoed, and what was so far stays on lines of its own.
    let mut terminal = tcgetattr(io::stdin())?;
    terminal.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(io::stdin(), SetArg::TCSANOW, &terminal)?;
    say("");
    // The terminal has 4 KiB; more comes while the kernel is busy with its own messages.
    ensure!(taken < total / 2, "the driver took {taken} of {total} bytes that nobody read");
    ensure!(!driver()?.contains("RTS"), "the driver still requests to send: {}", driver()?);
    Ok(format!("the driver took {taken} of {total} bytes"))
}

/// They come to who reads late, all of them and in their order.
fn whole(total: u64) -> Result<String> {
    let expected = pattern::lines(pattern::SEED, usize::try_from(total)?);
    let (mut stdin, mut seen) = (io::stdin(), 0);
    for part in expected.chunks(PART) {
        let mut bytes = vec![0; part.len()];
        stdin.read_exact(&mut bytes).context("the console")?;
        let differs = bytes.iter().zip(part).position(|(is, was)| is != was);
        ensure!(differs.is_none(), "byte {} is another", seen + differs.unwrap_or_default());
        seen += part.len();
        thread::sleep(PAUSE);
    }
    Ok(format!("{seen} bytes"))
}

fn received() -> Result<u64> {
    let line = driver()?;
    let count = line.split(' ').find_map(|word| word.strip_prefix("rx:"));
    count.with_context(|| format!("no count in '{line}'"))?.parse().context(line)
}

/// The line of the console, ttyS0.
fn driver() -> Result<String> {
    let text = machine::text(DRIVER)?;
    let line = text.lines().find(|line| line.starts_with("0:"));
    Ok(line.with_context(|| format!("no ttyS0 in {DRIVER}: '{text}'"))?.to_owned())
}
