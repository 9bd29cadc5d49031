// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is measured: each case has a name of words, by which it is chosen.

use cvmm_hostile::speed::{Load, Order};
use serde::{Serialize, Serializer};

/// Whether the disk's file is in the page cache before a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// All of it is.
    Warm,
    /// Nothing of it is.
    Cold,
}

/// A case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What the guest is told; the time is set later.
    pub order: Order,
    /// Of the disk's file.
    pub cache: Cache,
}

const SMALL: u32 = 4 << 10;
const LARGE: u32 = 128 << 10;
/// Of a frame; what a wire takes comes from it by segmentation.
const LONG: u32 = 64 << 10;
const DEPTHS: [u16; 4] = [1, 8, 32, 64];

const RANDOM_READ: Order = Order {
    load: Load::RandomRead,
    pci: false,
    bytes: SMALL,
    depth: 1,
    queues: 1,
    cpus: 1,
    event_idx: false,
    ticks: 0,
};

impl Case {
    /// All, in their order.
    pub fn all() -> Vec<Self> {
        let mut orders = Vec::new();
        let random = [Load::RandomRead, Load::RandomWrite].map(|load| (load, SMALL));
        let sequential = [Load::SequentialRead, Load::SequentialWrite].map(|load| (load, LARGE));
        for pci in [false, true] {
            for event_idx in [false, true] {
                for (load, bytes) in random.into_iter().chain(sequential) {
                    orders.extend(DEPTHS.map(|depth| Order {
                        load,
                        bytes,
                        pci,
                        event_idx,
                        depth,
                        ..RANDOM_READ
                    }));
                }
            }
            for (queues, load) in [2, 4].into_iter().flat_map(|queues| random.map(|(load, _)| (queues, load)))
            {
                orders.push(Order { load, queues, pci, depth: 32, event_idx: true, ..RANDOM_READ });
            }
            orders.push(Order { queues: 2, cpus: 2, pci, depth: 32, event_idx: true, ..RANDOM_READ });
            for (load, bytes) in
                [64, LONG].into_iter().flat_map(|bytes| [(Load::Send, bytes), (Load::Receive, bytes)])
            {
                orders.push(Order { load, bytes, pci, depth: 64, event_idx: true, ..RANDOM_READ });
            }
            orders.push(Order { load: Load::Entropy, pci, depth: 8, event_idx: true, ..RANDOM_READ });
        }
        let cold = |order| Self { order, cache: Cache::Cold };
        let mut cases: Vec<_> = orders.into_iter().map(|order| Self { order, cache: Cache::Warm }).collect();
        cases.extend(DEPTHS.map(|depth| cold(Order { depth, event_idx: true, ..RANDOM_READ })));
        for (queues, cpus) in [(2, 1), (4, 1), (2, 2)] {
            cases.push(cold(Order { queues, cpus, depth: 32, event_idx: true, ..RANDOM_READ }));
        }
        let load = Load::SequentialRead;
        cases.push(cold(Order { load, bytes: LARGE, depth: 8, event_idx: true, ..RANDOM_READ }));
        cases
    }

    /// Its words, each of which is also a filter.
    pub fn name(&self) -> String {
        let Order { load, pci, bytes, depth, queues, cpus, event_idx, .. } = self.order;
        let device = match load.device() {
            1 => "net",
            4 => "rng",
            _ => "blk",
        };
        let transport = if pci { "pci" } else { "mmio" };
        let size = if bytes % 1024 == 0 { format!("{}k", bytes / 1024) } else { bytes.to_string() };
        let rings = if event_idx { "event" } else { "plain" };
        let word = load.word();
        let mut name =
            format!("{device} {transport} {word} {size} depth-{depth} queues-{queues} cpus-{cpus} {rings}");
        if self.is_disk() {
            name += if self.cache == Cache::Warm { " cached" } else { " uncached" };
        }
        name
    }

    /// Whether it has all words of `filter`.
    pub fn is_chosen(&self, filter: &str) -> bool {
        let name = self.name();
        filter.split_whitespace().all(|word| name.split(' ').any(|other| other == word))
    }

    /// Whether the device is a network device.
    pub fn is_net(&self) -> bool {
        self.order.load.device() == 1
    }

    /// Whether the device is a disk.
    pub fn is_disk(&self) -> bool {
        self.order.load.device() == 2
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own() {
        let mut names: Vec<_> = Case::all().iter().map(Case::name).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn a_filter_takes_whole_words() {
        let chosen =
            |filter: &str| Case::all().into_iter().filter(|case| case.is_chosen(filter)).collect::<Vec<_>>();
        let one = chosen("blk mmio random-read depth-1 plain queues-1");
        assert_eq!(
            one.iter().map(Case::name).collect::<Vec<_>>(),
            ["blk mmio random-read 4k depth-1 queues-1 cpus-1 plain cached"]
        );
        assert!(chosen("uncached").iter().all(|case| case.cache == Cache::Cold));
        assert!(chosen("random").is_empty());
        assert_eq!(chosen("").len(), Case::all().len());
    }

    /// A queue has 256 descriptors, a request of a disk three of them, and all of it is in a pool of 32 MiB.
    #[test]
    fn all_cases_fit_the_guest() {
        for Case { order, .. } in Case::all() {
            assert!(u32::from(order.depth) * 3 <= 256, "{order:?}");
            assert!(
                u64::from(order.queues) * u64::from(order.depth) * u64::from(order.bytes) < 31 << 20,
                "{order:?}"
            );
            assert!(order.to_string().len() < 80, "{order}");
        }
    }
}
