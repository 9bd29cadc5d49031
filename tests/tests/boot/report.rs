// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! cvmm's report, read by a program of its own: what other programs rely on is what these fields say.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::Deserialize;

const VERSION_1: u64 = 1 << 32;
const ACCESS_PLATFORM: u64 = 1 << 33;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    version: u32,
    pub outcome: Outcome,
    pub memory: Memory,
    sandbox: Sandbox,
    pub cpus: u64,
    pub firmware: String,
    pub spec: Spec,
    pub devices: Vec<Device>,
    pub refused: u64,
    pub exits: Vec<Exits>,
    pub warnings: Vec<String>,
}

/// Accesses to registers; without a place, of those that move, and where nothing is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exits {
    pub bus: String,
    pub base: Option<u64>,
    pub size: Option<u64>,
    pub reads: u64,
    pub writes: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    pub kind: String,
    pub exit_code: i32,
    pub detail: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub total: u64,
    private: Vec<Extent>,
    pub pools: Vec<Pool>,
    enforcement: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub name: String,
    pub feature_bit: Option<u8>,
    pub unaware: Option<String>,
    pub registers_name_pool: bool,
    pub access_platform: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sandbox {
    seccomp: bool,
    landlock: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    base: u64,
    size: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub name: String,
    pub base: u64,
    pub size: u64,
    pub dma_default: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub kind: String,
    pub transport: String,
    pub window: Extent,
    #[serde(default)]
    pub pci_address: Option<String>,
    pub gsi: u32,
    pub pool: String,
    #[serde(default)]
    pub device_memory: Option<Extent>,
    pub status: Vec<String>,
    pub features: Features,
    pub queues: Vec<Queue>,
    pub dma: Dma,
    pub refused: u64,
    pub refusals: Vec<Refusal>,
    #[serde(default)]
    pub host_io: Option<String>,
    pub host_errors: HostErrors,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostErrors {
    pub total: u64,
    pub first: Vec<serde_json::Value>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    pub offered: u64,
    pub accepted: u64,
    pub accepted_names: Vec<String>,
    pub restricted_dma_bit: Option<u8>,
    pub refused_offer: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    index: u16,
    size: u64,
    descriptor_table: u64,
    available_ring: u64,
    used_ring: u64,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dma {
    pub read: Amount,
    pub written: Amount,
    pub rings: Amount,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    pub accesses: u64,
    pub bytes: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub queue: u16,
    pub structure: String,
    pub address: u64,
    pub length: u64,
    pub reason: String,
    pub count: u64,
}

impl Report {
    /// The guest's accesses of the UART that were exits.
    pub fn uart(&self) -> &Exits {
        let uart = self.exits.iter().find(|exits| (&*exits.bus, exits.base) == ("mmio", Some(0xd100_0000)));
        uart.unwrap_or_else(|| panic!("nothing written to the UART: {:#?}", self.exits))
    }

    /// What holds for any run: the split of memory is whole, the pools are where and as large as was asked for, and each
    /// device has a place of its own and belongs to a pool.
    pub fn assert_machine(&self, mem: u64, cpus: u64, pools: &[(String, u64, Option<u64>)]) {
        assert_eq!((self.version, self.cpus, self.memory.total), (1, cpus, mem));
        assert!(!self.memory.enforcement.is_empty());
        assert!(self.sandbox.seccomp, "{self:#?}");
        let uart = self.uart();
        assert!(uart.size == Some(8) && uart.writes > 50, "{uart:?}");
        assert!(self.sandbox.landlock.as_ref().is_none_or(|abi| abi.starts_with("abi ")), "{self:#?}");
        assert_eq!(self.memory.pools.len(), pools.len(), "{self:#?}");
        for (pool, (name, size, base)) in self.memory.pools.iter().zip(pools) {
            assert_eq!((&pool.name, pool.size), (name, *size));
            assert_eq!(pool.base, base.unwrap_or(pool.base));
            assert_eq!(pool.base % (2 << 20), 0, "{pool:?}");
        }

        let mut all: Vec<Range<u64>> = self.memory.private.iter().map(Extent::range).collect();
        all.extend(self.memory.pools.iter().map(Pool::range));
        assert_eq!(all.iter().map(|range| range.end - range.start).sum::<u64>(), mem, "{all:x?}");
        all.extend(self.devices.iter().map(|device| device.window.range()));
        assert_disjoint(all);
        // Functions of PCI share four lines, and each has an address of its own.
        let mmio: Vec<_> = self.devices.iter().filter(|device| device.transport == "mmio").collect();
        let lines: BTreeSet<_> = mmio.iter().map(|device| device.gsi).collect();
        assert_eq!(lines.len(), mmio.len(), "two devices share an interrupt: {self:#?}");
        let addresses: BTreeSet<_> =
            self.devices.iter().filter_map(|device| device.pci_address.as_ref()).collect();
        assert_eq!(addresses.len(), self.devices.len() - mmio.len(), "{self:#?}");
        for device in &self.devices {
            let shared = pools.iter().any(|(name, ..)| *name == device.pool);
            assert_eq!(shared, device.device_memory.is_none(), "{device:?}");
            assert_eq!(device.pci_address.is_some(), device.transport == "pci", "{device:?}");
            assert!(device.name.starts_with(&device.kind), "{device:?}");
            assert_eq!(device.host_io.is_some(), device.kind == "blk", "{device:?}");
            assert_eq!(device.refusals.is_empty(), device.refused == 0, "{device:?}");
        }
        assert_eq!(self.refused, self.devices.iter().map(|device| device.refused).sum::<u64>());
    }

    /// The machine has these devices, their drivers used each of their queues inside the pool, and nothing was refused.
    pub fn assert_honest(&self, devices: &[(&str, usize)]) {
        self.assert_rings(devices);
        assert_eq!(self.refused, 0, "{self:#?}");
        for HostErrors { total, first } in self.devices.iter().map(|device| &device.host_errors) {
            assert!(*total == 0 && first.is_empty(), "nothing on the host fails here: {self:#?}");
        }
    }

    /// The machine has these devices with this number of queues, each ring of which lies in the pool from end to end.
    pub fn assert_rings(&self, devices: &[(&str, usize)]) {
        let there: Vec<_> =
            self.devices.iter().map(|device| (device.name.as_str(), device.queues.len())).collect();
        assert_eq!(there, devices);
        for device in &self.devices {
            let Features { offered, accepted, accepted_names, refused_offer, .. } = &device.features;
            assert_eq!(*refused_offer, None);
            assert_eq!(accepted & !offered, 0, "{:x?}", device.features);
            for (bit, name) in [(VERSION_1, "VERSION_1"), (ACCESS_PLATFORM, "ACCESS_PLATFORM")] {
                assert!(
                    accepted & bit != 0 && accepted_names.iter().any(|n| n == name),
                    "{name}: {device:?}"
                );
            }
            self.assert_rings_of(device);
        }
        assert_disjoint(
            self.devices.iter().flat_map(|device| &device.queues).flat_map(Queue::areas).collect(),
        );
    }

    /// Each ring of `device` lies in its pool from end to end.
    pub fn assert_rings_of(&self, device: &Device) {
        let pool = self.pool_of(device);
        for (queue, index) in device.queues.iter().zip(0..) {
            assert_eq!(queue.index, index);
            assert!(queue.size.is_power_of_two(), "{queue:?}");
            for area in queue.areas() {
                assert!(pool.start <= area.start && area.end <= pool.end, "{area:x?} of {device:#x?}");
            }
        }
    }

    pub fn pool(&self) -> Range<u64> {
        self.memory.pools[0].range()
    }

    /// The pool of `device`.
    pub fn pool_of(&self, device: &Device) -> Range<u64> {
        let pool = self.memory.pools.iter().find(|pool| pool.name == device.pool);
        pool.unwrap_or_else(|| panic!("no pool {}: {self:#?}", device.pool)).range()
    }

    pub fn device(&self, name: &str) -> &Device {
        let found = self.devices.iter().find(|device| device.name == name);
        found.unwrap_or_else(|| panic!("no device {name}: {self:#?}"))
    }
}

impl Pool {
    fn range(&self) -> Range<u64> {
        self.base..self.base + self.size
    }
}

impl Extent {
    pub fn base(&self) -> u64 {
        self.base
    }

    fn range(&self) -> Range<u64> {
        self.base..self.base + self.size
    }
}

impl Queue {
    /// The three areas with their event fields (virtio 1.3, 2.7).
    fn areas(&self) -> [Range<u64>; 3] {
        let area = |start: u64, length| start..start.checked_add(length).unwrap();
        [
            area(self.descriptor_table, 16 * self.size),
            area(self.available_ring, 6 + 2 * self.size),
            area(self.used_ring, 6 + 8 * self.size),
        ]
    }
}

fn assert_disjoint(mut ranges: Vec<Range<u64>>) {
    ranges.sort_by_key(|range| range.start);
    for pair in ranges.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{:x?} overlaps {:x?}", pair[0], pair[1]);
    }
}
