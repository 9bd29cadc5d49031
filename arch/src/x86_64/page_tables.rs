// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The page tables and segments that the 64-bit boot protocol asks for: the first 4 GiB, mapped to themselves.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// Guest-physical address of the PML4; the other tables follow it.
pub(super) const PML4: u64 = 0x9000;
const PDPT: u64 = PML4 + 0x1000;
const DIRECTORIES: u64 = PML4 + 0x2000;
/// End of the tables.
pub(super) const END: u64 = DIRECTORIES + 4 * 0x1000;

/// Guest-physical address of the GDT.
pub(super) const GDT: u64 = 0x500;
/// The GDT: null, unused, __BOOT_CS (0x10), __BOOT_DS (0x18), task state (boot.rst, "64-bit BOOT PROTOCOL").
pub(super) const GDT_ENTRIES: [u64; 5] =
    [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff];

/// Offset of the GDT's last byte.
pub(super) const GDT_LIMIT: u16 = 5 * 8 - 1;
const _: () = assert!(size_of::<[u64; 5]>() == GDT_LIMIT as usize + 1);

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;

/// Writes the tables and the GDT.
pub(super) fn write(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    memory.write_obj(GDT_ENTRIES, GuestAddress(GDT))?;
    memory.write_obj(PDPT | PRESENT_WRITABLE, GuestAddress(PML4))?;
    for gib in 0..4u64 {
        let directory = DIRECTORIES + gib * 0x1000;
        memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(PDPT + gib * 8))?;
        for page in 0..512u64 {
            let entry = (gib << 30 | page << 21) | PRESENT_WRITABLE | LARGE;
            memory.write_obj(entry, GuestAddress(directory + page * 8))?;
        }
    }
    Ok(())
}
