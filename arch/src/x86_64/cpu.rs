// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vCPU state: what CPUID says, and the boot processor's registers at the kernel's 64-bit entry.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, Msrs, kvm_cpuid_entry2, kvm_fpu, kvm_msr_entry, kvm_regs,
    kvm_segment,
};
use kvm_ioctls::VcpuFd;

use super::boot::{Entry, ZERO_PAGE};
use super::page_tables;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 2;
/// A stack that the entry code may use; it sets up its own at once.
const STACK: u64 = ZERO_PAGE - 8;

const MSR_MISC_ENABLE: u32 = 0x1a0;
/// Fast string operations, as firmware leaves them.
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, default type write-back, as firmware leaves them.
const MTRR_ENABLE_WRITE_BACK: u64 = 1 << 11 | 6;

/// Extended topology (Intel SDM 2A, CPUID leaf 0xb).
const EXTENDED_TOPOLOGY: u32 = 0xb;
/// All leaves that list levels of topology.
const TOPOLOGY_LEAVES: [u32; 3] = [EXTENDED_TOPOLOGY, 0x1f, 0x8000_0026];

const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;

/// Local APIC identifiers of `count` CPUs, the boot processor's first.
pub fn apic_ids(count: u8) -> Vec<u32> {
    (0..u32::from(count)).collect()
}

/// Makes vCPU `apic_id` of `count` ready to run; the boot processor (0) at `entry`, the others wait for their start-up
/// interrupt. `supported` is what KVM says it supports.
pub fn configure(
    vcpu: &VcpuFd,
    supported: &CpuId,
    apic_id: u8,
    count: u8,
    entry: Entry,
) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_cpuid2(&cpuid(supported, apic_id, count))?;
    let msrs = [(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING), (MSR_MTRR_DEF_TYPE, MTRR_ENABLE_WRITE_BACK)]
        .map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() });
    // KVM sets as many as it knows; these two are conveniences.
    if let Ok(msrs) = Msrs::from_entries(&msrs) {
        vcpu.set_msrs(&msrs)?;
    }
    vcpu.set_fpu(&kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() })?;
    if apic_id == 0 { boot_registers(vcpu, entry) } else { Ok(()) }
}

/// boot.rst, "64-bit BOOT PROTOCOL": long mode, flat segments, RSI at the zero page, interrupts off.
fn boot_registers(vcpu: &VcpuFd, Entry(entry): Entry) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_regs(&kvm_regs {
        rip: entry,
        rsi: ZERO_PAGE,
        rsp: STACK,
        rbp: STACK,
        rflags: RFLAGS,
        ..Default::default()
    })?;
    let mut sregs = vcpu.get_sregs()?;
    let data = segment(3, 0x18);
    (sregs.cs, sregs.tr) = (segment(2, 0x10), segment(4, 0x20));
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = page_tables::GDT;
    sregs.gdt.limit = page_tables::GDT_LIMIT;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = page_tables::PML4;
    sregs.cr4 |= CR4_PAE;
    sregs.efer |= EFER_LME | EFER_LMA;
    vcpu.set_sregs(&sregs)
}

/// The segment register that holds GDT entry `index`, decoded (Intel SDM 3A, 3.4.5).
fn segment(index: usize, selector: u16) -> kvm_segment {
    let entry = page_tables::GDT_ENTRIES[index];
    let bit = |n: u32| (entry >> n & 1) as u8;
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: (entry >> 40 & 0xf) as u8,
        s: bit(44),
        dpl: (entry >> 45 & 3) as u8,
        present: bit(47),
        avl: bit(52),
        l: bit(53),
        db: bit(54),
        g: bit(55),
        ..Default::default()
    }
}

/// What KVM supports, with one package of `count` single-threaded cores, of which this is `apic_id`.
fn cpuid(supported: &CpuId, apic_id: u8, count: u8) -> CpuId {
    let (id, cores) = (u32::from(apic_id), u32::from(count));
    // Bits of an APIC ID that number the cores of the package.
    let core_bits = cores.next_power_of_two().ilog2();
    // The host's topology is not the guest's. KVM tells one level of it or none: ours has threads of a core, cores of
    // the package, and the end.
    let levels = [(0, 1, 1 << 8), (core_bits, cores, 2 << 8 | 1), (0, 0, 2)];
    let topology = (0..).zip(levels).map(|(index, (eax, ebx, ecx))| kvm_cpuid_entry2 {
        function: EXTENDED_TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx,
        edx: id,
        ..Default::default()
    });
    let others = supported.as_slice().iter().filter(|entry| !TOPOLOGY_LEAVES.contains(&entry.function));
    let entries: Vec<_> = others.copied().chain(topology).collect();
    let mut cpuid = CpuId::from_entries(&entries).unwrap_or_else(|_| supported.clone());
    for entry in cpuid.as_mut_slice() {
        match (entry.function, entry.index) {
            (1, _) => {
                entry.ebx = entry.ebx & 0xffff | cores << 16 | id << 24;
                // KVM leaves the timer bit out of what it reports, though it has the timer.
                entry.ecx |= LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
                entry.edx = if cores > 1 { entry.edx | LEAF1_EDX_HTT } else { entry.edx & !LEAF1_EDX_HTT };
            }
            // Deterministic cache parameters: cores of the package, less one; no cache is shared.
            (4, _) => entry.eax = entry.eax & 0x3fff | (cores - 1).min(0x3f) << 26,
            // AMD: cores of the package less one, and the bits that number them.
            (0x8000_0008, _) => entry.ecx = core_bits << 12 | (cores - 1),
            (0x8000_001e, _) => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
            _ => {}
        }
    }
    cpuid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, eax: 7, ebx: 7, ecx: 7, edx: 7, ..Default::default() }
    }

    /// A host that tells one level of its own topology: the guest has its own, to the end.
    #[test]
    fn the_guest_has_one_package() {
        let host = [entry(0, 0), entry(1, 0), entry(0xb, 0), entry(0x1f, 0), entry(0x8000_0026, 0)];
        let cpuid = cpuid(&CpuId::from_entries(&host).unwrap(), 2, 3);
        let leaves: Vec<_> =
            cpuid.as_slice().iter().map(|e| (e.function, e.index, e.eax, e.ebx, e.ecx, e.edx)).collect();
        assert_eq!(leaves[0], (0, 0, 7, 7, 7, 7));
        assert_eq!((leaves[1].3 >> 24, leaves[1].3 >> 16 & 0xff, leaves[1].5 >> 28 & 1), (2, 3, 1));
        assert_eq!(leaves[2..], [(0xb, 0, 0, 1, 0x100, 2), (0xb, 1, 2, 3, 0x201, 2), (0xb, 2, 0, 0, 2, 2)]);
    }

    /// GDT entries decoded: a 64-bit code segment and a flat data segment.
    #[test]
    fn segments_are_those_of_the_boot_protocol() {
        let (code, data) = (segment(2, 0x10), segment(3, 0x18));
        assert_eq!((code.type_, code.s, code.present, code.l, code.db), (0xb, 1, 1, 1, 0));
        assert_eq!((data.type_, data.s, data.present, data.l, data.db), (0x3, 1, 1, 0, 1));
    }
}
