// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From samples to the table: medians, spreads, and ratios to cvmm.

use serde_json::{Value, json};

use super::case::Case;
use super::clock::Clock;
use super::sample::Sample;
use crate::bench::summary::{Place, Spread};

/// A round in which all take turns, and all that came of one of them.
#[derive(Debug, Default)]
pub struct Turns {
    /// Those that count.
    pub samples: Vec<Sample>,
    /// System calls for each request.
    pub calls: Option<f64>,
    /// Why there is no more.
    pub failure: Option<String>,
}

/// A case, with all that were measured; cvmm is the first.
#[derive(Debug)]
pub struct Results {
    /// What was measured.
    pub case: Case,
    /// By their names.
    pub peers: Vec<(String, Turns)>,
}

/// The whole comparison.
#[derive(Debug)]
pub struct Report {
    /// How many samples there are of each.
    pub rounds: u32,
    /// How long each took.
    pub seconds: f64,
    /// Of guest and host.
    pub clock: Clock,
    /// Where.
    pub place: Place,
    /// What was not measured, and why.
    pub missing: Vec<String>,
    /// Case by case.
    pub results: Vec<Results>,
}

impl Turns {
    fn spread(&self, quantity: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(quantity))
    }

    fn rate(&self) -> Option<Spread> {
        self.spread(|sample| Some(sample.rate()))
    }

    /// Medians for each request, in the order of [`COLUMNS`].
    fn each(&self) -> [Option<f64>; 7] {
        let median = |number: fn(&Sample) -> Option<u64>| {
            Some(self.spread(|sample| Some(sample.each(number(sample)?)))?.median)
        };
        let microseconds = |nanoseconds: Option<f64>| nanoseconds.map(|time| time / 1e3);
        [
            median(|sample| sample.notifications),
            median(|sample| sample.exits.or(sample.answered)),
            self.calls,
            median(|sample| Some(sample.threads.devices.sleeps)),
            microseconds(median(|sample| Some(sample.threads.devices.nanoseconds))),
            // fio has none.
            microseconds(median(|sample| Some(sample.threads.vcpus.nanoseconds)).filter(|time| *time > 0.0)),
            median(|sample| Some(sample.threads.vcpus.preempted)),
        ]
    }
}

/// What is told for each request.
const COLUMNS: [&str; 7] = ["notified", "exits", "calls", "sleeps", "device us", "vCPU us", "preempted"];

impl Results {
    fn ratio(&self, turns: &Turns) -> Option<f64> {
        let (_, cvmm) = self.peers.first()?;
        Some(turns.rate()?.median / cvmm.rate()?.median)
    }

    fn table(&self) -> String {
        let mut text = format!("\n{}\n", self.case.name());
        for (name, turns) in &self.peers {
            let Some(rate) = turns.rate() else {
                let why = turns.failure.as_deref().unwrap_or("nothing was measured");
                text += &format!("  {name:<22}n/a: {}\n", why.lines().next().unwrap_or_default());
                continue;
            };
            let ratio = self.ratio(turns).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let rates = format!("{:.0} ({:.0} to {:.0})", rate.median, rate.least, rate.most);
            text += &format!("  {name:<22}{rates:<28}{ratio:>7}");
            for each in turns.each() {
                text += &each.map_or_else(|| format!("{:>11}", "-"), |each| format!("{each:>11.3}"));
            }
            if let Some(why) = &turns.failure {
                text += &format!("  then failed: {}", why.lines().next().unwrap_or_default());
            }
            text += "\n";
        }
        text
    }

    fn json(&self) -> Value {
        let peers = self.peers.iter().map(|(name, turns)| {
            let each =
                COLUMNS.into_iter().zip(turns.each()).map(|(column, each)| (column.to_owned(), json!(each)));
            json!({
                "name": name,
                "requests_per_second": turns.rate(),
                "of_cvmm": self.ratio(turns),
                "for_each_request": each.collect::<serde_json::Map<_, _>>(),
                "not_measured": turns.failure,
                "samples": turns.samples,
            })
        });
        json!({ "case": self.case, "peers": peers.collect::<Vec<_>>() })
    }
}

impl Report {
    /// The table, ending with a newline.
    pub fn table(&self) -> String {
        let mut text = format!("\n{:<24}{:<28}{:>7}", "", "requests/s (least to most)", "of cvmm");
        COLUMNS.iter().for_each(|column| text += &format!("{column:>11}"));
        text += "\n";
        self.results.iter().for_each(|results| text += &results.table());
        text += &format!(
            "\n{} rounds by turns, of {} s each; medians. From the fourth column on: for each request.\n",
            self.rounds, self.seconds
        );
        text += "notified: by the driver. exits: all, where KVM's debugfs says; else those that cvmm answered itself, in the \
                 whole run.\ncalls: system calls of the devices' threads. sleeps: their voluntary context switches. \
                 device us, vCPU us: CPU time.\npreempted: how often a vCPU lost its CPU.\n";
        text += &format!("on {}\n", self.place.text());
        self.missing.iter().for_each(|missing| text += &format!("not measured: {missing}\n"));
        text
    }

    /// Whether the one with this name failed in any case.
    pub fn failed(&self, name: &str) -> bool {
        let mut all = self.results.iter().flat_map(|results| &results.peers);
        all.any(|(of, turns)| of == name && turns.failure.is_some())
    }

    /// Everything, the samples too.
    pub fn json(&self) -> Value {
        let results: Vec<_> = self.results.iter().map(Results::json).collect();
        json!({
            "version": 1,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "clock": self.clock,
            "place": self.place,
            "not_measured": self.missing,
            "results": results,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let turns = |requests: [u64; 3]| Turns {
            samples: requests
                .map(|requests| Sample {
                    requests,
                    seconds: 0.5,
                    notifications: Some(10),
                    ..Sample::default()
                })
                .into(),
            calls: Some(3.0),
            failure: None,
        };
        let failed = Turns { failure: Some("it crashed\nand more".into()), ..Turns::default() };
        let peers = [
            ("cvmm", turns([100, 50, 200])),
            ("fio io_uring", turns([150, 150, 150])),
            ("QEMU microvm", failed),
        ];
        let place = Place {
            kind: "this".into(),
            processor: "CPU".into(),
            processors: 2,
            kernel: "6".into(),
            large_pages: "always".into(),
            load: "0".into(),
        };
        let peers = peers.into_iter().map(|(name, turns)| (name.to_owned(), turns)).collect();
        Report {
            rounds: 3,
            seconds: 0.5,
            clock: Clock { hertz: 2e9 },
            place,
            missing: vec!["system calls: no tracefs".into()],
            results: vec![Results { case: Case::all()[0], peers }],
        }
    }

    #[test]
    fn peers_are_set_against_cvmm() {
        let table = report().table();
        for text in [
            "200 (100 to 400)",
            "1.50",
            "n/a: it crashed\n",
            "not measured: system calls: no tracefs",
            " 0.100",
        ] {
            assert!(table.contains(text), "{text}: {table}");
        }
    }

    #[test]
    fn machines_get_the_samples_too() {
        let json = report().json();
        let peer = &json["results"][0]["peers"][1];
        assert_eq!((&peer["of_cvmm"], &peer["requests_per_second"]["median"]), (&json!(1.5), &json!(300.0)));
        assert_eq!(peer["samples"].as_array().unwrap().len(), 3);
        assert_eq!(json["results"][0]["peers"][2]["not_measured"], json!("it crashed\nand more"));
    }
}
