// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A CPU that answers from its table.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// What KVM was given for a vCPU.
#[derive(Debug)]
pub struct Table(pub CpuId);

impl Table {
    /// What KVM answers: the first entry that fits, else zeros; but the extended topology has an answer for every index.
    pub fn leaf(&self, function: u32, index: u32) -> [u32; 4] {
        let registers = |entry: &kvm_cpuid_entry2| [entry.eax, entry.ebx, entry.ecx, entry.edx];
        if let Some(entry) = self.entry(function, index) {
            return registers(entry);
        }
        match self.entry(function, 1) {
            Some(entry) if matches!(function, 0xb | 0x1f) => [0, 0, index & 0xff, entry.edx],
            _ => [0; 4],
        }
    }

    fn entry(&self, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        let fits = |entry: &&kvm_cpuid_entry2| {
            let any_index = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX == 0;
            entry.function == function && (any_index || entry.index == index)
        };
        self.0.as_slice().iter().find(fits)
    }

    pub fn lists(&self, function: u32) -> bool {
        self.0.as_slice().iter().any(|entry| entry.function == function)
    }

    /// The first four letters of the vendor's name.
    pub fn vendor(&self) -> [u8; 4] {
        self.leaf(0, 0)[1].to_le_bytes()
    }

    /// Family and model, as makers count them.
    pub fn family_and_model(&self) -> (u32, u32) {
        let eax = self.leaf(1, 0)[0];
        let family = eax >> 8 & 0xf;
        let model = eax >> 4 & 0xf;
        match family {
            0xf => (family + (eax >> 20 & 0xff), model | eax >> 12 & 0xf0),
            6 => (family, model | eax >> 12 & 0xf0),
            _ => (family, model),
        }
    }
}

/// Bits that it takes to tell `count` things apart.
pub fn bits(count: u32) -> u32 {
    count.next_power_of_two().ilog2()
}
