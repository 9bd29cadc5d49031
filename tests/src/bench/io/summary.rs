// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From samples to the table: for each load what each setup does in a second, and how many exits a request costs.

use serde_json::{Value, json};

use super::load::{DISK_SIZE, LOADS, Load, NOTHING};
use super::probe::{ACCESSES, EXITS, Measured, Sample};
use super::setup::{ALL, Setup, Transport};
use crate::bench::resident::GUEST_MIB;
use crate::bench::summary::{Place, Spread};
use crate::bench::turns::{Competitor, Outcome};
use crate::bench::vmm::Vmm;

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
    /// How many samples there are of each.
    pub rounds: u32,
    /// Names and versions of what is compared with.
    pub versions: Vec<String>,
    /// Where.
    pub place: Place,
    /// Whether that is an emulated host.
    pub emulated: bool,
    /// For each setup its samples, or why there are none.
    pub results: Vec<(Setup, Outcome<Sample>)>,
}

impl Report {
    fn result(&self, setup: Setup) -> Option<&Outcome<Sample>> {
        self.results.iter().find(|(of, _)| *of == setup).map(|(_, result)| result)
    }

    fn spread(&self, setup: Setup, load: &Load, quantity: Quantity) -> Option<Spread> {
        let samples = self.result(setup)?.as_ref().ok()?;
        let values: Option<Vec<f64>> = samples.iter().map(|sample| quantity.of(load, sample)).collect();
        Spread::of(values?.into_iter())
    }

    fn cell(&self, setup: Setup, load: &Load, quantity: Quantity) -> String {
        match (self.spread(setup, load, quantity), self.result(setup)) {
            (Some(spread), _) => spread.text(),
            (None, None) => "not installed".to_owned(),
            (None, Some(Err(_))) => "n/a: see below".to_owned(),
            (None, Some(Ok(_))) => "not measured".to_owned(),
        }
    }

    /// cvmm's median by QEMU's on the same transport.
    fn ratio(&self, transport: Transport, load: &Load, quantity: Quantity) -> Option<f64> {
        let median = |vmm| Some(self.spread(Setup { vmm, transport }, load, quantity)?.median);
        let (ours, theirs) = (median(Vmm::Cvmm)?, median(Vmm::QemuMicrovm)?);
        (theirs > 0.0).then(|| ours / theirs)
    }

    /// The table, ending with a newline.
    pub fn table(&self) -> String {
        let mut text = format!("\n{:<36}", "median (least to most)");
        for setup in ALL {
            text += &format!("{:<24}", setup.name());
            if setup.vmm == Vmm::QemuMicrovm {
                text += &format!("{:<13}", "cvmm by QEMU");
            }
        }
        for load in loads() {
            text = text.trim_end().to_owned() + &format!("\n{}\n", load.title);
            for quantity in QUANTITIES {
                text += &self.row(&load, quantity);
            }
        }
        text + &self.notes()
    }

