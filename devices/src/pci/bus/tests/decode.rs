// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a BAR answers (PCI 3.0, 6.2.2 and 6.2.5).

use super::*;

const MEMORY: u64 = 2;

impl Bench {
    fn command(&self, device: u64, command: u64) {
        self.set_ecam(device, 4, 2, command);
    }

    /// 6.2.5.1: a 64-bit BAR is two registers.
    fn place(&self, device: u64, base: u64) {
        self.set_ecam(device, 0x10, 4, base & 0xffff_ffff);
        self.set_ecam(device, 0x14, 4, base >> 32);
    }

    fn answers(&self, address: u64) -> Option<u64> {
        Some(read(&self.memory, address, 1)).filter(|byte| *byte != 0xff)
    }
}

/// 6.2.2: Memory Space is clear after a reset, and while it is the function does not answer.
#[test]
fn a_bar_answers_while_memory_space_is_enabled() {
    let bench = Bench::new(&[1, 2]);
    let base = 0xc000_1000;
    assert_eq!(bench.answers(base), None);
    for command in [0, 1, 4, 0x400, 0xfffd] {
        bench.command(1, command);
        assert_eq!(bench.answers(base), None, "{command:#x}");
        write(&bench.memory, base, 4, 0);
    }
    assert_eq!(bench.functions[0].take_written(), []);
    bench.command(1, MEMORY);
    for (address, answer) in
        [(base - 1, None), (base, Some(1)), (base + 0xfff, Some(1)), (base + 0x1000, None)]
    {
        assert_eq!(bench.answers(address), answer, "{address:#x}");
    }
    write(&bench.memory, base + 0x123, 2, 0xabcd);
    assert_eq!(bench.functions[0].take_written(), [(0x123, vec![0xcd, 0xab])]);
    bench.command(1, 0);
    assert_eq!(bench.answers(base), None);
}

/// An access is the BAR's if all of it is.
#[test]
fn an_access_across_the_end_of_a_bar_is_nobodys() {
    let bench = Bench::new(&[1, 2]);
    bench.command(1, MEMORY);
    bench.command(2, MEMORY);
    for address in [0xc000_0fff, 0xc000_1ffe, 0xc000_2fff] {
        assert_eq!(read(&bench.memory, address, 4), ones(4), "{address:#x}");
        write(&bench.memory, address, 4, 0);
    }
    assert!(bench.functions.iter().all(|function| function.take_written().is_empty()));
}

/// 6.2.5.1: ones are written, and the bits that stay zero tell the size; the low bits say memory, 64
/// bits, not prefetchable.
#[test]
fn a_bar_is_sized_with_ones() {
    let bench = Bench::new(&[1]);
    assert_eq!(bench.ecam(1, 0, 0x10, 4), 0xc000_1004);
    for (offset, size) in [(0x10, 0xffff_f004), (0x14, 0xffff_ffff)] {
        let old = bench.ecam(1, 0, offset, 4);
        bench.set_ecam(1, offset, 4, 0xffff_ffff);
        assert_eq!(bench.ecam(1, 0, offset, 4), size);
        bench.set_ecam(1, offset, 4, old);
        assert_eq!(bench.ecam(1, 0, offset, 4), old);
    }
    // There are no others.
    for offset in [0x18, 0x1c, 0x20, 0x24, 0x30] {
        bench.set_ecam(1, offset, 4, 0xffff_ffff);
        assert_eq!(bench.ecam(1, 0, offset, 4), 0, "{offset:#x}");
    }
}

/// Below 4 GiB, above, at the very top of the address space, at 0; the low bits that are written do not count.
#[test]
fn a_bar_goes_where_it_is_put() {
    let bench = Bench::new(&[1]);
    bench.command(1, MEMORY);
    let mut old = 0xc000_1000;
    for base in [0xd000_0000, 0x12_3456_7000, u64::MAX - 0xfff, 0, 0xffff_f000, 0x1000] {
        bench.place(1, base | 0xfff);
        assert_eq!(bench.ecam(1, 0, 0x10, 4), base & 0xffff_f000 | 4);
        assert_eq!((bench.answers(base), bench.answers(base + 0xfff)), (Some(1), Some(1)), "{base:#x}");
        assert_eq!(bench.answers(old), None, "{old:#x}");
        old = base;
    }
}

/// The guest may do that; one of them answers, and each does when it is alone.
#[test]
fn of_two_functions_in_one_place_one_answers() {
    let bench = Bench::new(&[2, 1]);
    [1, 2].into_iter().for_each(|device| bench.command(device, MEMORY));
    bench.place(1, 0xc800_0000);
    bench.place(2, 0xc800_0000);
    write(&bench.memory, 0xc800_0010, 4, 0);
    let written: Vec<_> = bench.functions.iter().map(|function| function.take_written().len()).collect();
    assert_eq!(written.iter().sum::<usize>(), 1, "both or none: {written:?}");
    for (mover, stayer) in [(1, 2), (2, 1)] {
        bench.place(mover, 0xc900_0000);
        assert_eq!((bench.answers(0xc800_0010), bench.answers(0xc900_0010)), (Some(stayer), Some(mover)));
        bench.place(mover, 0xc800_0000);
        bench.command(mover, 0);
        assert_eq!(bench.answers(0xc800_0010), Some(stayer));
        bench.command(mover, MEMORY);
    }
}

/// A fixed device keeps its addresses; the rest of the BAR answers. The BAR can be taken away again.
#[test]
fn a_bar_does_not_cover_a_fixed_device() {
    let bench = Bench::new(&[1]);
    bench.command(1, MEMORY);
    let bridge = bench.ecam(0, 0, 0, 4);
    bench.place(1, ECAM);
    assert_eq!(bench.ecam(0, 0, 0, 4), bridge);
    assert_eq!(bench.ecam(1, 0, 4, 2), 2);
    bench.set_ecam(0, 4, 4, 0);
    assert_eq!(bench.functions[0].take_written(), []);
    bench.place(1, 0xc000_0000);
    assert_eq!(bench.answers(0xc000_0000), Some(1));
}
