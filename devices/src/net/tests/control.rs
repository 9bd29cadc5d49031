// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control queue (virtio 1.3, 5.1.6.5).

use super::multi_queue::{CTRL_VQ, MQ, Multi};
use super::*;

const OK: u8 = 0;
const ERR: u8 = 1;
/// Index of the control queue (5.1.2): after three pairs.
const CONTROL: u16 = 6;

/// 5.1.6.5.6.1: neither 0 nor more than `max_virtqueue_pairs`; what is no command of ours is answered, too.
#[test]
fn a_command_that_cannot_be_done_is_answered_with_an_error() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    assert_eq!(multi.set_pairs(2), OK);
    for pairs in [0, 4, 0x100, 0x0201, 0x8000, 0xffff] {
        assert_eq!(multi.set_pairs(pairs), ERR, "{pairs:#x}");
    }
    // Classes RX, MAC, VLAN, ANNOUNCE, GUEST_OFFLOADS; RSS and hash configuration; too short and too long.
    let long = [4; 300];
    let commands: [&[u8]; 14] = [
        &[0, 0, 1],
        &[1, 1, 2, 0, 0, 9, 9, 9],
        &[2, 0, 1, 0],
        &[3, 0],
        &[5, 0, 3, 0],
        &[255, 255],
        &[4, 1, 3, 0],
        &[4, 2, 3, 0],
        &[4, 255, 3, 0],
        &[4, 0],
        &[4, 0, 3],
        &[4, 0, 3, 0, 0],
        &[0, 4, 3, 0],
        &long,
    ];
    for command in commands {
        assert_eq!(multi.command(CONTROL, command), ERR, "{command:?}");
    }
    assert_eq!(multi.attached(), [true, true, false]);
    assert_eq!(multi.rig.refusals().total, 0);
}

/// What is decided on is a copy: as many bytes are read as a command has.
#[test]
fn a_command_is_read_once() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    assert_eq!(multi.command(CONTROL, &[4, 0, 3, 0]), OK);
    let summary = multi.rig.core.summary();
    let audit = summary.gate.audit();
    assert_eq!((audit.read().bytes, audit.written().bytes), (4, 1));
}

/// 2.7.4.1, 5.1.6.5: a command may be cut anywhere, and `ack` is the first byte that the device writes.
#[test]
fn a_command_is_done_however_it_is_cut() {
    let mut multi = Multi::new(CTRL_VQ | MQ | INDIRECT_DESC);
    let cuts: [&[&[u8]]; 5] = [
        &[&[4, 0, 3, 0]],
        &[&[4, 0], &[3, 0]],
        &[&[4], &[0], &[3], &[0]],
        &[&[], &[4, 0, 3], &[], &[0]],
        &[&[4, 0, 3, 0], &[]],
    ];
    for readable in cuts {
        for writable in [&[1][..], &[0, 1], &[8], &[1, 7], &[0, 3, 5]] {
            assert_eq!(multi.set_pairs(1), OK);
            let places = multi.rig.drivers[6].request(readable, writable);
            places.iter().for_each(|&(at, len)| multi.rig.memory.write(at, &vec![0xee; len as usize]));
            multi.rig.serve(CONTROL);
            assert!(matches!(multi.rig.drivers[6].take_used()[..], [(_, 1)]));
            let bytes = multi.rig.memory.gather(&places);
            assert_eq!(bytes[0], OK);
            assert!(bytes[1..].iter().all(|byte| *byte == 0xee), "more than ack is written");
            assert_eq!(multi.attached(), [true; 3]);
        }
    }
    let memory = multi.rig.memory.clone();
    let (at, table) = (memory.alloc(5, 1), memory.alloc(32, 16));
    memory.write(at, &[4, 0, 1, 0, 0xee]);
    memory.write_table(table, &[Desc::readable(at, 4).then(1), Desc::writable(at + 4, 1)]);
    multi.rig.drivers[6].chain(&[Desc::indirect(table, 32)]);
    multi.rig.serve(CONTROL);
    assert_eq!((memory.read(at + 4, 1), multi.attached()), (vec![OK], vec![true, false, false]));
}

