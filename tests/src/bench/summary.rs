// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From samples to the table: medians, spreads, ratios, and whether the aims were met.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::probe::Sample;
use super::resident::GUEST_MIB;
use super::turns::Outcome;
use super::vmm::{ALL, Vmm};
use crate::host::{Host, Kind};

/// How many times faster and leaner than QEMU microvm cvmm is to be.
const AIM_RATIO: f64 = 5.0;
/// How much cvmm may at most need beyond guest memory.
const AIM_MIB: f64 = 5.0;

/// Where a measurement was made.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// This machine, or one under emulation.
    pub kind: String,
    /// The processor, as the host's kernel calls it.
    pub processor: String,
    /// How many the host has.
    pub processors: usize,
    /// Release of the host's kernel.
    pub kernel: String,
    /// When the host's kernel gives large pages unasked: with `always`, one may back a whole stack of a thread.
    pub large_pages: String,
    /// What else this machine did: its load average over a minute, after the last round. A busy machine gives slow and
    /// scattered times.
    pub load: String,
}

impl Place {
    /// Asks `host`.
    pub fn of(host: &Host) -> Result<Self> {
        let cpuinfo = host.read_text("/proc/cpuinfo")?;
        let models = || cpuinfo.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            kind: match host.kind() {
                Kind::Kvm => "this machine's /dev/kvm".to_owned(),
                kind @ Kind::Emulated => kind.to_string(),
            },
            processor: models().next().map_or_else(String::new, |(_, model)| model.to_owned()),
            processors: models().count(),
            kernel: host.kernel_release().to_owned(),
            large_pages: chosen(&host.read_text("/sys/kernel/mm/transparent_hugepage/enabled")?),
            // Not the host's: an emulated one does not see what it competes with.
            load: load_now()?,
        })
    }

    /// In one line.
    pub fn text(&self) -> String {
        format!(
            "{} ({} x {}, Linux {}, large pages {}); load of this machine {}",
            self.kind, self.processors, self.processor, self.kernel, self.large_pages, self.load
        )
    }
}

/// The word in brackets: `always [madvise] never`.
fn chosen(setting: &str) -> String {
    setting.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned()
}

/// This machine's load average over a minute.
pub fn load_now() -> Result<String> {
    Ok(load(&std::fs::read_to_string("/proc/loadavg")?))
}

fn load(loadavg: &str) -> String {
    loadavg.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// All samples up to one event.
#[derive(Debug)]
pub struct Measured {
    /// Where.
    pub place: Place,
    /// For each VMM its samples, or why there are none.
    pub results: Vec<(Vmm, Outcome<Sample>)>,
}

/// A quantity of a sample.
type Quantity = fn(&Sample) -> f64;

fn milliseconds(sample: &Sample) -> f64 {
    sample.time.as_secs_f64() * 1e3
}

fn mebibytes(sample: &Sample) -> f64 {
    // At most some GiB: exact in a double.
    f64::from(u32::try_from(sample.resident.beyond).unwrap_or(u32::MAX)) / 1024.0
}

fn kibibytes_of_log(sample: &Sample) -> f64 {
    f64::from(u32::try_from(sample.console).unwrap_or(u32::MAX)) / 1024.0
}

/// Seconds need no tenths of a millisecond.
fn number(value: f64) -> String {
    if value < 1000.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// Median and extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
        Some(Self { median: f64::midpoint(*low, *high), least: *values.first()?, most: *values.last()? })
    }

    /// "median (least to most)".
    pub fn text(&self) -> String {
        let [median, least, most] = [self.median, self.least, self.most].map(number);
        format!("{median} ({least} to {most})")
    }
}

impl Measured {
    fn spread(&self, vmm: Vmm, quantity: Quantity) -> Option<Spread> {
        let samples = self.results.iter().find(|(of, _)| *of == vmm)?.1.as_ref().ok()?;
        Spread::of(samples.iter().map(quantity))
    }

    /// QEMU's median by cvmm's.
    fn ratio(&self, quantity: Quantity) -> Option<f64> {
        Some(self.spread(Vmm::QemuMicrovm, quantity)?.median / self.spread(Vmm::Cvmm, quantity)?.median)
    }

