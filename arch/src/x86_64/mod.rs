// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! x86_64: a machine without 8259 and PIT, described by a device tree or by ACPI.

pub mod boot;
pub mod cpu;
mod cpuid;
pub mod ioapic;
pub mod irq;
mod kernel;
pub mod layout;
mod page_tables;
mod setup_data;

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap};
use kvm_ioctls::{Cap, VmFd};

/// Where KVM keeps three pages that real mode needs on Intel CPUs, below the reset vector and above every device.
const TSS: usize = 0xfffb_d000;

/// KVM capabilities that a guest of this architecture needs, with their names.
pub const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER"),
];

/// Gives a new VM its interrupt controllers: local APICs in KVM, the I/O APIC in this crate. Before any vCPU.
pub fn create_irqchip(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    vm.set_tss_address(TSS)?;
    let pins = u64::from(layout::IO_APIC_PINS);
    vm.enable_cap(&kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, args: [pins, 0, 0, 0], ..Default::default() })
}
