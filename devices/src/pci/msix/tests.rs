// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Expectations are from PCI 3.0, 6.8.2 and 6.8.3; the clause stands at each test.

mod arbitrary;

use super::*;
use crate::testing::{RecordingSlot, Told};

const ENABLE: u16 = 0x8000;
const FUNCTION_MASK: u16 = 0x4000;
/// Offsets in a table entry (6.8.2): message address, message upper address, message data, vector control.
const ADDRESS: u64 = 0;
const UPPER: u64 = 4;
const DATA: u64 = 8;
const CONTROL: u64 = 12;

const GOOD: u64 = 0xfee0_1000;

/// A table with its slot.
struct Bench {
    msix: Msix,
    slot: RecordingSlot,
}

impl Bench {
    fn new(count: u16) -> Self {
        Self { msix: Msix::new(count).unwrap(), slot: RecordingSlot::default() }
    }

    /// Vectors with messages 0x20 and up, enabled, unmasked.
    fn live(count: u16) -> Self {
        let mut bench = Self::new(count);
        (0..u64::from(count))
            .for_each(|vector| bench.set(vector, GOOD, 0x20 + u32::try_from(vector).unwrap()));
        bench.configure(ENABLE, true).unwrap();
        (0..u64::from(count)).for_each(|vector| bench.mask(vector, false).unwrap());
        bench.slot.take();
        bench
    }

    fn configure(&mut self, control: u16, bus_master: bool) -> Result<(), Refusal> {
        self.msix.configure(control, bus_master, &self.slot)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Refusal> {
        self.msix.write_table(offset, data, &self.slot)
    }

    fn word(&mut self, vector: u64, field: u64, value: u32) -> Result<(), Refusal> {
        self.write(16 * vector + field, &value.to_le_bytes())
    }

    /// Address and data, while the vector is masked.
    fn set(&mut self, vector: u64, address: u64, data: u32) {
        self.mask(vector, true).unwrap();
        self.word(vector, ADDRESS, u32::try_from(address & 0xffff_ffff).unwrap()).unwrap();
        self.word(vector, UPPER, u32::try_from(address >> 32).unwrap()).unwrap();
        self.word(vector, DATA, data).unwrap();
    }

    fn mask(&mut self, vector: u64, masked: bool) -> Result<(), Refusal> {
        self.word(vector, CONTROL, masked.into())
    }

    fn signal(&mut self, vector: u16) {
        self.msix.signal(vector, &self.slot);
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xaa; len];
        self.msix.read_table(offset, &mut data);
        data
    }

    fn pending(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xaa; len];
        self.msix.read_pending(offset, &mut data);
        data
    }

    /// Messages that each vector sent since the last call.
    fn sent(&self) -> Vec<u64> {
        self.msix.fds().map(|fd| fd.read().unwrap_or(0)).collect()
    }
}

/// 6.8.2.9: mask bits are 1 after reset; 6.8.2.3: both control bits are 0 after reset.
#[test]
fn after_reset_every_vector_is_masked_and_none_is_pending() {
    let bench = Bench::new(70);
    for vector in 0..70 {
        assert_eq!(bench.read(16 * vector + CONTROL, 4), [1, 0, 0, 0]);
        assert_eq!(bench.read(16 * vector, 8), [0; 8]);
        assert_eq!(bench.read(16 * vector + DATA, 4), [0; 4]);
    }
    assert_eq!((bench.pending(0, 8), bench.pending(8, 8)), (vec![0; 8], vec![0; 8]));
    assert!(!bench.msix.enabled());
}

