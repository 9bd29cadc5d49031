// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From samples to the table: for each load what each setup does in a second, and how many exits a request costs.

use serde_json::{Value, json};

use super::comparison::{Comparison, Ratio};
use super::load::{DISK_SIZE, Load, Lock, NOTHING, Pool};
use super::probe::{ACCESSES, EXITS, Measured, Sample};
use super::setup::Setup;
use crate::bench::resident::GUEST_MIB;
use crate::bench::summary::{Place, Spread};
use crate::bench::turns::{Competitor, Outcome};
use crate::host::SAFE_CPUS;

const COLUMN: usize = 25;

/// What is measured of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    /// Requests or MiB in a second.
    Rate,
    /// Exits for each request.
    Exits,
    /// Of them, those in which the VMM carries out an access to MMIO or a port.
    Accesses,
}

const QUANTITIES: [Quantity; 3] = [Quantity::Rate, Quantity::Exits, Quantity::Accesses];

impl Quantity {
    fn of(self, load: &Load, sample: &Sample) -> Option<f64> {
        let measured = measured(sample, load)?;
        match self {
            Self::Rate => {
                let rate = float(measured.done.requests) / measured.done.time.as_secs_f64();
                Some(if load.random { rate } else { rate * float(load.bytes as u64) / float(1 << 20) })
            }
            Self::Exits => per_request(sample, measured, &[EXITS]),
            Self::Accesses => per_request(sample, measured, &ACCESSES),
        }
    }

    fn title(self, load: &Load) -> &'static str {
        match self {
            Self::Rate if load.random => "requests/s (more is better)",
            Self::Rate => "MiB/s (more is better)",
            Self::Exits => "exits/request (fewer is better)",
            Self::Accesses => "of them MMIO or ports in the VMM",
        }
    }
}

/// The growth of `counters` for each request, without what the lines around a load cost.
fn per_request(sample: &Sample, measured: &Measured, counters: &[&str]) -> Option<f64> {
    let sum =
        |of: &Measured| counters.iter().map(|name| of.counters.get(*name).copied()).sum::<Option<u64>>();
    let requests = sum(measured)?.saturating_sub(sum(self::measured(sample, &NOTHING)?)?);
    Some(float(requests) / float(measured.done.requests))
}

fn measured<'s>(sample: &'s Sample, load: &Load) -> Option<&'s Measured> {
    sample.loads.iter().find(|measured| measured.done.load == load.name)
}

