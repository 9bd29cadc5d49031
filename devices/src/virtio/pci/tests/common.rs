// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `struct virtio_pci_common_cfg`, field by field (virtio 1.3, 4.1.4.3). Offsets and widths are written out from there.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    ReadOnly,
    ReadWrite,
}
use Direction::*;

/// Offset, width in bytes, direction. 64-bit fields are two of 32 bits (4.1.3).
const FIELDS: &[(u64, usize, Direction)] = &[
    (0x00, 4, ReadWrite),
    (0x04, 4, ReadOnly),
    (0x08, 4, ReadWrite),
    (0x0c, 4, ReadWrite),
    (0x10, 2, ReadWrite),
    (0x12, 2, ReadOnly),
    (0x14, 1, ReadWrite),
    (0x15, 1, ReadOnly),
    (0x16, 2, ReadWrite),
    (0x18, 2, ReadWrite),
    (0x1a, 2, ReadWrite),
    (0x1c, 2, ReadWrite),
    (0x1e, 2, ReadOnly),
    (0x20, 4, ReadWrite),
    (0x24, 4, ReadWrite),
    (0x28, 4, ReadWrite),
    (0x2c, 4, ReadWrite),
    (0x30, 4, ReadWrite),
    (0x34, 4, ReadWrite),
];
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_ENABLE: u64 = 0x1c;

impl Bench<PciMsix> {
    fn snapshot(&self) -> (Vec<u64>, String) {
        let driver = &self.transport.0;
        let fields = FIELDS.iter().map(|&(offset, len, _)| driver.get(offset, len)).collect();
        (fields, self.with_core(|core| format!("{core:?}")))
    }
}

/// The fields are next to each other, and there are no more: what follows goes with features that are not offered.
#[test]
fn the_table_is_complete() {
    let end = FIELDS.iter().fold(0, |at, &(offset, len, _)| {
        assert_eq!(offset, at);
        offset + len as u64
    });
    assert_eq!((end, probe(Toy::new().0).common.length), (0x38, 0x38));
    // NOTIF_CONFIG_DATA (39), RING_RESET (40), ADMIN_VQ (41).
    let bench = Bench::<PciMsix>::new();
    assert_eq!(bench.device_features(1) & 0b111 << 7, 0);
}

/// 4.1.3.1: "8-bit wide accesses for 8-bit wide fields, 16-bit wide and aligned accesses for 16-bit wide fields and
/// 32-bit wide and aligned accesses for 32-bit and 64-bit wide fields". Others read as zeros and have no effect, also
/// across the ends of the structure.
#[test]
fn fields_answer_to_their_own_width() {
    for status in [3, 11, 15] {
        let mut bench = Bench::<PciMsix>::new();
        bench.initialise(status);
        let driver = bench.transport.0.clone();
        driver.select(1);
        let before = bench.snapshot();
        let start = driver.bar() + driver.common.offset;
        for offset in 0..0x60u64 {
            for len in [1usize, 2, 4, 8] {
                if FIELDS.iter().any(|field| (field.0, field.1) == (offset, len)) {
                    continue;
                }
                let mut data = vec![0xaa; len];
                driver.machine.memory.read(start + offset, &mut data);
                assert_eq!(data, vec![0; len], "{len} at {offset:#x}");
                for byte in [0, 1, 0xff] {
                    driver.machine.memory.write(start + offset, &vec![byte; len]);
                    assert_eq!(bench.snapshot(), before, "{len} at {offset:#x}, {byte}");
                }
            }
        }
        // Before the BAR's start there is nothing of this function.
        driver.machine.memory.write(driver.bar() - 1, &[0; 4]);
        assert_eq!(bench.snapshot(), before);
    }
}