/// What is no command at all is refused like any other chain of the wrong shape, and does nothing.
#[test]
fn a_chain_that_is_no_command_is_refused() {
    let shapes: [(&[&[u8]], &[u32]); 7] = [
        (&[], &[1]),
        (&[&[]], &[1]),
        (&[&[4]], &[1]),
        (&[&[], &[4], &[]], &[1]),
        (&[], &[5]),
        (&[&[4, 0, 3, 0]], &[]),
        (&[&[4, 0, 3, 0]], &[0]),
    ];
    for (readable, writable) in shapes {
        let mut multi = Multi::new(CTRL_VQ | MQ);
        multi.rig.drivers[6].request(readable, writable);
        refused(&mut multi);
        let refusal = multi.rig.refusals().first[0].0;
        assert_eq!((refusal.queue, refusal.reason), (CONTROL, Reason::WrongDirection));
    }
}

/// A part outside the pool: the command is not done.
#[test]
fn a_command_outside_the_pool_is_refused() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    let end = multi.rig.memory.end();
    let inside = multi.rig.memory.alloc(4, 1);
    multi.rig.memory.write(inside, &[4, 0, 3, 0]);
    for (command, ack, structure, reason) in [
        (inside, end, Structure::WritableBuffer, Reason::Outside),
        (end - 3, inside, Structure::ReadableBuffer, Reason::CrossesEnd),
        (0, inside, Structure::ReadableBuffer, Reason::Outside),
    ] {
        multi.rig.drivers[6].chain(&[Desc::readable(command, 4), Desc::writable(ack, 1)]);
        refused(&mut multi);
        let refusals = multi.rig.refusals();
        let refusal = refusals.first.last().unwrap().0;
        assert_eq!((refusal.queue, refusal.structure, refusal.reason), (CONTROL, structure, reason));
        // A driver reset brings it back.
        multi.rig.initialise(crate::testing::REQUIRED | CTRL_VQ | MQ);
        assert_eq!(multi.set_pairs(2), OK);
        assert_eq!(multi.set_pairs(1), OK);
    }
}

/// DEVICE_NEEDS_RESET, nothing written to the pool, and no pair more.
fn refused(multi: &mut Multi) {
    let (image, total) = (multi.rig.memory.image(), multi.rig.refusals().total);
    multi.rig.serve(CONTROL);
    assert!(image == multi.rig.memory.image(), "the pool was changed");
    assert_eq!((multi.rig.core.status(), multi.rig.refusals().total), (15 | 64, total + 1));
    assert_eq!(multi.attached(), [true, false, false]);
}

/// 5.1.2: without VIRTIO_NET_F_MQ there is one pair, the control queue has index 2, and knows no command of MQ's.
#[test]
fn without_multi_queue_the_control_queue_follows_the_first_pair() {
    let mut multi = Multi::new(CTRL_VQ);
    assert_eq!(multi.command(2, &[4, 0, 2, 0]), ERR);
    assert_eq!(multi.command(2, &[4, 0, 1, 0]), ERR);
    multi.rig.drivers[6].request(&[&[4, 0, 2, 0]], &[1]);
    multi.rig.serve(CONTROL);
    assert_eq!(multi.rig.drivers[6].take_used(), []);
    assert_eq!(multi.attached(), [true, false, false]);
}

/// Nobody commands a device whose control queue was not accepted, whatever else was.
#[test]
fn without_a_control_queue_there_are_no_commands() {
    for features in [0, MQ] {
        let mut multi = Multi::new(features);
        for queue in [2, 6] {
            multi.rig.drivers[queue].request(&[&[4, 0, 2, 0]], &[1]);
            multi.rig.serve(u16::try_from(queue).unwrap());
            assert_eq!(multi.rig.drivers[queue].take_used(), []);
        }
        assert_eq!((multi.attached(), multi.rig.refusals().total), (vec![true, false, false], 0));
    }
}

/// A command may keep the host busy, so each has a turn of its own.
#[test]
fn a_turn_has_one_command() {
    let mut multi = Multi::new(CTRL_VQ | MQ);
    (0..5).for_each(|_| drop(multi.rig.drivers[6].request(&[&[4, 0, 2, 0]], &[1])));
    for _ in 0..5 {
        assert!(multi.rig.core.handle().serve(CONTROL));
        assert!(matches!(multi.rig.drivers[6].take_used()[..], [(_, 1)]));
    }
    assert!(!multi.rig.core.handle().serve(CONTROL));
}