/// Counts here are far below 2^32.
fn float(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The whole comparison.
#[derive(Debug)]
pub struct Report {
    /// What was compared.
    pub comparison: Comparison,
    /// How many samples there are of each.
    pub rounds: u32,
    /// Names and versions of what is compared with.
    pub versions: Vec<String>,
    /// Where.
    pub place: Place,
    /// Whether that is an emulated host.
    pub emulated: bool,
    /// Guests that an emulated host lost, whose samples are missing.
    pub lost: u32,
    /// For each setup its samples, or why there are none.
    pub results: Vec<(Setup, Outcome<Sample>)>,
}

impl Report {
    fn result(&self, setup: Setup) -> Option<&Outcome<Sample>> {
        self.results.iter().find(|(of, _)| *of == setup).map(|(_, result)| result)
    }

    /// All samples of a setup for a load.
    fn samples(&self, setup: Setup, load: &Load) -> impl Iterator<Item = &Measured> {
        let samples = self.result(setup).and_then(|result| result.as_ref().ok());
        samples.into_iter().flatten().filter_map(|sample| measured(sample, load))
    }

    fn spread(&self, setup: Setup, load: &Load, quantity: Quantity) -> Option<Spread> {
        let samples = self.result(setup)?.as_ref().ok()?;
        let values: Option<Vec<f64>> = samples.iter().map(|sample| quantity.of(load, sample)).collect();
        Spread::of(values?.into_iter())
    }

    /// The most of the pool that was used in any round, and how often it was full in all.
    fn pool(&self, setup: Setup, load: &Load) -> Option<Pool> {
        let pools = self.samples(setup, load).filter_map(|measured| measured.done.pool);
        pools.reduce(|all, one| Pool { most: all.most.max(one.most), full: all.full + one.full, ..all })
    }

    /// How often the locks were taken, in all rounds.
    fn lock(&self, setup: Setup, load: &Load) -> Option<Lock> {
        let locks = self.samples(setup, load).filter_map(|measured| measured.done.lock);
        locks.reduce(|all, one| Lock {
            acquired: all.acquired + one.acquired,
            contended: all.contended + one.contended,
        })
    }

    fn cell(&self, setup: Setup, load: &Load, quantity: Quantity) -> String {
        match (self.spread(setup, load, quantity), self.result(setup)) {
            (Some(spread), _) => spread.text(),
            (None, None) => "not installed".to_owned(),
            (None, Some(Err(_))) => "n/a: see below".to_owned(),
            (None, Some(Ok(_))) => "not measured".to_owned(),
        }
    }

    /// The first setup's median by the second's.
    fn ratio(&self, ratio: &Ratio, load: &Load, quantity: Quantity) -> Option<f64> {
        let [ours, theirs] = ratio.setups.map(|setup| Some(self.spread(setup, load, quantity)?.median));
        let (ours, theirs) = (ours?, theirs?);
        (theirs > 0.0).then(|| ours / theirs)
    }

    /// The table, ending with a newline.
    pub fn table(&self) -> String {
        let mut text = format!("\n{:<36}", "median (least to most)");
        for name in self.comparison.names() {
            text += &format!("{name:<COLUMN$}");
        }
        for ratio in self.comparison.ratios() {
            text += &format!("{:<18}", ratio.title);
        }
        for load in self.loads() {
            text = text.trim_end().to_owned() + &format!("\n{}\n", load.title);
            for quantity in QUANTITIES {
                text += &self.row(load, quantity);
            }
            text += &self.row_of("most slots of the pool in use", |setup| {
                let Pool { slots, most, .. } = self.pool(setup, load)?;
                Some(format!("{most} of {slots}"))
            });
            text += &self
                .row_of("times the pool was full", |setup| Some(self.pool(setup, load)?.full.to_string()));
            text += &self.row_of("waits for its lock", |setup| {
                let Lock { acquired, contended } = self.lock(setup, load)?;
                Some(format!("{contended} of {acquired}"))
            });
        }
        text + &self.notes()
    }

    fn row(&self, load: &Load, quantity: Quantity) -> String {
        let mut text = format!("  {:<34}", quantity.title(load));
        for setup in self.comparison.setups() {
            text += &format!("{:<COLUMN$}", self.cell(setup, load, quantity));
        }
        for ratio in self.comparison.ratios() {
            let ratio = self.ratio(&ratio, load, quantity);
            text += &format!("{:<18}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x")));
        }
        text.trim_end().to_owned() + "\n"
    }

    /// A row of what only some setups have; none if no setup has it.
    fn row_of(&self, title: &str, cell: impl Fn(Setup) -> Option<String>) -> String {
        let cells: Vec<_> = self.comparison.setups().into_iter().map(cell).collect();
        if cells.iter().all(Option::is_none) {
            return String::new();
        }
        let mut text = format!("  {title:<34}");
        for cell in cells {
            text += &format!("{:<COLUMN$}", cell.as_deref().unwrap_or("-"));
        }
        text.trim_end().to_owned() + "\n"
    }

    fn notes(&self) -> String {
        let mut text = format!(
            "\nrounds: {}, by turns; guests of {GUEST_MIB} MiB, Linux with the project's patches; raw disks of {} MiB in the \
             host's memory,\ndirect I/O in the guest, one request at a time in each thread\n",
            self.rounds,
            DISK_SIZE >> 20
        );
        text += self.comparison.notes();
        text +=
            "Exits are KVM's count of the VM in debugfs, less what the guest's lines around a load cost.\n";
        text += &format!("on {}\n", self.place.text());
        if self.emulated {
            // See the tick in `host::emulated`.
            text += "Under emulation the times are no hardware's: all exits are slow, and an interrupt that the emulation \
                     loses waits\nfor the host's next tick of 4 ms. A request that takes longer also has more exits: where \
                     ranges overlap, there is\nno difference to see.\n";
        }
        if self.comparison.emulated_cpus() > SAFE_CPUS && self.emulated {
            let guests = self.comparison.setups().len() as u64 * u64::from(self.rounds);
            text += &format!(
                "Each guest has a host of its own; {} of {guests} were lost with theirs (QEMU, nested SVM, several CPUs) and \
                 do not count.\n",
                self.lost
            );
        }
        for version in &self.versions {
            text += &format!("compared with {version}\n");
        }
        for setup in self.comparison.setups() {
            match self.result(setup) {
                None => text += &format!("{}: not installed\n", setup.name()),
                Some(result) => {
                    text += &format!("{}: {}\n", setup.name(), setup.machine("DISK"));
                    if let Some(why) = without(result) {
                        text += &format!("  {why}\n");
                    }
                }
            }
        }
        text
    }

    /// Those with requests.
    fn loads(&self) -> impl Iterator<Item = &'static Load> {
        self.comparison.loads().iter().filter(|load| **load != NOTHING)
    }

    /// Everything, the samples too.
    pub fn json(&self) -> Value {
        let results = self.results.iter().map(|(setup, result)| {
            let figures = self.loads().map(|load| {
                let unit = if load.random { "requests_per_second" } else { "mebibytes_per_second" };
                json!({
                    "load": load.name,
                    "bytes": load.bytes,
                    "depth": load.depth,
                    "requests": load.requests,
                    unit: self.spread(*setup, load, Quantity::Rate),
                    "exits_per_request": self.spread(*setup, load, Quantity::Exits),
                    "vmm_accesses_per_request": self.spread(*setup, load, Quantity::Accesses),
                    "pool": self.pool(*setup, load),
                    "lock": self.lock(*setup, load),
                })
            });
            json!({
                "name": setup.name(),
                "setup": setup,
                "options": setup.machine("DISK"),
                "loads": result.is_ok().then(|| figures.collect::<Vec<_>>()),
                "not_measured": without(result),
                "samples": result.as_ref().ok(),
            })
        });
        let ratios = self.loads().flat_map(|load| {
            self.comparison.ratios().into_iter().map(|ratio| {
                json!({
                    "load": load.name,
                    "of": ratio.setups.map(Competitor::name),
                    "rate": self.ratio(&ratio, load, Quantity::Rate),
                    "exits": self.ratio(&ratio, load, Quantity::Exits),
                })
            })
        });
        json!({
            "version": 2,
            "rounds": self.rounds,
            "guest_mebibytes": GUEST_MIB,
            "disk_mebibytes": DISK_SIZE >> 20,
            "compared_with": self.versions,
            "place": self.place,
            "emulated": self.emulated,
            "lost": self.lost,
            "results": results.collect::<Vec<_>>(),
            "ratios": ratios.collect::<Vec<_>>(),
        })
    }
}