/// 6.8.2: software uses aligned accesses of 4 or 8 bytes, and what others do is undefined. Here the others have no effect and read as zeros.
#[test]
fn the_table_takes_aligned_accesses_of_4_and_8_bytes() {
    for offset in 0..48u64 {
        for len in 0..=16usize {
            let mut bench = Bench::new(2);
            for vector in 0..2 {
                bench.set(vector, 0x1122_3344_5566_7788, 0x99aa_bbcc);
            }
            let table = |bench: &Bench| (0..12).map(|i| bench.read(4 * i, 4)).collect::<Vec<_>>();
            let before = table(&bench);
            let bytes = before.concat();
            let allowed = matches!((len, offset % 8), (4, 0 | 4) | (8, 0));
            let at = usize::try_from(offset).unwrap();
            let expected = if allowed { bytes[at..at + len].to_vec() } else { vec![0; len] };
            assert_eq!(bench.read(offset, len), expected, "{offset} {len}");
            bench.write(offset, &vec![0xfe; len]).unwrap();
            let after = table(&bench).concat();
            for (i, (old, new)) in bytes.iter().zip(&after).enumerate() {
                let written = allowed && (at..at + len).contains(&i) && i < 32;
                let expected = match (written, i % 16) {
                    (false, _) => *old,
                    // Of vector control there is the mask bit.
                    (true, 12..16) => 0,
                    (true, _) => 0xfe,
                };
                assert_eq!(*new, expected, "byte {i} after {len} at {offset}");
            }
        }
    }
    // 8 bytes: address, or data and vector control at once.
    let mut bench = Bench::new(1);
    bench.write(8, &[1, 2, 3, 4, 0, 0, 0, 0]).unwrap();
    assert_eq!(bench.read(8, 8), [1, 2, 3, 4, 0, 0, 0, 0]);
    bench.write(12, &[0xff; 4]).unwrap();
    assert_eq!(bench.read(12, 4), [1, 0, 0, 0]);
}

#[test]
fn past_the_last_vector_there_is_nothing() {
    let mut bench = Bench::live(3);
    for offset in [48, 56, 16 * 2048, 1 << 32] {
        bench.write(offset, &[0xff; 8]).unwrap();
        assert_eq!(bench.read(offset, 8), [0; 8]);
        assert_eq!(bench.pending(offset, 8), [0; 8]);
    }
    bench.signal(3);
    bench.signal(u16::MAX);
    assert_eq!((bench.sent(), bench.slot.take()), (vec![0; 3], vec![]));
    assert_eq!(bench.pending(0, 8), [0; 8]);
}

/// 6.8.3.4: a message for each event while nothing is masked.
#[test]
fn an_event_sends_its_message() {
    let mut bench = Bench::live(3);
    for vector in [1, 0, 2, 2] {
        bench.signal(vector);
        let mut expected = vec![0; 3];
        expected[usize::from(vector)] = 1;
        assert_eq!(bench.sent(), expected);
        assert_eq!(bench.pending(0, 8), [0; 8]);
    }
}

/// 6.8.3.5: no message while masked, but a pending bit; with the unmask the message is sent and the bit cleared.
#[test]
fn a_masked_vector_is_pending_and_its_message_is_sent_once_at_unmask() {
    let mut bench = Bench::live(70);
    for vector in [0u16, 1, 8, 63, 64, 69] {
        let (number, bit) = (u64::from(vector), usize::from(vector));
        bench.mask(number, true).unwrap();
        for _ in 0..3 {
            bench.signal(vector);
            assert_eq!(bench.sent(), [0; 70]);
        }
        let mut bits = vec![0; 16];
        bits[bit / 8] = 1 << (bit % 8);
        assert_eq!([bench.pending(0, 8), bench.pending(8, 8)].concat(), bits, "{vector}");
        let words: Vec<_> = (0..4).flat_map(|i| bench.pending(4 * i, 4)).collect();
        assert_eq!(words, bits);
        // Masked again: nothing changes.
        bench.mask(number, true).unwrap();
        assert_eq!(bench.sent(), [0; 70]);
        bench.mask(number, false).unwrap();
        let mut expected = [0; 70];
        expected[bit] = 1;
        assert_eq!(bench.sent(), expected);
        assert_eq!([bench.pending(0, 8), bench.pending(8, 8)].concat(), [0; 16]);
        // ... and not a second time.
        bench.mask(number, true).unwrap();
        bench.mask(number, false).unwrap();
        assert_eq!(bench.sent(), [0; 70]);
    }
}

