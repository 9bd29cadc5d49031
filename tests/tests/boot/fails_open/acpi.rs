// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Told by ACPI, which a stock kernel has no pools from (`grid`): what the patched kernel makes of a DSDT that is wrong.

use cvmm_tests::host::Host;

use super::{FAILED, Machine, NOT_PROBED, PLAN, Told, assert_not_driven, with};
use crate::dsdt::replaced;
use crate::guest::{Guest, MIB};

/// First pool, its size, and memory that is no pool.
const POOL: u64 = 64 * MIB;
const SIZE: u64 = 8 * MIB;
const ELSEWHERE: u64 = 80 * MIB;

/// The disk's reference to the pool P000 of this transport, as iasl writes it.
const REFERENCE: &str = "\\_SB.P000";

fn refused(transport: &str, edit: &dyn Fn(&str) -> String, line: &str, status: &[&str]) {
    let host = Host::shared();
    let machine = Machine { host: &host, transport, more: two_pools };
    assert_not_driven(&machine.patched(&Told::Dsdt(edit)), line, status);
}

fn two_pools(guest: Guest<'_>) -> Guest<'_> {
    let guest = with(guest.firmware("acpi"), &PLAN).pool(SIZE, Some(POOL));
    // The kernel itself is at the beginning of memory, and what it takes first.
    guest.more_pool("other", 2 * MIB, None).word("nokaslr")
}

/// The default pool is no fallback for a device that names one.
#[test]
fn the_wrong_pool_by_acpi() {
    for transport in ["mmio", "pci"] {
        let other = |source: &str| replaced(source, REFERENCE, "\\_SB.P001");
        refused(transport, &other, "device names restricted DMA pool", &FAILED);
    }
}

#[test]
fn a_pool_that_nothing_reserves_by_acpi() {
    let moved = |source: &str| {
        let source = replaced(source, &number(POOL), &number(ELSEWHERE));
        replaced(&source, &number(POOL + SIZE - 1), &number(ELSEWHERE + SIZE - 1))
    };
    refused("pci", &moved, "isn't RAM that is reserved", &NOT_PROBED);
}

#[test]
fn a_pool_of_no_whole_pages() {
    let half = |source: &str| {
        let source = replaced(source, &number(POOL), &number(POOL + 0x800));
        replaced(&source, &number(SIZE), &number(SIZE - 0x800))
    };
    refused("mmio", &half, "_CRS isn't one range of whole pages", &NOT_PROBED);
}

#[test]
fn a_pool_of_two_ranges() {
    let two = |source: &str| {
        let pool = source.find("Device (P000)").expect("it is there");
        let start = pool + source[pool..].find("QWordMemory").expect("its range");
        let end = start + source[start..].find("TypeStatic)").expect("its end") + "TypeStatic)".len();
        format!("{}{}\n{}", &source[..end], &source[start..end], &source[end..])
    };
    refused("mmio", &two, "_CRS isn't one range of whole pages", &NOT_PROBED);
}

/// A reference to what is not present is no reference to nothing.
#[test]
fn a_pool_that_is_not_present() {
    let absent = |source: &str| {
        replaced(
            source,
            "Device (P000)\n        {",
            "Device (P000)\n        {\n            Name (_STA, Zero)",
        )
    };
    refused("pci", &absent, "restricted DMA pool isn't usable", &NOT_PROBED);
}

#[test]
fn a_reference_to_a_number() {
    let zero = |source: &str| replaced(source, REFERENCE, "Zero");
    refused("pci", &zero, "restricted DMA pool isn't usable", &NOT_PROBED);
}

/// A number of 64 bits as iasl writes it.
fn number(number: u64) -> String {
    format!("0x{number:016X}")
}
