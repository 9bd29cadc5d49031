// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What tests that run a guest of a few bytes share.

/// jmp to itself.
pub const LOOP: &[u8] = &[0xeb, 0xfe];

/// An ELF kernel that is `code`.
pub fn elf(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x200];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86_64
    put(24, &0x20_0000u64.to_le_bytes()); // entry
    put(32, &64u64.to_le_bytes()); // program headers
    put(52, &[64, 0, 56, 0, 1, 0]);
    put(64, &[1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD
    let len = code.len() as u64;
    for (at, value) in [(72, 0x200), (80, 0x20_0000), (88, 0x20_0000), (96, len), (104, len), (112, 0x1000)] {
        put(at, &value.to_le_bytes());
    }
    image.extend(code);
    image
}
