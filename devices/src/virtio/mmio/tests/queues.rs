// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Queue registers that are virtio-mmio's own: a 32-bit QueueNum, and QueueReady that can be cleared.

use super::*;

/// 4.2.2: a queue size register is 32 bits wide, a queue size is 16.
#[test]
fn a_queue_size_is_not_cut_to_16_bits() {
    let mut bench = Bench::<Mmio>::new();
    for size in [0x1_0000, 0x1_0008, 0x8000_0010, u32::MAX, 0, 3, 32] {
        bench.restart(11);
        bench.set_up_queue(0);
        bench.write(QUEUE_NUM, size);
        bench.write(QUEUE_READY, 1);
        assert_eq!((bench.read(QUEUE_READY), bench.read(STATUS)), (0, 11 | 64), "{size:#x}");
    }
}

/// 4.2.2: 1 and 0 are all that QueueReady knows.
#[test]
fn queue_ready_is_0_or_1() {
    let mut bench = Bench::<Mmio>::new();
    bench.restart(11);
    bench.set_up_queue(0);
    for value in [2, 3, 0x100, u32::MAX] {
        bench.write(QUEUE_READY, value);
        assert_eq!(bench.read(QUEUE_READY), 0, "{value:#x}");
    }
    bench.write(QUEUE_READY, 1);
    for value in [2, 0x100, 0xffff_0000] {
        bench.write(QUEUE_READY, value);
        assert_eq!(bench.read(QUEUE_READY), 1, "{value:#x}");
    }
}

/// 4.2.2.1: "The device MUST NOT access virtual queue contents when QueueReady is zero".
#[test]
fn a_stopped_queue_is_left_alone_and_the_other_goes_on() {
    let mut bench = Bench::<Mmio>::started();
    bench.drivers[0].request(&[], &[4]);
    bench.write(QUEUE_SEL, 0);
    bench.write(QUEUE_READY, 0);
    assert_eq!(bench.read(QUEUE_READY), 0);
    let rings = bench.memory.gate.audit().rings().accesses;
    assert_eq!(bench.request(0), []);
    assert_eq!(bench.memory.gate.audit().rings().accesses, rings);
    assert_eq!(bench.request(1), [(0, 4)]);
    assert_eq!(bench.read(STATUS), 15);
    bench.assert_works_after_reset();
}

/// The same before DRIVER_OK: a queue that was enabled and disabled again is not served.
#[test]
fn a_queue_that_was_disabled_before_driver_ok_is_not_served() {
    let mut bench = Bench::<Mmio>::new();
    bench.restart(11);
    bench.set_up_queue(0);
    bench.write(QUEUE_READY, 1);
    bench.write(QUEUE_READY, 0);
    assert_eq!(bench.read(QUEUE_READY), 0);
    bench.write(STATUS, 15);
    assert_eq!(bench.request(0), []);
}