/// 4.1.4.3.2: "MUST NOT write to device_feature, num_queues, config_generation, queue_notify_off".
#[test]
fn read_only_fields_do_not_change() {
    for status in [0, 3, 11, 15] {
        let mut bench = Bench::<PciMsix>::new();
        bench.initialise(status);
        let driver = bench.transport.0.clone();
        for queue in [0, 1, 2] {
            driver.select(queue);
            let before = bench.snapshot();
            for &(offset, len, _) in FIELDS.iter().filter(|field| field.2 == ReadOnly) {
                for value in [0, 1, 2, 0xff, u64::MAX] {
                    driver.set(offset, len, value);
                    assert_eq!(bench.snapshot(), before, "{offset:#x} <- {value:#x}");
                }
            }
        }
    }
}

/// What each field is after a reset, for queues that are there and one that is not.
#[test]
fn fields_after_a_reset() {
    let mut bench = Bench::<PciMsix>::started();
    bench.transport.set_status(0);
    let driver = bench.transport.0.clone();
    assert_eq!(driver.get(0x10, 2), 0xffff, "4.1.5.1.2.1: unmapped");
    assert_eq!((driver.get(0x12, 2), driver.get(0x14, 1)), (2, 0));
    for (queue, size, notify_off) in [(0, 16, 0), (1, 8, 1), (2, 0, 0), (0xffff, 0, 0)] {
        driver.select(queue);
        assert_eq!(driver.get(QUEUE_SELECT, 2), u64::from(queue));
        assert_eq!((driver.get(QUEUE_SIZE, 2), driver.get(0x1e, 2)), (size, notify_off), "{queue}");
        assert_eq!((driver.get(0x1a, 2), driver.get(QUEUE_ENABLE, 2)), (0xffff, 0));
        assert!((0x20..0x38).step_by(4).all(|offset| driver.get(offset, 4) == 0));
    }
    bench.assert_works_after_reset();
}

/// Selectors and features are read back. 4.1.4.3.1: "MUST present any valid feature bits the driver has written in
/// driver_feature, starting at bit driver_feature_select * 32"; there are none past 63.
#[test]
fn what_is_read_write_reads_back() {
    let mut bench = Bench::<PciMsix>::new();
    bench.initialise(3);
    let driver = bench.transport.0.clone();
    let valid = [1 << 3 | 1 << 28, 0b11, 0, 0];
    for select in [0u64, 1, 2, 0xffff_ffff] {
        for offset in [0x00, DRIVER_FEATURE_SELECT] {
            driver.set(offset, 4, select);
            assert_eq!(driver.get(offset, 4), select);
        }
        if select < 2 {
            driver.set(DRIVER_FEATURE, 4, valid[usize::try_from(select).unwrap()]);
        }
    }
    for (select, bits) in [0u64, 1, 2, 0xffff_ffff].into_iter().zip(valid) {
        driver.set(DRIVER_FEATURE_SELECT, 4, select);
        assert_eq!(driver.get(DRIVER_FEATURE, 4), bits);
        // The two selectors are two.
        driver.set(0x00, 4, 1 - select.min(1));
        assert_eq!(driver.get(DRIVER_FEATURE, 4), bits);
    }
    bench.transport.set_status(11);
    assert_eq!(bench.status(), 11);
    // 3.1.1, step 5: frozen.
    driver.set(DRIVER_FEATURE_SELECT, 4, 0);
    driver.set(DRIVER_FEATURE, 4, 0);
    assert_eq!(driver.get(DRIVER_FEATURE, 4), valid[0]);
    for (offset, value) in [(0x20, 0x1111_1110), (0x28, 0x2222_2222), (0x30, 0x3333_3330)] {
        for queue in [0, 1] {
            driver.select(queue);
            driver.set(offset + 4, 4, value + u64::from(queue));
            assert_eq!(driver.get(offset, 4), 0, "4.1.3.2: the halves are independent");
            driver.set(offset, 4, !value & 0xffff_ffff);
            assert_eq!(driver.get(offset, 4), !value & 0xffff_ffff);
            assert_eq!(driver.get(offset + 4, 4), value + u64::from(queue));
        }
    }
    let layout = bench.layouts()[1];
    let expected = [0x1111_1111_eeee_eeefu64, 0x2222_2223_dddd_dddd, 0x3333_3331_cccc_cccf];
    assert_eq!([layout.descriptor_table, layout.available_ring, layout.used_ring], expected);
}

