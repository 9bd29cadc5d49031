// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vCPU state: CPUID, MSRs, and the boot processor's registers at the kernel's 64-bit entry.

use kvm_bindings::{CpuId, Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use super::boot::{Entry, ZERO_PAGE};
use super::cpuid::cpuid;
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
    vcpu.set_cpuid2(&cpuid(supported, apic_id, count)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// GDT entries decoded: a 64-bit code segment and a flat data segment.
    #[test]
    fn segments_are_those_of_the_boot_protocol() {
        let (code, data) = (segment(2, 0x10), segment(3, 0x18));
        assert_eq!((code.type_, code.s, code.present, code.l, code.db), (0xb, 1, 1, 1, 0));
        assert_eq!((data.type_, data.s, data.present, data.l, data.db), (0x3, 1, 1, 0, 1));
    }
}
