// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What KVM reports on hosts of both makes: the leaves of topology and caches, and a few others.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

pub struct Host {
    pub name: &'static str,
    pub cpuid: CpuId,
    pub l3: L3,
}

/// Who shares it.
pub enum L3 {
    OfPackage,
    OfEight,
    Without,
    /// Linux shows no cache at all, but knows that there is an L3: KVM before Linux 6.6 does not report the first level.
    NotShown,
}

pub fn all() -> Vec<Host> {
    let host = |name, cpuid, l3| Host { name, cpuid, l3 };
    vec![
        host("Intel, KVM tells the host's topology", sapphire_rapids(), L3::OfPackage),
        host("Intel, KVM tells one level", one_level(&sapphire_rapids()), L3::OfPackage),
        host("Intel without extended topology and L3", core_2(), L3::Without),
        host("AMD, KVM tells the host's topology", genoa(), L3::OfPackage),
        host("AMD, KVM tells one level", one_level(&genoa()), L3::OfPackage),
        host("AMD, a virtual machine", nested_milan(), L3::OfPackage),
        host("AMD, topology extensions without their leaf", without(&genoa(), 0x8000_001e), L3::OfPackage),
        host("AMD without topology extensions", emulated(), L3::OfPackage),
        host("AMD, emulated", without(&emulated(), 0x8000_0005), L3::NotShown),
        host("AMD, Bulldozer", with_signature(&genoa(), 0x0060_0f20), L3::OfPackage),
        host("AMD, Zen 1", with_signature(&genoa(), 0x0080_0f12), L3::OfEight),
        host("Hygon", hygon(&genoa()), L3::OfEight),
    ]
}

/// Functions with several entries.
pub fn is_indexed(function: u32) -> bool {
    matches!(function, 4 | 7 | 0xb | 0xd | 0x1f | 0x8000_001d | 0x8000_0026)
}

type Entry = (u32, u32, [u32; 4]);

