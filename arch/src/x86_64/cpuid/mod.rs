// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What CPUID says: what KVM supports, with the guest's topology and caches in the place of the host's.
//!
//! The guest has one package with one node, and in it `count` cores of one thread each. The first two levels of caches belong to
//! a core; a third one belongs to the package, as with QEMU and Firecracker. A scheduler expects that CPUs share their last
//! cache: Linux then needs fewer interrupts, which are exits, to wake a task of another CPU.
//!
//! KVM checks none of this. What it reports depends on its version: the host's topology, one empty level of it, or nothing.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

#[cfg(test)]
mod tests;

/// Extended topology of Intel and AMD (Intel SDM 2A, CPUID).
const TOPOLOGY: u32 = 0xb;
/// The same of Intel alone; a guest looks at it first. A CPU that has it has both.
const TOPOLOGY_V2: u32 = 0x1f;
/// The same of AMD alone. The guest does without, and then uses `TOPOLOGY`.
const TOPOLOGY_AMD: u32 = 0x8000_0026;
/// AMD's cores and nodes, which the feature bit `TOPOLOGY_EXTENSIONS` promises.
const CORES_AMD: u32 = 0x8000_001e;

const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
/// Leaf 0x80000001, ECX, AMD: what HTT counts are cores, not threads of one.
const CMP_LEGACY: u32 = 1 << 1;
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

/// The vendors (the first four letters) whose CPUs have AMD's leaves.
const AMD_VENDORS: [[u8; 4]; 2] = [*b"Auth", *b"Hygo"];

/// What the CPU with this APIC ID says, of `count` with the IDs 0 to `count - 1`.
pub(super) fn cpuid(supported: &CpuId, apic_id: u8, count: u8) -> Result<CpuId, kvm_ioctls::Error> {
    let (id, cores) = (u32::from(apic_id), u32::from(count));
    // Bits of an APIC ID that number the cores of the package.
    let core_bits = cores.next_power_of_two().ilog2();
    let supported = supported.as_slice();
    let lists = |function| supported.iter().any(|entry| entry.function == function);
    let is_amd = |entry: &kvm_cpuid_entry2| AMD_VENDORS.contains(&entry.ebx.to_le_bytes());
    let amd = supported.iter().any(|entry| entry.function == 0 && is_amd(entry));

    // Threads of a core, cores of the package, the end.
    let levels = [(0, 1, 1 << 8), (core_bits, cores, 2 << 8 | 1), (0, 0, 2)];
    let topology = [TOPOLOGY, TOPOLOGY_V2].into_iter().filter(|&leaf| leaf == TOPOLOGY || lists(leaf));
    let topology = topology.flat_map(|function| {
        (0..).zip(levels).map(move |(index, (eax, ebx, ecx))| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx,
            edx: id,
            ..Default::default()
        })
    });
    let is_topology = |function| [TOPOLOGY, TOPOLOGY_V2, TOPOLOGY_AMD].contains(&function);
    let others = supported.iter().filter(|entry| !is_topology(entry.function)).copied();
    let mut entries: Vec<_> = others.chain(topology).collect();
    for entry in &mut entries {
        match entry.function {
            0 => entry.eax = entry.eax.max(TOPOLOGY),
            1 => {
                entry.ebx = entry.ebx & 0xffff | cores << 16 | id << 24;
                // KVM leaves the timer bit out of what it reports, though it has the timer.
                entry.ecx |= LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
                entry.edx = with_bit(entry.edx, LEAF1_EDX_HTT, cores > 1);
            }
            // The field for the cores of the package is too small for more than 64: the extended topology tells of all.
            4 => entry.eax = cache(entry.eax, cores, (cores - 1).min(0x3f)),
            0x8000_0001 if amd => {
                entry.ecx = with_bit(entry.ecx, CMP_LEGACY, cores > 1);
                // Without its leaf, each CPU would say that it is the first one.
                let extensions = entry.ecx & TOPOLOGY_EXTENSIONS != 0 && lists(CORES_AMD);
                entry.ecx = with_bit(entry.ecx, TOPOLOGY_EXTENSIONS, extensions);
            }
            // Cores of the package less one, and the bits that number them.
            0x8000_0008 if amd => entry.ecx = core_bits << 12 | (cores - 1),
            // The upper bits are reserved.
            0x8000_001d => entry.eax = cache(entry.eax, cores, 0),
            // The APIC ID; the core's number, with one thread; node 0 of one.
            CORES_AMD => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (id, id, 0, 0),
            _ => {}
        }
    }
    CpuId::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
}

/// EAX of a cache: its kind and level stay; who shares it (less one) is the guest's, and so are the bits above.
fn cache(eax: u32, cores: u32, above: u32) -> u32 {
    let (kind, level) = (eax & 0x1f, eax >> 5 & 7);
    let sharing = if level < 3 { 1 } else { cores };
    // Kind 0 ends the list.
    if kind == 0 { eax } else { eax & 0x3fff | (sharing - 1) << 14 | above << 26 }
}

fn with_bit(register: u32, bit: u32, set: bool) -> u32 {
    if set { register | bit } else { register & !bit }
}