/// 4.1.4.3.1: "the device MUST present either a value of 0 or a power of 2 in queue_size".
#[test]
fn queue_size_is_0_or_a_power_of_2() {
    let mut bench = Bench::<PciMsix>::new();
    bench.initialise(11);
    let driver = bench.transport.0.clone();
    driver.select(0);
    for size in [8, 1, 3, 2, 17, 0x8000, 0x7fff, 0xffff, 0, 16] {
        driver.set(QUEUE_SIZE, 2, size);
        let shown = driver.get(QUEUE_SIZE, 2);
        assert!(shown == 0 || shown.is_power_of_two(), "{size} shows as {shown}");
        if size.is_power_of_two() {
            assert_eq!(shown, size);
        }
    }
}

/// 4.1.4.3.2: "The driver MUST NOT write a 0 to queue_enable": 1 enables, nothing disables but a reset.
#[test]
fn queue_enable_is_set_with_1_and_cleared_by_a_reset() {
    let mut bench = Bench::<PciMsix>::new();
    bench.initialise(11);
    bench.set_up_queue(0);
    let driver = bench.transport.0.clone();
    driver.select(0);
    for value in [0, 2, 3, 0x100, 0xffff] {
        driver.set(QUEUE_ENABLE, 2, value);
        assert_eq!(driver.get(QUEUE_ENABLE, 2), 0, "{value:#x}");
    }
    driver.set(QUEUE_ENABLE, 2, 1);
    for status in [11, 15] {
        bench.transport.set_status(status);
        driver.select(0);
        for value in [0, 2, 0x100, 0xffff, 1] {
            driver.set(QUEUE_ENABLE, 2, value);
            assert_eq!(driver.get(QUEUE_ENABLE, 2), 1, "{value:#x}");
        }
    }
    assert_eq!(bench.request(0), [(0, 4)]);
    bench.transport.set_status(0);
    driver.select(0);
    assert_eq!(driver.get(QUEUE_ENABLE, 2), 0);
}

/// 4.1.4.4: cap.offset + queue_notify_off * notify_off_multiplier is each queue's own address.
#[test]
fn each_queue_has_its_notification_address() {
    let mut bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    bench.take_calls();
    for queue in [0u16, 1] {
        let offset = driver.notify_offset(queue);
        assert_eq!(offset, notify_offset(queue), "where the ioeventfd is");
        // What is written is the index, and not what decides.
        for value in [u64::from(queue), 0, 1, 0xffff] {
            driver.write(offset, 2, value);
            bench.events.run();
            assert_eq!(bench.take_calls(), [Call::Serve(queue)]);
        }
        assert_eq!(driver.read(offset, 2), 0);
    }
    let end = driver.notify.offset + driver.notify.length;
    for offset in [end, end + 2, 0x3ffe, driver.notify.offset - 2] {
        driver.write(offset, 2, 0);
        bench.events.run();
        assert_eq!(bench.take_calls(), [], "{offset:#x}");
    }
}

/// Between the structures, and past the last one, there is nothing; an access across a structure's end is not in it.
#[test]
fn the_rest_of_the_bar_reads_as_zeros() {
    let bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    let before = bench.snapshot();
    let config = driver.config.unwrap();
    let nowhere = [0x38, 0x800, 0xffe, 0x1002, 0x1ffc, config.offset + 0xffe, 0x5ffe, 0x6ffe, 0x7000, 0x7ff8];
    for offset in nowhere {
        for len in [1usize, 2, 4, 8] {
            assert_eq!(driver.read(offset, len), 0, "{len} at {offset:#x}");
            driver.write(offset, len, u64::MAX);
            assert_eq!(bench.snapshot(), before, "{len} at {offset:#x}");
        }
    }
}