    fn row(&self, load: &Load, quantity: Quantity) -> String {
        let mut text = format!("  {:<34}", quantity.title(load));
        for setup in ALL {
            text += &format!("{:<24}", self.cell(setup, load, quantity));
            if setup.vmm == Vmm::QemuMicrovm {
                let ratio = self.ratio(setup.transport, load, quantity);
                text += &format!("{:<13}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x")));
            }
        }
        text.trim_end().to_owned() + "\n"
    }

    fn notes(&self) -> String {
        let mut text = format!(
            "\nrounds: {}, by turns; guests of {GUEST_MIB} MiB and 1 CPU, Linux with the project's patches; a raw disk of \
             {} MiB\nin the host's memory, direct I/O in the guest, one request at a time (8 with 8 threads)\n",
            self.rounds,
            DISK_SIZE >> 20
        );
        text += "cvmm's guests copy all data to and from the pool; that is in cvmm's figures. The others have no pool.\n";
        text +=
            "Exits are KVM's count of the VM in debugfs, less what the guest's lines around a load cost.\n";
        text += &format!("on {}\n", self.place.text());
        if self.emulated {
            // See the tick in `host::emulated`.
            text += "Under emulation the times are no hardware's: all exits are slow, and an interrupt that the emulation \
                     loses waits\nfor the host's next tick of 4 ms. A request that takes longer also has more exits: where \
                     ranges overlap, there is\nno difference to see.\n";
        }
        for version in &self.versions {
            text += &format!("compared with {version}\n");
        }
        for setup in ALL {
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

    /// Everything, the samples too.
    pub fn json(&self) -> Value {
        let results = self.results.iter().map(|(setup, result)| {
            let figures = loads().map(|load| {
                let unit = if load.random { "requests_per_second" } else { "mebibytes_per_second" };
                json!({
                    "load": load.name,
                    "bytes": load.bytes,
                    "depth": load.depth,
                    "requests": load.requests,
                    unit: self.spread(*setup, &load, Quantity::Rate),
                    "exits_per_request": self.spread(*setup, &load, Quantity::Exits),
                    "vmm_accesses_per_request": self.spread(*setup, &load, Quantity::Accesses),
                })
            });
            json!({
                "vmm": setup.vmm,
                "transport": setup.transport,
                "options": setup.machine("DISK"),
                "loads": result.is_ok().then(|| figures.collect::<Vec<_>>()),
                "not_measured": without(result),
                "samples": result.as_ref().ok(),
            })
        });
        let ratios = loads().flat_map(|load| {
            [Transport::Mmio, Transport::Pci].map(|transport| {
                json!({
                    "load": load.name,
                    "transport": transport,
                    "rate": self.ratio(transport, &load, Quantity::Rate),
                    "exits": self.ratio(transport, &load, Quantity::Exits),
                })
            })
        });
        json!({
            "version": 1,
            "rounds": self.rounds,
            "guest_mebibytes": GUEST_MIB,
            "disk_mebibytes": DISK_SIZE >> 20,
            "compared_with": self.versions,
            "place": self.place,
            "emulated": self.emulated,
            "results": results.collect::<Vec<_>>(),
            "cvmm_by_qemu": ratios.collect::<Vec<_>>(),
        })
    }
}

/// Those with requests.
fn loads() -> impl Iterator<Item = Load> {
    LOADS.into_iter().filter(|load| *load != NOTHING)
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

    use super::super::load::Done;
    use super::super::probe::Counters;
    use super::*;

    /// The figures of one load, those of nothing and those of a load that is not there.
    fn sample(milliseconds: u64, exits: Option<u64>) -> Sample {
        let counters = |exits: u64| Counters::from([(EXITS.into(), exits), ("mmio_exits".into(), exits / 2)]);
        let measured = |load: &Load, exits: Option<u64>| Measured {
            done: Done {
                load: load.name.into(),
                requests: load.requests,
                time: Duration::from_millis(milliseconds),
            },
            counters: exits.map(counters).unwrap_or_default(),
        };
        Sample {
            loads: vec![measured(&NOTHING, exits.map(|_| 100)), measured(&LOADS[4], exits)],
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
        let results = vec![
            (ALL[0], Ok(vec![sample(1000, Some(612)), sample(2000, Some(1124)), sample(500, Some(1124))])),
            (ALL[1], Ok(vec![sample(2000, Some(2148))])),
            (ALL[2], Ok(vec![sample(1000, None)])),
            (ALL[3], Err("no PCI".into())),
        ];
        Report { rounds: 3, versions: vec!["QEMU 1".into()], place, emulated: true, results }
    }

    #[test]
    fn rates_and_exits_without_those_of_the_lines() {
        let (load, report) = (LOADS[4], report());
        assert_eq!((load.name, load.requests), ("sequential-read", 512));
        // 64 MiB in 1 s, 2 s and half a second; 512, 1024 and 1024 exits beyond the lines' 100.
        let rate = report.spread(ALL[0], &load, Quantity::Rate).unwrap();
        assert_eq!((rate.median, rate.least, rate.most), (64.0, 32.0, 128.0));
        let exits = report.spread(ALL[0], &load, Quantity::Exits).unwrap();
        assert_eq!((exits.median, exits.least, exits.most), (2.0, 1.0, 2.0));
        assert_eq!(report.ratio(Transport::Mmio, &load, Quantity::Rate), Some(2.0));
        assert_eq!(report.ratio(Transport::Mmio, &load, Quantity::Exits), Some(0.5));
        assert_eq!(report.ratio(Transport::Pci, &load, Quantity::Rate), None);
    }

    #[test]
    fn the_table_says_what_is_missing_and_why() {
        let table = report().table();
        for text in [
            "64.0 (32.0 to 128.0)",
            "2.00x",
            "0.50x",
            "not measured",
            "cvmm pci: --firmware dt --pool 16M --blk path=DISK,transport=pci\n  exits not measured: no debugfs",
            "n/a: see below",
            "n/a: no PCI",
            "kvmtool pci: not installed",
            "pool; that is in cvmm's figures",
            "the times are no hardware's",
        ] {
            assert!(table.contains(text), "{text}: {table}");
        }
        assert_eq!(report().cell(ALL[4], &LOADS[4], Quantity::Rate), "not installed");
        // A counter that KVM does not have is no zero.
        assert!(report().spread(ALL[0], &LOADS[4], Quantity::Accesses).is_none());
    }

    #[test]
    fn machines_get_the_samples_too() {
        let json = report().json();
        let first = &json["results"][0];
        assert_eq!((&first["vmm"], &first["transport"]), (&json!("cvmm"), &json!("mmio")));
        assert_eq!(first["samples"].as_array().unwrap().len(), 3);
        assert_eq!(first["loads"][3]["mebibytes_per_second"]["median"], json!(64.0));
        assert_eq!(json["results"][3]["not_measured"], json!("n/a: no PCI"));
    }
}