    fn cell(&self, vmm: Vmm, quantity: Quantity) -> String {
        match (self.spread(vmm, quantity), self.results.iter().any(|(of, _)| *of == vmm)) {
            (Some(spread), _) => spread.text(),
            (None, true) => "n/a: see below".to_owned(),
            (None, false) => "not installed".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let results = self.results.iter().map(|(vmm, result)| match result {
            Ok(samples) => json!({
                "vmm": vmm,
                "milliseconds": Spread::of(samples.iter().map(milliseconds)),
                "mebibytes_beyond_guest_memory": Spread::of(samples.iter().map(mebibytes)),
                "samples": samples,
            }),
            Err(why) => json!({ "vmm": vmm, "not_measured": why }),
        });
        json!({ "place": self.place, "results": results.collect::<Vec<_>>() })
    }
}

/// The whole comparison.
#[derive(Debug)]
pub struct Report {
    /// How many samples there are of each.
    pub rounds: u32,
    /// Names and versions of what is compared with.
    pub versions: Vec<String>,
    /// Up to the first guest instruction.
    pub at_entry: Measured,
    /// Up to the first line of the guest's init program.
    pub at_init: Measured,
    /// The same, with the kernel's log on the console.
    pub with_log: Measured,
}

#[derive(Debug, Serialize)]
struct Aim {
    what: String,
    /// `None` where there is nothing to compare with.
    met: Option<bool>,
    seen: String,
}

impl Report {
    /// The measured quantities: what, of which measurement.
    fn rows(&self) -> [(&'static str, &Measured, Quantity); 6] {
        [
            ("ms from exec to first guest instruction", &self.at_entry, milliseconds),
            ("MiB beyond guest memory then", &self.at_entry, mebibytes),
            ("ms from exec to the guest's init", &self.at_init, milliseconds),
            ("MiB beyond guest memory then", &self.at_init, mebibytes),
            ("ms from exec to init, with the log", &self.with_log, milliseconds),
            ("KiB of log on the console then", &self.with_log, kibibytes_of_log),
        ]
    }

    /// The table, ending with a newline.
    pub fn table(&self) -> String {
        let mut text = format!("\n{:<40}", "median (least to most)");
        for vmm in ALL {
            text += &format!("{:<26}", vmm.name());
        }
        text += "QEMU by cvmm\n";
        for (what, measured, quantity) in self.rows() {
            text += &format!("{what:<40}");
            for vmm in ALL {
                text += &format!("{:<26}", measured.cell(vmm, quantity));
            }
            text +=
                &measured.ratio(quantity).map_or_else(|| "-\n".to_owned(), |ratio| format!("{ratio:.1}x\n"));
        }
        text += &format!("\n{} rounds, by turns; guests of {GUEST_MIB} MiB and 1 CPU\n", self.rounds);
        text += &format!("first instruction on {}\n", self.at_entry.place.text());
        text += &format!("init              on {}\n", self.at_init.place.text());
        for version in &self.versions {
            text += &format!("compared with     {version}\n");
        }
        for (what, measured) in [
            ("first instruction", &self.at_entry),
            ("init", &self.at_init),
            ("init with the log", &self.with_log),
        ] {
            for (vmm, result) in &measured.results {
                if let Err(why) = result {
                    text += &format!("n/a: {} to {what}: {why}\n", vmm.name());
                }
            }
        }
        text.push('\n');
        for aim in self.aims() {
            let verdict = match aim.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not known",
            };
            text += &format!("aim: {:<56} {verdict} ({})\n", aim.what, aim.seen);
        }
        text
    }

