// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests through a queue.

use proptest::prelude::*;

use super::*;
use crate::pool::Reason;
use crate::testing::Desc;

#[test]
fn a_read_returns_the_sectors() {
    let mut bench = Bench::new();
    for (sector, len) in [(0, 512), (1, 1024), (SECTORS - 1, 512), (0, 32768), (3, 0), (SECTORS, 0)] {
        let data = bench.disk.bytes(sector * 512, u64::from(len));
        let answer = bench.ask(IN, sector, &[], len);
        // 2.7.8.2: what was written, the status included.
        assert_eq!(answer, Answer { status: OK, data, used_len: len + 1 });
    }
    assert_eq!(bench.disk.calls(), []);
}

#[test]
fn a_write_changes_those_sectors_and_no_others() {
    let mut bench = Bench::new();
    let mut expected = bench.disk.bytes(0, SECTORS * 512);
    for (sector, len) in [(0usize, 512usize), (5, 2048), (63, 512)] {
        let data: Vec<u8> = (0..len).map(|i| u8::try_from(i * 7 % 256).unwrap()).collect();
        expected[sector * 512..sector * 512 + len].copy_from_slice(&data);
        let answer = bench.ask(OUT, sector as u64, &data, 0);
        assert_eq!(answer, Answer { status: OK, data: vec![], used_len: 1 });
        assert!(bench.disk.bytes(0, SECTORS * 512) == expected);
        assert_eq!(bench.disk.calls(), [Call::Write(sector as u64 * 512, len as u64)]);
    }
}

/// What a request says is read once: what is decided on a copy can't be changed behind it. So the device reads as many bytes as
/// the request has, and writes its data and the status.
#[test]
fn a_request_is_read_once() {
    let data = [7; 1024];
    let zeros = range(2, 1, 0);
    for (kind, out, wanted, read) in [
        (IN, &[][..], 1024, 16),
        (OUT, &data, 0, 16 + 1024),
        (FLUSH, &[], 0, 16),
        (GET_ID, &[], 20, 16),
        (DISCARD, &zeros, 0, 16 + 16),
        (WRITE_ZEROES, &zeros, 0, 16 + 16),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.ask(kind, 0, out, wanted).status, OK);
        let summary = bench.rig.core.summary();
        let audit = summary.gate.audit();
        assert_eq!((audit.read().bytes, audit.written().bytes), (read, u64::from(wanted) + 1), "{kind}");
    }
}