/// The same accesses as in the table; here others read as zeros, too.
#[test]
fn pending_bits_are_read_in_4_or_8_bytes() {
    let mut bench = Bench::live(64);
    bench.configure(ENABLE | FUNCTION_MASK, true).unwrap();
    (0..64).for_each(|vector| bench.signal(vector));
    for offset in 0..16u64 {
        for len in 1..=8usize {
            let allowed = matches!((len, offset), (4, 0 | 4) | (8, 0));
            let expected = vec![if allowed { 0xff } else { 0 }; len];
            assert_eq!(bench.pending(offset, len), expected, "{len} at {offset}");
        }
    }
}

/// 6.8.2.3: Function Mask masks all vectors, whatever their own mask bits. MSI-X disabled, or no bus mastering: no
/// message either (6.8.2.3, 6.2.2).
#[test]
fn what_holds_all_vectors_back_lets_each_go_once() {
    for held in
        [(ENABLE | FUNCTION_MASK, true), (0, true), (FUNCTION_MASK, true), (ENABLE, false), (0, false)]
    {
        let mut bench = Bench::live(4);
        bench.mask(3, true).unwrap();
        bench.configure(held.0, held.1).unwrap();
        [0, 0, 1, 3].into_iter().for_each(|vector| bench.signal(vector));
        assert_eq!(bench.sent(), [0; 4], "{held:?}");
        assert_eq!(bench.pending(0, 4), [0b1011, 0, 0, 0]);
        // The vectors' own mask bits do not change.
        assert_eq!((bench.read(12, 4), bench.read(16 * 3 + 12, 4)), (vec![0; 4], vec![1, 0, 0, 0]));
        bench.configure(ENABLE, true).unwrap();
        assert_eq!(bench.sent(), [1, 1, 0, 0], "{held:?}");
        assert_eq!(bench.pending(0, 4), [0b1000, 0, 0, 0]);
        bench.mask(3, false).unwrap();
        assert_eq!(bench.sent(), [0, 0, 0, 1]);
    }
}

/// 6.8.3.5: a pending bit goes away if the event does; a reset of the device takes them all.
#[test]
fn cleared_pending_bits_send_nothing() {
    let mut bench = Bench::live(2);
    bench.mask(1, true).unwrap();
    bench.signal(1);
    bench.msix.clear_pending();
    assert_eq!(bench.pending(0, 4), [0; 4]);
    bench.mask(1, false).unwrap();
    assert_eq!(bench.sent(), [0, 0]);
}

/// The slot hears of a message when it can be sent, once for each change.
#[test]
fn a_route_is_told_once_for_each_change() {
    let mut bench = Bench::new(2);
    bench.set(1, GOOD, 0x31);
    bench.mask(1, false).unwrap();
    assert_eq!(bench.slot.take(), []);
    bench.configure(ENABLE, false).unwrap();
    assert_eq!(bench.slot.take(), []);
    // Vector 0 is masked.
    bench.configure(ENABLE, true).unwrap();
    let message = |data| Told::Route(1, Message { address: GOOD, data });
    assert_eq!(bench.slot.take(), [message(0x31)]);
    for _ in 0..2 {
        bench.configure(ENABLE | FUNCTION_MASK, true).unwrap();
        bench.configure(ENABLE, true).unwrap();
        bench.mask(1, true).unwrap();
        bench.mask(1, false).unwrap();
        bench.signal(1);
    }
    assert_eq!((bench.slot.take(), bench.sent()), (vec![], vec![0, 2]));
    // While masked, what is written does not count until the unmask; what is pending goes out as the new message.
    bench.set(1, GOOD, 0x41);
    bench.set(1, GOOD + 0x1000, 0x51);
    bench.set(1, GOOD, 0x42);
    bench.signal(1);
    assert_eq!((bench.slot.take(), bench.sent()), (vec![], vec![0, 0]));
    bench.mask(1, false).unwrap();
    assert_eq!((bench.slot.take(), bench.sent()), (vec![message(0x42)], vec![0, 1]));
    // Without a mask each write counts.
    bench.word(1, DATA, 0x43).unwrap();
    bench.word(1, ADDRESS, 0xfee0_2000).unwrap();
    let moved = Told::Route(1, Message { address: 0xfee0_2000, data: 0x43 });
    assert_eq!((bench.slot.take(), bench.sent()), (vec![message(0x43), moved], vec![0, 0]));
}