    fn aims(&self) -> Vec<Aim> {
        let (at_entry, at_init) = (&self.at_entry, &self.at_init);
        let ratio = |what: &str, ratio: Option<f64>| Aim {
            what: format!("at least {AIM_RATIO} times {what} than QEMU microvm"),
            met: ratio.map(|ratio| ratio >= AIM_RATIO),
            seen: ratio.map_or_else(|| "no figure".to_owned(), |ratio| format!("{ratio:.1} times")),
        };
        let most = [at_entry, at_init]
            .iter()
            .filter_map(|measured| Some(measured.spread(Vmm::Cvmm, mebibytes)?.most))
            .reduce(f64::max);
        let bound = Aim {
            what: format!("never more than {AIM_MIB} MiB beyond guest memory"),
            met: most.map(|most| most <= AIM_MIB),
            seen: most.map_or_else(
                || "no figure".to_owned(),
                |most| format!("{most:.1} MiB at most in these rounds"),
            ),
        };
        let log = self.with_log.ratio(milliseconds);
        let with_log = Aim {
            what: "at init, with the log, no later than QEMU microvm".into(),
            met: log.map(|ratio| ratio >= 1.0),
            seen: log
                .map_or_else(|| "no figure".to_owned(), |ratio| format!("{:.2} of its time", 1.0 / ratio)),
        };
        vec![
            with_log,
            ratio("faster to the first instruction", at_entry.ratio(milliseconds)),
            ratio("leaner at the first instruction", at_entry.ratio(mebibytes)),
            ratio("leaner at init", at_init.ratio(mebibytes)),
            bound,
        ]
    }

    /// Everything, the samples too.
    pub fn json(&self) -> Value {
        let rows = self.rows().map(|(_, measured, quantity)| measured.ratio(quantity));
        json!({
            "version": 1,
            "rounds": self.rounds,
            "guest_mebibytes": GUEST_MIB,
            "compared_with": self.versions,
            "first_instruction": self.at_entry.json(),
            "init": self.at_init.json(),
            "init_with_log": self.with_log.json(),
            "qemu_by_cvmm": {
                "time_to_first_instruction": rows[0],
                "memory_at_first_instruction": rows[1],
                "time_to_init": rows[2],
                "memory_at_init": rows[3],
                "time_to_init_with_log": rows[4],
            },
            "aims": self.aims(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::resident::Resident;
    use std::time::Duration;

    fn measured(cvmm: &[(u64, u64)], qemu: Result<&[(u64, u64)], String>) -> Measured {
        let samples = |of: &[(u64, u64)]| {
            let sample = |&(ms, mib)| Sample {
                time: Duration::from_millis(ms),
                resident: Resident { guest: 0, beyond: mib << 10 },
                console: 0,
            };
            of.iter().map(sample).collect::<Vec<_>>()
        };
        let place = Place {
            kind: "nowhere".into(),
            processor: "none".into(),
            processors: 1,
            kernel: "0".into(),
            large_pages: chosen("always [madvise] never"),
            load: load("0.5 1 2"),
        };
        let results = vec![(Vmm::Cvmm, Ok(samples(cvmm))), (Vmm::QemuMicrovm, qemu.map(samples))];
        Measured { place, results }
    }

    #[test]
    fn medians_make_the_ratios_and_extremes_the_bound() {
        let report = Report {
            rounds: 3,
            versions: vec!["QEMU 1".into()],
            at_entry: measured(&[(10, 3), (30, 3), (20, 3)], Ok(&[(90, 30), (110, 30)])),
            at_init: measured(&[(1000, 3), (1000, 6), (1000, 3)], Err("no ACPI".into())),
            with_log: measured(&[(1000, 3)], Ok(&[(900, 30)])),
        };
        let table = report.table();
        assert!(table.contains("20.0 (10.0 to 30.0)") && table.contains("100.0 (90.0 to 110.0)"), "{table}");
        assert!(table.contains("5.0x") && table.contains("10.0x"), "{table}");
        assert!(
            table.contains("not installed") && table.contains("QEMU microvm to init: no ACPI"),
            "{table}"
        );
        let met: Vec<_> = report.aims().iter().map(|aim| aim.met).collect();
        assert_eq!(met, [Some(false), Some(true), Some(true), None, Some(false)]);
    }

    #[test]
    fn spread_of_nothing_is_nothing() {
        assert_eq!(Spread::of([].into_iter()), None);
        let even = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!((even.median, even.least, even.most), (2.5, 1.0, 4.0));
    }
}