/// What is missing of a result, and why.
fn without(result: &Outcome<Sample>) -> Option<String> {
    match result {
        Err(why) => Some(format!("n/a: {why}")),
        Ok(samples) => {
            let why = samples.iter().find_map(|sample| sample.no_counters.as_ref())?;
            Some(format!("exits not measured: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::load::{DISK_LOADS, Done};
    use super::super::probe::Counters;
    use super::*;

    const LOAD: &Load = &DISK_LOADS[4];

    /// The figures of one load, those of nothing and those of a load that is not there.
    fn sample(milliseconds: u64, exits: Option<u64>) -> Sample {
        let counters = |exits: u64| Counters::from([(EXITS.into(), exits), ("mmio_exits".into(), exits / 2)]);
        let measured = |load: &Load, exits: Option<u64>| Measured {
            done: Done {
                load: load.name.into(),
                requests: load.requests,
                time: Duration::from_millis(milliseconds),
                pool: Some(Pool { slots: 8192, most: milliseconds, full: 2 }),
                lock: None,
            },
            counters: exits.map(counters).unwrap_or_default(),
        };
        Sample {
            loads: vec![measured(&NOTHING, exits.map(|_| 100)), measured(LOAD, exits)],
            no_counters: exits.is_none().then(|| "no debugfs".to_owned()),
        }
    }

    fn report() -> Report {
        let place = Place {
            kind: "nowhere".into(),
            processor: "none".into(),
            processors: 1,
            kernel: "0".into(),
            large_pages: "never".into(),
            load: "0.5".into(),
        };
        let comparison = Comparison::Transports;
        let all = comparison.setups();
        let results = vec![
            (all[0], Ok(vec![sample(1000, Some(612)), sample(2000, Some(1124)), sample(500, Some(1124))])),
            (all[1], Ok(vec![sample(2000, Some(2148))])),
            (all[2], Ok(vec![sample(1000, None)])),
            (all[3], Err("no PCI".into())),
        ];
        Report {
            comparison,
            rounds: 3,
            versions: vec!["QEMU 1".into()],
            place,
            emulated: true,
            lost: 0,
            results,
        }
    }

    #[test]
    fn rates_and_exits_without_those_of_the_lines() {
        let (load, report) = (LOAD, report());
        let all = report.comparison.setups();
        let ratios = report.comparison.ratios();
        assert_eq!((load.name, load.requests), ("sequential-read", 512));
        // 64 MiB in 1 s, 2 s and half a second; 512, 1024 and 1024 exits beyond the lines' 100.
        let rate = report.spread(all[0], load, Quantity::Rate).unwrap();
        assert_eq!((rate.median, rate.least, rate.most), (64.0, 32.0, 128.0));
        let exits = report.spread(all[0], load, Quantity::Exits).unwrap();
        assert_eq!((exits.median, exits.least, exits.most), (2.0, 1.0, 2.0));
        assert_eq!(report.ratio(&ratios[0], load, Quantity::Rate), Some(2.0));
        assert_eq!(report.ratio(&ratios[0], load, Quantity::Exits), Some(0.5));
        assert_eq!(report.ratio(&ratios[1], load, Quantity::Rate), None);
    }

    #[test]
    fn the_table_says_what_is_missing_and_why() {
        let table = report().table();
        for text in [
            "64.0 (32.0 to 128.0)",
            "2.00x",
            "0.50x",
            "not measured",
            "cvmm pci: --firmware dt --cpus 1 --pool 16M --blk path=DISK,transport=pci\n  exits not measured: no debugfs",
            "n/a: see below",
            "n/a: no PCI",
            "kvmtool pci: not installed",
            "pool; that is in cvmm's figures",
            "2000 of 8192",
            "the times are no hardware's",
        ] {
            assert!(table.contains(text), "{text}: {table}");
        }
        let all = Comparison::Transports.setups();
        assert_eq!(report().cell(all[4], LOAD, Quantity::Rate), "not installed");
        // A counter that KVM does not have is no zero.
        assert!(report().spread(all[0], LOAD, Quantity::Accesses).is_none());
    }

    #[test]
    fn machines_get_the_samples_too() {
        let json = report().json();
        let first = &json["results"][0];
        assert_eq!((&first["name"], &first["setup"]["transport"]), (&json!("cvmm mmio"), &json!("mmio")));
        assert_eq!(first["samples"].as_array().unwrap().len(), 3);
        assert_eq!(first["loads"][3]["mebibytes_per_second"]["median"], json!(64.0));
        assert_eq!(json["results"][3]["not_measured"], json!("n/a: no PCI"));
    }
}