/// 5.2.6: "NUL-padded ASCII string up to 20 bytes long"; 5.2.6.1: the length is 20.
#[test]
fn the_id_is_padded_or_cut_to_20_bytes() {
    for (serial, id) in [
        ("a serial", b"a serial\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("", &[0; 20]),
        ("exactly twenty bytes", b"exactly twenty bytes"),
        ("more than twenty bytes", b"more than twenty byt"),
    ] {
        let blk = Blk::new(Arc::new(Shared::new()), serial, 1 << 20, 1);
        let mut bench = Bench { rig: Rig::start(Memory::new(), Box::new(blk), F_FLUSH), disk: Shared::new() };
        let answer = bench.ask(GET_ID, 0, &[], 20);
        assert_eq!(answer, Answer { status: OK, data: id.to_vec(), used_len: 21 });
        assert_eq!(bench.ask(GET_ID, 0, &[], 19).status, IOERR);
    }
}

/// 5.2.6.2: a write is stable once it is completed, if FLUSH was offered and not negotiated; otherwise after a flush.
#[test]
fn what_is_completed_is_stable_when_it_has_to_be() {
    let data = [7; 512];
    let mut bench = Bench::new();
    assert_eq!(bench.ask(OUT, 2, &data, 0).status, OK);
    assert_eq!(bench.disk.calls(), [Call::Write(1024, 512)]);
    assert_eq!(bench.ask(FLUSH, 0, &[], 0), Answer { status: OK, data: vec![], used_len: 1 });
    assert_eq!(bench.disk.calls(), [Call::Flush]);

    let mut bench = Bench::with(Shared::new(), 0);
    assert_eq!(bench.ask(OUT, 2, &data, 0).status, OK);
    assert_eq!(bench.disk.calls(), [Call::Write(1024, 512), Call::Flush]);
    // What the driver negotiates after a reset counts.
    bench.rig.initialise(F_FLUSH | crate::testing::REQUIRED);
    assert_eq!(bench.ask(OUT, 2, &data, 0).status, OK);
    assert_eq!(bench.disk.calls(), [Call::Write(1024, 512)]);
}

/// 5.2.6.2 has "write" for a submitted change of sectors; zeros are one.
#[test]
fn zeros_are_stable_without_flush_too() {
    let mut bench = Bench::with(Shared::new(), 1 << 14);
    assert_eq!(bench.ask(WRITE_ZEROES, 0, &range(1, 8, 0), 0).status, OK);
    assert_eq!(bench.disk.calls(), [Call::WriteZeroes(512, 4096, false), Call::Flush]);
}

/// 5.2.6, 5.2.6.2.
#[test]
fn discard_and_write_zeroes_reach_the_disk_with_their_flags() {
    let mut bench = Bench::new();
    for (kind, flags, expected) in [
        (DISCARD, 0, Ok(Call::Discard(1024, 1536))),
        (WRITE_ZEROES, 0, Ok(Call::WriteZeroes(1024, 1536, false))),
        (WRITE_ZEROES, 1, Ok(Call::WriteZeroes(1024, 1536, true))),
        // "MUST set the status byte to UNSUPP ... if any unknown flag is set", and "for discard commands if the unmap
        // flag is set".
        (DISCARD, 1, Err(UNSUPP)),
        (DISCARD, 2, Err(UNSUPP)),
        (DISCARD, 0x8000_0000, Err(UNSUPP)),
        (WRITE_ZEROES, 2, Err(UNSUPP)),
        (WRITE_ZEROES, 3, Err(UNSUPP)),
        (WRITE_ZEROES, 0x8000_0001, Err(UNSUPP)),
    ] {
        let answer = bench.ask(kind, 0, &range(2, 3, flags), 0);
        assert_eq!(
            (answer.status, answer.used_len),
            (expected.clone().err().unwrap_or(OK), 1),
            "{kind} {flags:#x}"
        );
        assert_eq!(bench.disk.calls(), expected.into_iter().collect::<Vec<_>>());
    }
}

/// One segment a request, as the configuration space says (5.2.4); inside the disk; and not on a disk that cannot.
#[test]
fn discard_and_write_zeroes_that_cannot_be_done_are_errors() {
    let mut bench = Bench::new();
    for kind in [DISCARD, WRITE_ZEROES] {
        let two = [range(0, 1, 0), range(1, 1, 0)].concat();
        let bad: [&[u8]; 8] = [
            &range(SECTORS, 1, 0),
            &range(SECTORS - 1, 2, 0),
            &range(u64::MAX, 1, 0),
            &range(u64::MAX / 512 + 1, 1, 0),
            &range(0, u32::MAX, 0),
            &two,
            &range(0, 1, 0)[..15],
            &[],
        ];
        for data in bad {
            assert_eq!(bench.ask(kind, 0, data, 0).status, IOERR, "{data:?}");
        }
        assert_eq!(bench.ask(kind, 0, &range(SECTORS, 0, 0), 0).status, OK, "nothing, at the end");
        assert_eq!(bench.disk.calls(), []);
        bench.disk.with(|store| store.can_punch = false);
        assert_eq!(bench.ask(kind, 0, &range(0, 1, 0), 0).status, UNSUPP);
        bench.disk.with(|store| (store.can_punch, store.read_only) = (true, true));
        assert_eq!(bench.ask(kind, 0, &range(0, 1, 0), 0).status, IOERR);
        assert_eq!(bench.disk.calls(), []);
        bench.disk.with(|store| store.read_only = false);
    }
}

/// 5.2.6.1: sectors inside the disk, data in multiples of 512 bytes.
#[test]
fn a_transfer_outside_the_disk_or_of_parts_of_sectors_is_an_error() {
    let mut bench = Bench::new();
    let before = bench.disk.bytes(0, SECTORS * 512);
    let places = [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (SECTORS + 1, 0),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (u64::MAX / 512 + 1, 512),
        (1 << 55, 1024),
        (0, 1),
        (0, 511),
        (0, 513),
    ];
    for (sector, len) in places {
        let answer = bench.ask(IN, sector, &[], len);
        assert_eq!(answer.status, IOERR, "{sector:#x} {len}");
        assert_eq!(answer.data, vec![0xee; len as usize]);
        assert_eq!(bench.ask(OUT, sector, &vec![1; len as usize], 0).status, IOERR, "{sector:#x} {len}");
    }
    assert_eq!(bench.disk.calls(), []);
    assert!(bench.disk.bytes(0, SECTORS * 512) == before);
}

/// 5.2.6.2: "MUST set the status byte to IOERR for a write request if RO is offered, and MUST NOT write any data".
#[test]
fn a_read_only_disk_is_read_and_not_written() {
    let disk = Shared::new();
    disk.with(|store| store.read_only = true);
    let mut bench = Bench::with(disk, F_FLUSH);
    assert_eq!(bench.ask(OUT, 0, &[1; 512], 0).status, IOERR);
    assert_eq!(bench.ask(OUT, 0, &[], 0).status, IOERR);
    assert_eq!(bench.disk.calls(), []);
    assert_eq!(bench.ask(IN, 0, &[], 512).status, OK);
    assert_eq!(bench.ask(FLUSH, 0, &[], 0).status, OK);
}

/// 5.2.6: UNSUPP "for a request unsupported by device": SCSI, lifetime, secure erase, zones, what there is not.
#[test]
fn an_unknown_type_is_unsupported() {
    let mut bench = Bench::new();
    for kind in [2, 3, 5, 10, 14, 15, 16, 18, 20, 22, 24, 26, 0x8000_0000, u32::MAX] {
        assert_eq!(bench.ask(kind, 0, &[], 0).status, UNSUPP);
        assert_eq!(bench.ask(kind, 0, &[1; 16], 0).status, UNSUPP);
        assert_eq!(
            bench.ask(kind, 0, &[], 512),
            Answer { status: UNSUPP, data: vec![0xee; 512], used_len: 0 }
        );
    }
    assert_eq!(bench.disk.calls(), []);
}

/// 5.2.6: IOERR "for device or driver error"; the next request is served.
#[test]
fn a_disk_that_fails_is_an_io_error() {
    let mut bench = Bench::new();
    bench.disk.with(|store| store.fail = true);
    for (kind, out, wanted) in
        [(IN, vec![], 512), (OUT, vec![1; 512], 0), (FLUSH, vec![], 0), (DISCARD, range(0, 1, 0), 0)]
    {
        assert_eq!(bench.ask(kind, 0, &out, wanted).status, IOERR, "{kind}");
    }
    bench.disk.with(|store| store.fail = false);
    assert_eq!(bench.ask(IN, 0, &[], 512).status, OK);
    assert_eq!(bench.rig.refusals().total, 0);
}

/// 2.7.8.2: "The device MUST write at least len bytes": a read that came short claims nothing.
#[test]
fn a_disk_that_became_shorter_is_an_io_error() {
    let mut bench = Bench::new();
    bench.disk.with(|store| store.truncated = Some(700));
    let short = bench.ask(IN, 0, &[], 1024);
    assert_eq!((short.status, short.used_len), (IOERR, 0));
    assert_eq!(bench.ask(OUT, 1, &[1; 512], 0).status, IOERR);
    assert_eq!(bench.ask(IN, 0, &[], 512).status, OK);
}

/// 2.7.4.2 and 5.2.6: header and data of a write are device-readable, data of a read and the status device-writable.
#[test]
fn a_request_of_the_wrong_shape_is_refused() {
    let (read, write) = (header(IN, 0), header(OUT, 0));
    type Shape<'a> = (&'a [&'a [u8]], &'a [u32]);
    let shapes: [Shape; 10] = [
        (&[&read], &[]),
        (&[&write, &[0; 512]], &[]),
        (&[], &[16, 512, 1]),
        (&[&read[..15]], &[512, 1]),
        (&[&read[..8], &read[8..15]], &[512, 1]),
        (&[&write[..15]], &[1]),
        (&[&read, &[0; 512]], &[1]),
        (&[&read, &[0]], &[512, 1]),
        (&[&write], &[512, 1]),
        (&[&write, &[0; 512]], &[2]),
    ];
    for (readable, writable) in shapes {
        let mut bench = Bench::new();
        bench.rig.drivers[0].request(readable, writable);
        bench.rig.assert_refused(0);
        assert_eq!(bench.rig.refusals().first[0].0.reason, Reason::WrongDirection);
        assert_eq!(bench.disk.calls(), []);
        bench.rig.initialise(crate::testing::REQUIRED);
        assert_eq!(bench.ask(IN, 0, &[], 512).status, OK, "works after a reset");
    }
}

/// No byte moves for a request one of whose buffers is outside the pool, whatever is inside.
#[test]
fn a_request_with_one_bad_buffer_moves_nothing() {
    let mut bench = Bench::new();
    let memory = bench.rig.memory.clone();
    let (at, buffer) = (memory.alloc(16, 1), memory.alloc(512, 1));
    memory.write(at, &header(OUT, 0));
    let chain = [Desc::readable(at, 16), Desc::readable(buffer, 512), Desc::writable(memory.end(), 1)];
    bench.rig.drivers[0].chain(&chain);
    bench.rig.assert_refused(0);
    assert_eq!(memory.gate.audit().read().bytes, 0);
    assert_eq!(bench.disk.calls(), []);
}

/// Cuts `len` bytes into pieces, some of them empty.
fn cut(len: usize, at: &[usize]) -> Vec<std::ops::Range<usize>> {
    let mut at: Vec<_> = at.iter().map(|at| at % (len + 1)).collect();
    at.extend([0, len]);
    at.sort_unstable();
    at.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// 2.7.4.1: "MUST NOT make assumptions about the particular arrangement of descriptors": header in pieces, data cut
    /// anywhere, the status with data before it.
    #[test]
    fn any_cutting_of_a_request_gives_the_same_result(
        kind in prop_oneof![4 => Just(IN), 4 => Just(OUT), 1 => Just(GET_ID), 1 => Just(WRITE_ZEROES), 1 => Just(FLUSH)],
        sector in 0..SECTORS,
        sectors in 0usize..6,
        out_cuts in prop::collection::vec(any::<usize>(), 0..6),
        in_cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let (out, wanted) = match kind {
            IN => (vec![], sectors * 512),
            OUT => ((0..sectors * 512).map(|i| u8::try_from(i % 241).unwrap()).collect(), 0),
            GET_ID => (vec![], 20),
            WRITE_ZEROES => (range(sector, 4, 1), 0),
            _ => (vec![], 0),
        };
        let (mut whole, mut pieces) = (Bench::new(), Bench::new());
        let expected = whole.ask(kind, sector, &out, u32::try_from(wanted).unwrap());
        let readable = [header(kind, sector), out].concat();
        let readable: Vec<_> = cut(readable.len(), &out_cuts).into_iter().map(|piece| &readable[piece]).collect();
        let writable: Vec<_> =
            cut(wanted + 1, &in_cuts).iter().map(|piece| u32::try_from(piece.len()).unwrap()).collect();
        prop_assert_eq!(pieces.request(&readable, &writable), expected);
        prop_assert_eq!(pieces.disk.calls(), whole.disk.calls());
        prop_assert!(pieces.disk.bytes(0, SECTORS * 512) == whole.disk.bytes(0, SECTORS * 512));
    }
}
