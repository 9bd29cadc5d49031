// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A run's report as a short table for people.

use serde::Deserialize;

/// The part of cvmm's report that the table shows.
#[derive(Debug, Deserialize)]
pub struct Report {
    outcome: Outcome,
    /// Absent where the run was refused before there was a machine.
    memory: Option<Memory>,
    devices: Vec<Device>,
    refused: u64,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    kind: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
struct Memory {
    total: u64,
    pools: Vec<Pool>,
    enforcement: String,
}

#[derive(Debug, Deserialize)]
struct Pool {
    name: String,
    base: u64,
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Extent {
    base: u64,
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Device {
    name: String,
    kind: String,
    transport: String,
    pool: String,
    /// Its pool is there, and no other device's.
    device_memory: Option<Extent>,
    /// Bits of the device status that were ever set.
    status: Vec<String>,
    queues: Vec<Queue>,
    dma: Dma,
    features: Features,
    refused: u64,
    refusals: Vec<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Features {
    refused_offer: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Queue {
    descriptor_table: u64,
    available_ring: u64,
    used_ring: u64,
}

#[derive(Debug, Deserialize)]
struct Dma {
    read: Amount,
    written: Amount,
}

#[derive(Debug, Deserialize)]
struct Amount {
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    queue: Option<u64>,
    structure: String,
    address: u64,
    length: u64,
    reason: String,
    count: u64,
}

impl Report {
    /// The table, ending with a newline; nothing where there was no machine to speak of.
    pub fn table(&self) -> String {
        let Some(memory) = &self.memory else { return String::new() };
        let mut text = format!("\noutcome  {} ({})\n", self.outcome.kind, self.outcome.detail);
        for pool in &memory.pools {
            let end = pool.base + pool.size;
            text += &format!("{:<8} {:#x} to {end:#x}, {} MiB", pool.name, pool.base, pool.size >> 20);
            text += &format!(" of the guest's {} MiB\n", memory.total >> 20);
        }
        for (device, own) in
            self.devices.iter().filter_map(|device| Some((device, device.device_memory.as_ref()?)))
        {
            let end = own.base + own.size;
            text += &format!("{} {:#x} to {end:#x}, {} MiB\n", device.pool, own.base, own.size >> 20);
        }
        let width = self.devices.iter().map(|device| device.pool.len()).max().unwrap_or(0).max("pool".len());
        text += &format!("held by  {}\n\n", memory.enforcement);
        text += &format!("device  kind  transport  {:<width$}  ", "pool");
        text += "rings in the pool           it read    it wrote  refused\n";
        for device in &self.devices {
            text += &format!(
                "{:<7} {:<5} {:<10} {:<width$}  {:<26} {:>9} {:>11} {:>8}\n",
                device.name,
                device.kind,
                device.transport,
                device.pool,
                rings(device, &memory.pools),
                amount(device.dma.read.bytes),
                amount(device.dma.written.bytes),
                device.refused
            );
        }
        for device in &self.devices {
            if !device.status.iter().any(|bit| bit == "DRIVER_OK") {
                let far = device.status.join(", ");
                let far = if far.is_empty() { "no driver took it" } else { &far };
                text += &format!("not driven: {} ({far})\n", device.name);
            }
            if let Some(why) = &device.features.refused_offer {
                text += &format!("FEATURES_OK refused by {}: {why}\n", device.name);
            }
            for refusal in &device.refusals {
                let queue = refusal.queue.map_or_else(String::new, |queue| format!(" queue {queue},"));
                text += &format!(
                    "refused {}:{queue} {} at {:#x}, {} bytes: {} ({} times)\n",
                    device.name,
                    refusal.structure,
                    refusal.address,
                    refusal.length,
                    refusal.reason,
                    refusal.count
                );
            }
        }
        text + &format!("addresses and chains refused in total: {}\n", self.refused)
    }
}

/// How many of the device's rings lie in its pool, and where the lowest is.
fn rings(device: &Device, pools: &[Pool]) -> String {
    let rings = || {
        let of_queue = |queue: &Queue| [queue.descriptor_table, queue.available_ring, queue.used_ring];
        device.queues.iter().flat_map(of_queue)
    };
    let Some(lowest) = rings().min() else { return "none set up".to_owned() };
    let shared = || pools.iter().find(|pool| pool.name == device.pool).map(|pool| (pool.base, pool.size));
    let pool = device.device_memory.as_ref().map(|own| (own.base, own.size)).or_else(shared);
    let inside = |ring: u64| pool.is_some_and(|(base, size)| (base..base + size).contains(&ring));
    let count = rings().filter(|&ring| inside(ring)).count();
    format!("{count} of {}, from {lowest:#x}", rings().count())
}

fn amount(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_outside_the_pool_shows() {
        let queue = |ring: u64| {
            serde_json::json!({ "index": 0, "size": 256, "descriptor_table": ring, "available_ring": 0x1100_0000,
                                "used_ring": 0x1100_1000 })
        };
        let report: Report = serde_json::from_value(serde_json::json!({
            "outcome": { "kind": "powered-off", "exit_code": 0, "detail": "the guest powered off" },
            "memory": { "total": 0x2000_0000, "enforcement": "type system",
                        "pools": [{ "name": "pool", "base": 0x1000_0000, "size": 0x400_0000 }] },
            "devices": [{
                "name": "blk0", "kind": "blk", "transport": "mmio", "pool": "pool", "status": ["ACKNOWLEDGE", "DRIVER"],
                "queues": [queue(0x1200_0000), queue(0x9000)],
                "dma": { "read": { "accesses": 1, "bytes": 512 }, "written": { "accesses": 1, "bytes": 20480 } },
                "features": { "refused_offer": "the driver did not accept RESTRICTED_DMA" },
                "refused": 3,
                "refusals": [{ "queue": 1, "structure": "descriptor-table", "address": 0x9000, "length": 4096,
                               "reason": "outside the pool", "count": 3 }],
            }],
            "refused": 3,
        }))
        .unwrap();
        let table = report.table();
        assert!(table.contains("0x10000000 to 0x14000000, 64 MiB of the guest's 512 MiB"), "{table}");
        assert!(table.contains("blk0    blk   mmio       pool  5 of 6, from 0x9000"), "{table}");
        assert!(table.contains("512 B") && table.contains("20 KiB"), "{table}");
        let refusal =
            "refused blk0: queue 1, descriptor-table at 0x9000, 4096 bytes: outside the pool (3 times)";
        assert!(table.contains(refusal), "{table}");
        let offer = "FEATURES_OK refused by blk0: the driver did not accept RESTRICTED_DMA";
        assert!(table.contains(offer), "{table}");
        assert!(table.contains("\nnot driven: blk0 (ACKNOWLEDGE, DRIVER)\n"), "{table}");
    }

    /// `--spec rfc` on PCI.
    #[test]
    fn memory_of_a_device_is_its_pool() {
        let dma = serde_json::json!({ "read": { "bytes": 0 }, "written": { "bytes": 0 } });
        let queue = |ring: u64| serde_json::json!({ "descriptor_table": ring, "available_ring": ring, "used_ring": ring });
        let report: Report = serde_json::from_value(serde_json::json!({
            "outcome": { "kind": "powered-off", "detail": "the guest powered off" },
            "memory": { "total": 0x2000_0000, "enforcement": "type system", "pools": [] },
            "devices": [{
                "name": "rng0", "kind": "rng", "transport": "pci", "pool": "rng0 device memory", "status": ["DRIVER_OK"],
                "device_memory": { "base": 0xcfe0_0000_u64, "size": 0x20_0000 },
                "queues": [queue(0xcfe0_0000), queue(0xd000_0000)], "dma": dma,
                "features": { "refused_offer": null }, "refused": 0, "refusals": [],
            }],
            "refused": 0,
        }))
        .unwrap();
        let table = report.table();
        assert!(table.contains("\nrng0 device memory 0xcfe00000 to 0xd0000000, 2 MiB\n"), "{table}");
        assert!(table.contains("pci        rng0 device memory  3 of 6, from 0xcfe00000"), "{table}");
        assert!(!table.contains("not driven"), "{table}");
    }

    #[test]
    fn a_run_without_a_machine_has_no_table() {
        let refused = r#"{"outcome": {"kind": "vmm-error", "exit_code": 2, "detail": "x"}, "memory": null,
                          "devices": [], "refused": 0}"#;
        assert_eq!(serde_json::from_str::<Report>(refused).unwrap().table(), "");
    }
}
