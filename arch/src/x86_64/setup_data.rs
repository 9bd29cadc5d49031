// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The chain of setup_data (Linux, Documentation/arch/x86/boot.rst): the device tree, and the reservation of pools.

use cvmm_firmware::Range;

const SETUP_DTB: u32 = 2;
const SETUP_INDIRECT: u32 = 1 << 31;

/// next, type, len.
const HEADER_LEN: usize = 16;

/// The chain as it stands at guest-physical `at`.
///
/// A kernel reserves what SETUP_INDIRECT points at and keeps it mapped, whether it understands pools or not. That is
/// what a pool needs: x86 kernels do not reserve what the device tree's /reserved-memory says, an e820 reserved range
/// would not be mapped, and plain e820 RAM would be given out.
/// Without a device tree (ACPI) the reservations are all there is.
pub(super) fn chain(at: u64, pools: &[Range], dtb: Option<&[u8]>) -> Vec<u8> {
    let mut entries = Vec::new();
    for pool in pools {
        let mut indirect = Vec::with_capacity(24);
        // The type of what is pointed at: any that is not SETUP_INDIRECT itself.
        indirect.extend((SETUP_INDIRECT | 1).to_le_bytes());
        indirect.extend([0; 4]);
        indirect.extend(pool.size().to_le_bytes());
        indirect.extend(pool.base().to_le_bytes());
        entries.push((SETUP_INDIRECT, indirect));
    }
    entries.extend(dtb.map(|dtb| (SETUP_DTB, dtb.to_vec())));
    let mut chain = Vec::new();
    for (index, (kind, data)) in entries.iter().enumerate() {
        push(&mut chain, at, *kind, data, index + 1 == entries.len());
    }
    chain
}

fn push(chain: &mut Vec<u8>, at: u64, kind: u32, data: &[u8], last: bool) {
    let start = chain.len();
    let end = (start + HEADER_LEN + data.len()).next_multiple_of(8);
    let next = if last { 0 } else { at + end as u64 };
    chain.extend(next.to_le_bytes());
    chain.extend(kind.to_le_bytes());
    chain.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    chain.extend(data);
    chain.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// boot.rst, "struct setup_data" and "struct setup_indirect", read by offset.
    #[test]
    fn the_chain_reserves_each_pool_and_ends_with_the_device_tree() {
        let pools = [Range::fixed(0x1000_0000, 0x40_0000), Range::fixed(1 << 33, 0x20_0000)];
        let dtb = [0xd0, 0x0d, 0xfe, 0xed, 1];
        let bytes = chain(0x2_0000, &pools, Some(&dtb));
        let mut at = 0;
        for pool in pools {
            assert_eq!((u32_at(&bytes, at + 8), u32_at(&bytes, at + 12)), (0x8000_0000, 24));
            assert_ne!(u32_at(&bytes, at + 16), 0x8000_0000);
            assert_eq!((u64_at(&bytes, at + 24), u64_at(&bytes, at + 32)), (pool.size(), pool.base()));
            at = usize::try_from(u64_at(&bytes, at) - 0x2_0000).unwrap();
        }
        assert_eq!((u64_at(&bytes, at), u32_at(&bytes, at + 8), u32_at(&bytes, at + 12)), (0, 2, 5));
        assert_eq!(bytes[at + 16..at + 21], dtb);
    }
}
