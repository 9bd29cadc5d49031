// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The register layout of virtio 1.3, 4.2.2, against its table; offsets are written out from there. What is the same
//! over every transport is tested in `virtio/tests`.

mod queues;

use super::*;
use crate::testing::{Mmio, Transport};
use crate::virtio::tests::{Bench, Call};

const QUEUE_SEL: u64 = 0x30;
const QUEUE_NUM_MAX: u64 = 0x34;
const QUEUE_NUM: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACK: u64 = 0x64;
const STATUS: u64 = 0x70;
const CONFIG: u64 = 0x100;

const READ_ONLY: &[u64] = &[0x00, 0x04, 0x08, 0x0c, 0x10, 0x34, 0x60, 0xb0, 0xb4, 0xb8, 0xbc, 0xfc];
const WRITE_ONLY: &[u64] =
    &[0x14, 0x20, 0x24, 0x30, 0x38, 0x50, 0x64, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac];
const READ_WRITE: &[u64] = &[QUEUE_READY, STATUS];

impl Bench<Mmio> {
    fn read(&self, register: u64) -> u32 {
        self.transport.read(register)
    }

    fn write(&self, register: u64, value: u32) {
        self.transport.write(register, value);
    }

    /// Everything that can be read, and what the driver has set.
    fn snapshot(&self) -> (Vec<u32>, String) {
        let registers = READ_ONLY.iter().chain(READ_WRITE).map(|&register| self.read(register)).collect();
        let core = self.transport.with_core(|core| format!("{core:?}"));
        (registers, core)
    }
}

/// 4.2.2, 4.2.2.1; device ids: 5.
#[test]
fn identification_registers_say_virtio_2_and_the_device() {
    let bench = Bench::<Mmio>::new();
    assert_eq!(bench.read(0x00), 0x7472_6976);
    assert_eq!(bench.read(0x04), 2);
    assert_eq!(bench.read(0x08), 4);
    // No shared memory regions: length and base of -1.
    assert!([0xb0, 0xb4, 0xb8, 0xbc].iter().all(|&register| bench.read(register) == u32::MAX));
}

/// 4.2.2: directions.
#[test]
fn writes_to_read_only_and_reserved_registers_have_no_effect() {
    for status in [0, 3, 11, 15] {
        let mut bench = Bench::<Mmio>::new();
        bench.initialise(status);
        let before = bench.snapshot();
        for register in (0..CONFIG).step_by(4) {
            if !WRITE_ONLY.contains(&register) && !READ_WRITE.contains(&register) {
                [0, 1, 2, 0xff, u32::MAX].iter().for_each(|&value| bench.write(register, value));
                assert_eq!(bench.snapshot(), before, "{register:#x}");
            }
        }
    }
}

#[test]
fn write_only_and_reserved_registers_read_as_zero() {
    let bench = Bench::<Mmio>::started();
    for register in (0..CONFIG).step_by(4) {
        if !READ_ONLY.contains(&register) && !READ_WRITE.contains(&register) {
            assert_eq!(bench.read(register), 0, "{register:#x}");
        }
    }
}

/// 4.2.2.2: "MUST only use 32 bit wide and aligned reads and writes". An access that begins in the registers and ends in
/// the configuration space is one of neither.
#[test]
fn registers_answer_only_to_aligned_32_bit_accesses() {
    let bench = Bench::<Mmio>::started();
    let before = bench.snapshot();
    for register in 0..CONFIG {
        for len in [1, 2, 4, 8] {
            if len == 4 && register % 4 == 0 {
                continue;
            }
            let mut data = vec![0xaa; len];
            bench.transport.window().read(register, &mut data);
            assert_eq!(data, vec![0; len], "{register:#x}, {len} bytes");
            for byte in [0, 1, 0xff] {
                bench.transport.window().write(register, &vec![byte; len]);
                assert_eq!(bench.snapshot(), before, "{register:#x}, {len} bytes of {byte}");
            }
        }
    }
}

/// The window is larger than any configuration space.
#[test]
fn past_the_configuration_space_there_are_zeros() {
    let bench = Bench::<Mmio>::started();
    for offset in [CONFIG + 10, WINDOW_SIZE - 8, WINDOW_SIZE - 1, u64::MAX] {
        let mut data = [0xaa; 8];
        bench.transport.window().read(offset, &mut data);
        assert_eq!(data, [0; 8], "{offset:#x}");
        bench.transport.window().write(offset, &[0xff; 8]);
    }
}

/// 4.2.2: the status register is 32 bits wide, the device status 8 (2.1): what does not fit is no status.
#[test]
fn a_status_of_more_than_8_bits_has_no_effect() {
    let mut bench = Bench::<Mmio>::new();
    for from in [0u8, 1, 3, 11, 15] {
        bench.restart(from);
        let next = u32::from(from) << 1 | 1;
        for written in [0x100, 0x100 | u32::from(from), 0x100 | next, 0x8000_0000, 0xffff_ff00 | next] {
            bench.write(STATUS, written);
            assert_eq!(bench.read(STATUS), u32::from(from), "{from:#x} -> {written:#x}");
        }
    }
}

/// 4.2.2: selectors and QueueNotify are 32 bits wide, and none is cut.
#[test]
fn indices_are_not_cut_to_16_bits() {
    let mut bench = Bench::<Mmio>::started();
    for queue in [0x1_0000, 0x1_0001, 0x8000_0000, u32::MAX] {
        bench.write(QUEUE_SEL, queue);
        assert_eq!((bench.read(QUEUE_NUM_MAX), bench.read(QUEUE_READY)), (0, 0), "{queue:#x}");
    }
    bench.take_calls();
    for queue in [0x1_0000, 0x1_0001, 0x8000_0000, u32::MAX] {
        bench.write(NOTIFY, queue);
        bench.events.run();
    }
    assert_eq!(bench.take_calls(), []);
}

/// 4.2.2.1: an event is shown "until the driver acknowledges the interrupt by writing a corresponding bit mask".
#[test]
fn an_acknowledged_interrupt_is_cleared_and_no_other() {
    let mut bench = Bench::<Mmio>::started();
    bench.drivers[0].request(&[], &[4]);
    bench.drivers[0].offer(0xffff);
    bench.notify(0);
    assert_eq!(bench.read(INTERRUPT_STATUS), 3);
    for (ack, left) in [(0, 3), (4, 3), (0x8000_0000, 3), (1, 2), (1, 2), (2, 0)] {
        bench.write(INTERRUPT_ACK, ack);
        assert_eq!(bench.read(INTERRUPT_STATUS), left);
    }
    assert_eq!(bench.read(STATUS), 15 | 64, "acknowledging does not repair");
    bench.assert_works_after_reset();
}

/// 4.2.2.1: a reset clears InterruptStatus. One pulse of the line for each interrupt.
#[test]
fn each_interrupt_is_one_edge() {
    let mut bench = Bench::<Mmio>::started();
    for _ in 0..2 {
        assert_eq!(bench.request(0).len(), 1);
        assert_eq!((bench.transport.edges(), bench.read(INTERRUPT_STATUS)), (1, 1));
    }
    bench.write(STATUS, 0);
    assert_eq!(bench.read(INTERRUPT_STATUS), 0);
    assert_eq!(bench.take_calls().last(), Some(&Call::Stop));
}
