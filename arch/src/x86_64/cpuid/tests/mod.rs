// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Hosts of both makes, and 1 to 254 CPUs: what Linux makes of them, and what each leaf says by itself.

mod hosts;
mod linux;
mod manuals;
mod recorded;
mod table;

use kvm_bindings::CpuId;

use super::*;
use hosts::{Host, L3};
use table::Table;

/// One, two, not a power of two, as many as the lab's kernel knows, past leaf 4's largest number, all.
const COUNTS: [u8; 8] = [1, 2, 3, 6, 8, 65, 128, 254];

/// The tables of all CPUs of a guest.
fn guest(host: &CpuId, count: u8) -> Vec<Table> {
    (0..count).map(|id| Table(cpuid(host, id, count).unwrap())).collect()
}

/// Their APIC IDs, as the machine's description has them.
fn ids(tables: &[Table]) -> Vec<u32> {
    (0..).zip(tables).map(|(id, _)| id).collect()
}

fn for_each(check: impl Fn(&Host, u8, &[Table])) {
    for host in hosts::all() {
        for count in COUNTS {
            check(&host, count, &guest(&host.cpuid, count));
        }
    }
}

#[test]
fn linux_sees_one_package_of_cores_and_one_l3() {
    for_each(|host, count, tables| {
        let context = format!("{}, {count} CPUs", host.name);
        let cpus = linux::read(tables, &ids(tables)).unwrap_or_else(|error| panic!("{context}: {error}"));
        let all: Vec<usize> = (0..count.into()).collect();
        for (own, cpu) in cpus.iter().enumerate() {
            let context = format!("{context}, CPU {own}: {cpu:?}");
            assert_eq!(
                (cpu.package, cpu.die, cpu.node, cpu.core),
                (0, 0, 0, u32::try_from(own).unwrap()),
                "{context}"
            );
            assert_eq!((cpu.threads_per_core, cpu.cores_per_package), (1, all.len()), "{context}");
            assert_eq!(cpu.of_core, [own], "{context}");
            assert_eq!(cpu.of_package, all, "{context}");
            let shared = match host.l3 {
                L3::OfPackage | L3::NotShown => all.clone(),
                // What Linux knows of Zen 1 and Hygon without asking.
                L3::OfEight => all.iter().copied().filter(|other| other / 8 == own / 8).collect(),
                L3::Without => vec![own],
            };
            assert_eq!(cpu.of_last_cache, shared, "{context}");
            let levels: Vec<_> = cpu.caches.iter().map(|cache| cache.level).collect();
            let shown: &[u32] = match host.l3 {
                L3::OfPackage | L3::OfEight => &[1, 1, 2, 3],
                L3::Without => &[1, 1, 2],
                L3::NotShown => &[],
            };
            assert_eq!(levels, shown, "{context}");
            for cache in &cpu.caches {
                assert_eq!(cache.cpus, if cache.level < 3 { vec![own] } else { shared.clone() }, "{context}");
            }
        }
    });
}

#[test]
fn each_leaf_says_the_same() {
    for_each(|host, count, tables| {
        for (id, table) in (0..).zip(tables) {
            manuals::check(table, id, count.into(), &format!("{}, CPU {id} of {count}", host.name));
        }
    });
}

/// No leaf beyond those of the topology changes; none appears twice, or with an index that KVM would overlook.
#[test]
fn all_else_is_what_kvm_supports() {
    const CHANGED: [u32; 10] =
        [0, 1, 4, 0xb, 0x1f, 0x8000_0001, 0x8000_0008, 0x8000_001d, 0x8000_001e, 0x8000_0026];
    let others = |cpuid: &CpuId| -> Vec<_> {
        let others = cpuid.as_slice().iter().filter(|entry| !CHANGED.contains(&entry.function));
        others.copied().collect()
    };
    for_each(|host, _, tables| {
        for Table(cpuid) in tables {
            assert_eq!(others(cpuid), others(&host.cpuid), "{}", host.name);
            let mut keys: Vec<_> =
                cpuid.as_slice().iter().map(|entry| (entry.function, entry.index)).collect();
            keys.sort_unstable();
            assert!(keys.is_sorted_by(|a, b| a < b), "{}: {keys:x?}", host.name);
            for entry in cpuid.as_slice() {
                let indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
                assert_eq!(indexed, hosts::is_indexed(entry.function), "{}: {entry:x?}", host.name);
            }
        }
    });
}

/// Written out, for the host whose caches are shared by 2 and 16 threads: CPU 2 of 3.
#[test]
fn a_host_of_amd_bit_by_bit() {
    let table = Table(cpuid(&hosts::genoa(), 2, 3).unwrap());
    let [_, ebx, _, edx] = table.leaf(1, 0);
    assert_eq!((ebx >> 16, edx >> 28 & 1), (0x0203, 1));
    assert_eq!(
        [0, 1, 2].map(|index| table.leaf(0xb, index)),
        [[0, 1, 0x100, 2], [2, 3, 0x201, 2], [0, 0, 2, 2]]
    );
    assert_eq!(table.leaf(0x8000_0008, 0)[2], 0x2002);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|index| table.leaf(0x8000_001d, index)[0]),
        [0x121, 0x122, 0x143, 0x8163, 0]
    );
    assert_eq!(table.leaf(0x8000_001e, 0), [2, 2, 0, 0]);
    assert_eq!(table.leaf(0x8000_0026, 0), [0; 4]);
}

/// The same of Intel, where the bits of AMD are reserved.
#[test]
fn a_host_of_intel_bit_by_bit() {
    let table = Table(cpuid(&hosts::sapphire_rapids(), 2, 3).unwrap());
    assert_eq!(
        [0, 1, 2, 3, 4].map(|index| table.leaf(4, index)[0]),
        [0x0800_0121, 0x0800_0122, 0x0800_0143, 0x0800_8163, 0]
    );
    assert_eq!(table.leaf(0x1f, 1), [2, 3, 0x201, 2]);
    assert_eq!((table.leaf(0x8000_0001, 0)[2], table.leaf(0x8000_0008, 0)[2]), (0x121, 0));
}

/// The reader sees what Linux saw on other machines: with threads, dies and packages.
#[test]
fn the_reader_reads_as_linux_does() {
    let machines = recorded::machines();
    assert_eq!(machines.len(), 4);
    for machine in machines {
        let ids: Vec<_> = machine.tables.iter().map(|table| table.leaf(1, 0)[1] >> 24).collect();
        let cpus = linux::read(&machine.tables, &ids).unwrap();
        let seen: Vec<_> = cpus.iter().map(recorded::line).collect();
        assert_eq!(seen, machine.lines, "{}", machine.name);
    }
}

/// The reader is not blind: it tells a guest with the host's leaves from one with its own.
#[test]
fn linux_would_notice_the_hosts_leaves() {
    let host = hosts::genoa();
    let with_leaf = |function| {
        let table = |id| {
            let guest = cpuid(&host, id, 3).unwrap();
            let others = guest.as_slice().iter().filter(|entry| entry.function != function);
            let hosts = host.as_slice().iter().filter(|entry| entry.function == function);
            Table(CpuId::from_entries(&others.chain(hosts).copied().collect::<Vec<_>>()).unwrap())
        };
        linux::read(&[table(0), table(1), table(2)], &[0, 1, 2])
    };
    let caches = with_leaf(0x8000_001d).unwrap();
    assert_eq!(caches[0].caches[0].cpus, [0, 1]);
    assert!(with_leaf(1).is_err() && with_leaf(0xb).is_err());
}