pub fn cpuid(entries: &[Entry]) -> CpuId {
    let entry = |&(function, index, [eax, ebx, ecx, edx]): &Entry| kvm_cpuid_entry2 {
        function,
        index,
        flags: if is_indexed(function) { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    CpuId::from_entries(&entries.iter().map(entry).collect::<Vec<_>>()).unwrap()
}

/// Two sockets of 56 cores with two threads each.
pub fn sapphire_rapids() -> CpuId {
    cpuid(&[
        (0, 0, [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        (1, 0, [0x0008_06f8, 0x4380_0800, 0xfffa_3203, 0x1f8b_fbff]),
        (2, 0, [0x00fe_ff01, 0xf0, 0, 0]),
        (4, 0, [0xfc00_4121, 0x02c0_003f, 0x3f, 0]),
        (4, 1, [0xfc00_4122, 0x01c0_003f, 0x3f, 0]),
        (4, 2, [0xfc00_4143, 0x03c0_003f, 0x7ff, 0]),
        (4, 3, [0xfc1f_c163, 0x0380_003f, 0x1_bfff, 4]),
        (4, 4, [0; 4]),
        (7, 0, [2, 0xf1bf_27ab, 0x1b41_5f6e, 0xbc81_4410]),
        (7, 1, [0x1c30, 0, 0, 0]),
        (0xb, 0, [1, 2, 0x100, 0x43]),
        (0xb, 1, [7, 112, 0x201, 0x43]),
        (0xb, 2, [0, 0, 2, 0x43]),
        (0x1f, 0, [1, 2, 0x100, 0x43]),
        (0x1f, 1, [7, 112, 0x201, 0x43]),
        (0x1f, 2, [0, 0, 2, 0x43]),
        (0x8000_0000, 0, [0x8000_0008, 0, 0, 0]),
        (0x8000_0001, 0, [0, 0, 0x121, 0x2c10_0800]),
        (0x8000_0006, 0, [0, 0, 0x0800_7040, 0]),
        (0x8000_0008, 0, [0x0034_3934, 0x0100_d200, 0, 0]),
        (0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
    ])
}

/// Two cores that share the second level of caches.
fn core_2() -> CpuId {
    cpuid(&[
        (0, 0, [0xa, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        (1, 0, [0x0001_067a, 0x0102_0800, 0x8028_2201, 0x1f8b_fbff]),
        (4, 0, [0x0400_0121, 0x01c0_003f, 0x3f, 1]),
        (4, 1, [0x0400_0122, 0x01c0_003f, 0x3f, 1]),
        (4, 2, [0x0400_4143, 0x05c0_003f, 0xfff, 1]),
        (4, 3, [0; 4]),
        (0x8000_0000, 0, [0x8000_0008, 0, 0, 0]),
        (0x8000_0001, 0, [0, 0, 1, 0x2010_0800]),
        (0x8000_0008, 0, [0x3028, 0, 0, 0]),
    ])
}

/// Two sockets of 96 cores with two threads each. Two threads share the first two levels of caches, 16 the third.
pub fn genoa() -> CpuId {
    cpuid(&[
        (0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (1, 0, [0x00a1_0f11, 0x43c0_0800, 0x7efa_3203, 0x178b_fbff]),
        (4, 0, [0; 4]),
        (7, 0, [1, 0xf1bf_97a9, 0x0040_5fce, 0x1000_0010]),
        (0xb, 0, [1, 2, 0x100, 0x43]),
        (0xb, 1, [8, 192, 0x201, 0x43]),
        (0xb, 2, [0, 0, 2, 0x43]),
        (0x8000_0000, 0, [0x8000_0028, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (0x8000_0001, 0, [0x00a1_0f11, 0x4000_0000, 0x0040_03f3, 0x2fd3_fbff]),
        (0x8000_0005, 0, [0xff48_ff40, 0xff48_ff40, 0x2008_0140, 0x2008_0140]),
        (0x8000_0006, 0, [0x5c00_2200, 0x6c00_4200, 0x0400_6140, 0x3000_9140]),
        (0x8000_0008, 0, [0x0030_3934, 0x791e_f257, 0x80bf, 0]),
        (0x8000_001d, 0, [0x4121, 0x01c0_003f, 0x3f, 0]),
        (0x8000_001d, 1, [0x4122, 0x01c0_003f, 0x3f, 0]),
        (0x8000_001d, 2, [0x4143, 0x01c0_003f, 0x7ff, 2]),
        (0x8000_001d, 3, [0x3_c163, 0x03c0_003f, 0x7fff, 1]),
        (0x8000_001d, 4, [0; 4]),
        (0x8000_001e, 0, [0x43, 0x0121, 1, 0]),
        (0x8000_0026, 0, [1, 2, 0x100, 0x43]),
        (0x8000_0026, 1, [4, 16, 0x201, 0x43]),
        (0x8000_0026, 2, [7, 96, 0x302, 0x43]),
        (0x8000_0026, 3, [8, 192, 0x403, 0x43]),
        (0x8000_0026, 4, [0, 0, 4, 0x43]),
    ])
}

/// As a machine in a cloud reported it: two threads share the third level of caches.
fn nested_milan() -> CpuId {
    cpuid(&[
        (0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (1, 0, [0x00a0_0f11, 0x0002_0800, 0x8120_2000, 0x078b_fbff]),
        (4, 0, [0; 4]),
        (7, 0, [0, 0x0180_0002, 4, 0xa800_0000]),
        (0xb, 0, [0; 4]),
        (0x8000_0000, 0, [0x8000_0022, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (0x8000_0001, 0, [0x00a0_0f11, 0x4000_0000, 0x0040_0393, 0x23d3_fbff]),
        (0x8000_0005, 0, [0xff40_ff40, 0xff40_ff40, 0x2008_0140, 0x2008_0140]),
        (0x8000_0006, 0, [0x4800_2200, 0x6800_4200, 0x0200_6140, 0x0800_9140]),
        (0x8000_0008, 0, [0x3030, 0x110a_d205, 0x7001, 0]),
        (0x8000_001d, 0, [0x0121, 0x01c0_003f, 0x3f, 0]),
        (0x8000_001d, 1, [0x0122, 0x01c0_003f, 0x3f, 0]),
        (0x8000_001d, 2, [0x0143, 0x01c0_003f, 0x3ff, 2]),
        (0x8000_001d, 3, [0x4163, 0x03c0_003f, 0x7fff, 1]),
        (0x8000_001d, 4, [0; 4]),
        (0x8000_001e, 0, [0; 4]),
    ])
}

/// As QEMU's emulation has it: family 15, with fewer leaves.
fn emulated() -> CpuId {
    cpuid(&[
        (0, 0, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (1, 0, [0x0006_0fb1, 0x0800, 0x8298_2203, 0x078b_fbff]),
        (4, 0, [0; 4]),
        (7, 0, [0, 0x009c_2fbb, 0, 0]),
        (0xb, 0, [0; 4]),
        (0x8000_0000, 0, [0x8000_000a, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (0x8000_0001, 0, [0x0006_0fb1, 0, 0x71, 0x2cd3_fbff]),
        (0x8000_0005, 0, [0x01ff_01ff, 0x01ff_01ff, 0x4002_0140, 0x4002_0140]),
        (0x8000_0006, 0, [0, 0x4200_4200, 0x0200_8140, 0x0080_8140]),
        (0x8000_0008, 0, [0x3028, 0, 0, 0]),
    ])
}

/// With the entries of topology that KVM reports since Linux 6.2.
fn one_level(host: &CpuId) -> CpuId {
    let mut entries = host.as_slice().to_vec();
    entries.retain(|entry| !matches!(entry.function, 0xb | 0x1f) || entry.index == 0);
    for entry in &mut entries {
        match entry.function {
            0xb | 0x1f => (entry.eax, entry.ebx, entry.ecx) = (0, 0, 0),
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            _ => {}
        }
    }
    CpuId::from_entries(&entries).unwrap()
}

fn without(host: &CpuId, function: u32) -> CpuId {
    let mut entries = host.as_slice().to_vec();
    entries.retain(|entry| entry.function != function);
    CpuId::from_entries(&entries).unwrap()
}

/// Another family and model.
fn with_signature(host: &CpuId, signature: u32) -> CpuId {
    let mut host = host.clone();
    host.as_mut_slice()
        .iter_mut()
        .filter(|entry| entry.function == 1)
        .for_each(|entry| entry.eax = signature);
    host
}

fn hygon(host: &CpuId) -> CpuId {
    let mut host = with_signature(host, 0x0090_0f11);
    for entry in host.as_mut_slice().iter_mut().filter(|entry| matches!(entry.function, 0 | 0x8000_0000)) {
        (entry.ebx, entry.ecx, entry.edx) = (0x6f67_7948, 0x656e_6975, 0x6e65_476e);
    }
    host
}