/// Intel SDM 3A, 11.11.1: messages go to 0xfee00000 to 0xfeefffff, dword-aligned (PCI 3.0, 6.8.2.6).
#[test]
fn a_message_to_another_place_is_refused_when_it_takes_effect() {
    let outside = [0, 4, 0xfed0_0000, 0xfedf_fffc, 0xfef0_0000, 0x1_fee0_0000, 1 << 63 | 0xfee0_0000, !3];
    let bad = outside.map(|address| (address, Reason::NoInterrupt));
    for (address, reason) in bad.into_iter().chain([1, 2, 3].map(|by| (GOOD + by, Reason::Misaligned))) {
        let refusal = Refusal { queue: 1, structure: Structure::Message, address, length: 4, reason };
        let mut bench = Bench::live(2);
        // Written while masked: it is nothing yet.
        bench.set(1, address, 7);
        bench.signal(1);
        assert_eq!(bench.mask(1, false), Err(refusal));
        bench.signal(1);
        assert_eq!((bench.sent(), bench.slot.take()), (vec![0, 0], vec![]), "{address:#x}");
        // By whatever it takes effect.
        bench.configure(ENABLE | FUNCTION_MASK, true).unwrap();
        assert_eq!(bench.configure(ENABLE, true), Err(refusal));
        bench.configure(0, true).unwrap();
        assert_eq!(bench.configure(ENABLE, true), Err(refusal));
        bench.configure(ENABLE, false).unwrap();
        assert_eq!(bench.configure(ENABLE, true), Err(refusal));
        // The other vector is not concerned, and a right address makes this one work.
        bench.signal(0);
        assert_eq!((bench.sent(), bench.slot.take()), (vec![1, 0], vec![]));
        bench.msix.clear_pending();
        bench.set(1, 0xfeef_fffc, 7);
        bench.mask(1, false).unwrap();
        bench.signal(1);
        assert_eq!(bench.sent(), [0, 1]);
        assert_eq!(bench.slot.take(), [Told::Route(1, Message { address: 0xfeef_fffc, data: 7 })]);
    }
}

/// Written over while the vector is live: each state in between counts.
#[test]
fn a_live_vector_that_is_pointed_elsewhere_is_refused() {
    let mut bench = Bench::live(1);
    assert_eq!(bench.word(0, UPPER, 1).unwrap_err().address, 1 << 32 | GOOD);
    bench.word(0, UPPER, 0).unwrap();
    assert_eq!(bench.write(0, &0x1234_5678u64.to_le_bytes()).unwrap_err().reason, Reason::NoInterrupt);
    bench.signal(0);
    assert_eq!((bench.sent(), bench.slot.take()), (vec![0], vec![]));
}

/// The first of several is reported, and the rest of the table is brought up to date nevertheless.
#[test]
fn one_bad_vector_does_not_hold_up_the_others() {
    let mut bench = Bench::new(3);
    for (vector, address) in [(0, 0x1000), (1, 0x2000), (2, GOOD)] {
        bench.set(vector, address, 9);
        bench.mask(vector, false).unwrap();
    }
    assert_eq!(bench.configure(ENABLE, true).unwrap_err().address, 0x1000);
    assert_eq!(bench.slot.take(), [Told::Route(2, Message { address: GOOD, data: 9 })]);
}
