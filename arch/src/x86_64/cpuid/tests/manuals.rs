// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What each leaf says by itself, to a guest that knows no other: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.

use super::table::{Table, bits};

/// Asserts that CPU `id` is one of `count` single-threaded cores by every leaf that it has, and that reserved bits are zeros.
pub fn check(table: &Table, id: u32, count: u32, context: &str) {
    let amd = table.vendor() != *b"Genu";
    let leaf = |function| table.leaf(function, 0);

    // The largest numbers cover all leaves.
    for entry in table.0.as_slice() {
        let last = match entry.function {
            0x4000_0000..0x8000_0000 => continue,
            function => leaf(function & 0x8000_0000)[0],
        };
        assert!(entry.function <= last, "{context}: leaf {:#x} is past {last:#x}", entry.function);
    }

    let [_, ebx, _, edx] = leaf(1);
    let several = edx >> 28 & 1 == 1;
    assert_eq!(ebx >> 24, id, "{context}: initial APIC ID");
    assert_eq!(several, count > 1, "{context}: HTT");
    assert_eq!(ebx >> 16 & 0xff, count, "{context}: logical processors of leaf 1");

    for function in [0xb, 0x1f] {
        if table.lists(function) || function == 0xb {
            levels(table, function, id, count, context);
        }
    }
    assert!(!table.lists(0x8000_0026), "{context}");
    if amd {
        amd_leaves(table, id, count, context);
    } else {
        let cmp_legacy = leaf(0x8000_0001)[2] & 2;
        assert_eq!((cmp_legacy, leaf(0x8000_0008)[2]), (0, 0), "{context}: reserved on Intel");
        assert!(table.lists(4), "{context}");
    }
    for function in [4, 0x8000_001d] {
        caches(table, function, count, context);
    }
}

fn levels(table: &Table, function: u32, id: u32, count: u32, context: &str) {
    let context = format!("{context}, leaf {function:#x}");
    let level = |index| table.leaf(function, index);
    let [shift, threads, kind, _] = level(0);
    assert_eq!((shift, threads, kind), (0, 1, 0x100), "{context}: threads of a core");
    let [shift, cores, kind, _] = level(1);
    assert_eq!((shift, cores, kind), (bits(count), count, 0x201), "{context}: cores of the package");
    for index in 2..5 {
        assert_eq!(level(index)[..3], [0, 0, index], "{context}: past the end");
    }
    assert!((0..5).all(|index| level(index)[3] == id), "{context}: APIC ID");
}

fn amd_leaves(table: &Table, id: u32, count: u32, context: &str) {
    let [_, _, features, _] = table.leaf(0x8000_0001, 0);
    assert_eq!(features >> 1 & 1 == 1, count > 1, "{context}: CmpLegacy goes with HTT");

    let [_, _, ecx, _] = table.leaf(0x8000_0008, 0);
    assert_eq!((ecx & 0xff) + 1, count, "{context}: NC");
    assert_eq!(ecx >> 12 & 0xf, bits(count), "{context}: ApicIdSize");
    assert_eq!(ecx & !0xf0ff, 0, "{context}: reserved bits of leaf 0x80000008");

    let extensions = features >> 22 & 1 == 1;
    if extensions {
        assert!(table.lists(0x8000_001d) && table.lists(0x8000_001e), "{context}: promised leaves");
        let [apic_id, ebx, ecx, edx] = table.leaf(0x8000_001e, 0);
        assert_eq!((apic_id, ebx & 0xff), (id, id), "{context}: extended APIC ID and core");
        assert_eq!(ebx >> 8, 0, "{context}: one thread; reserved bits");
        assert_eq!((ecx, edx), (0, 0), "{context}: node 0 of one; reserved bits");
    }
    assert_eq!(table.leaf(4, 0), [0; 4], "{context}: leaf 4 is reserved");
}

fn caches(table: &Table, function: u32, count: u32, context: &str) {
    let all = (0..16).map(|index| table.leaf(function, index)).take_while(|leaf| leaf[0] & 0x1f != 0);
    for (index, [eax, ..]) in all.enumerate() {
        let context = format!("{context}, leaf {function:#x}, cache {index}: {eax:#x}");
        let own = eax >> 5 & 7 < 3;
        assert_eq!((eax >> 14 & 0xfff) + 1, if own { 1 } else { count }, "{context}: sharing");
        assert_eq!(eax >> 10 & 0xf, 0, "{context}: reserved bits");
        // Six bits can't number more cores than 64.
        let cores = if function == 4 { count.min(64) } else { 1 };
        assert_eq!((eax >> 26) + 1, cores, "{context}: cores of the package, or reserved bits");
    }
}
