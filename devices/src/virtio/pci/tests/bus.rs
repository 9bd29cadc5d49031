// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command register and the BAR, with a device behind them (PCI 3.0, 6.2.2 and 6.2.5).

use super::*;
use crate::testing::pci::{BAR_SIZE, ECAM, write};

fn window(base: u64) -> Option<Range> {
    Range::new(base, BAR_SIZE)
}

/// The slot hears where the BAR is when that changes, so that notifications may go past the registers.
#[test]
fn the_slot_is_told_where_the_bar_is() {
    let toy = probe(Toy::new().0);
    let first = 0xc000_8000;
    assert_eq!(toy.slot().take(), [Told::Map(window(first))]);
    // What does not move it is not told.
    toy.set_command(MEMORY);
    toy.config_write(0x3c, 1, 5);
    toy.move_bar(first);
    toy.set_msix(MSIX_ENABLE);
    assert_eq!(toy.slot().take(), []);
    toy.set_command(0);
    assert_eq!(toy.slot().take(), [Told::Map(None)]);
    toy.move_bar(0x12_c010_0000);
    assert_eq!(toy.slot().take(), [], "6.2.5.1: sizing and moving while it is off");
    toy.set_command(MEMORY);
    assert_eq!(toy.slot().take(), [Told::Map(window(0x12_c010_0000))]);
    // While it is on, each half counts.
    toy.move_bar(0x34_c020_0000);
    let moves = [0x12_c020_0000, 0x34_c020_0000].map(|base| Told::Map(window(base)));
    assert_eq!(toy.slot().take(), moves);
    assert_eq!(toy.slot().window(), window(0x34_c020_0000));
}

/// With requests on their way: what was available before is served after, nothing is lost, and the old place is dead.
#[test]
fn the_bar_moves_while_a_queue_runs() {
    let mut bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    let notify = driver.notify_offset(0);
    bench.take_calls();
    for (number, base) in (0..).zip([0xc100_0000, 0x40_0000_0000, u64::MAX - (BAR_SIZE - 1), 0xc000_8000]) {
        let old = driver.bar();
        bench.drivers[0].request(&[], &[4]);
        driver.move_bar(base);
        assert_eq!(driver.slot().window(), window(base));
        write(&driver.machine.memory, old + notify, 2, 0);
        bench.events.run();
        assert_eq!((bench.drivers[0].take_used(), bench.take_calls()), (vec![], vec![]), "at the old place");
        assert_eq!(driver.get(0x14, 1), 15);
        write(&driver.machine.memory, base + notify, 2, 0);
        bench.events.run();
        assert_eq!(bench.drivers[0].take_used(), [(number, 4)]);
        assert_eq!(driver.take_messages(), [1, 0, 0]);
        bench.take_calls();
    }
}

/// Memory space off: the device runs on, and hears nothing.
#[test]
fn without_memory_space_there_are_no_registers() {
    let mut bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    let notify = driver.notify_offset(0);
    bench.drivers[0].request(&[], &[4]);
    driver.set_command(BUS_MASTER);
    bench.take_calls();
    assert_eq!(driver.get(0x14, 1), 0xff);
    driver.set(0x14, 1, 0);
    driver.write(notify, 2, 0);
    bench.events.run();
    assert_eq!(bench.take_calls(), []);
    driver.set_command(BUS_MASTER | MEMORY);
    assert_eq!(bench.status(), 15);
    bench.notify(0);
    assert_eq!(bench.drivers[0].take_used(), [(0, 4)]);
}

/// 6.2.2, Bus Master: while it is clear the device makes no accesses; neither data nor messages.
#[test]
fn without_bus_mastering_there_is_no_dma_and_no_message() {
    let mut bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    driver.set_command(MEMORY);
    let (image, rings) = (bench.memory.image(), bench.memory.gate.audit().rings().accesses);
    for queue in [0, 1] {
        bench.notify(queue);
    }
    assert!(image == bench.memory.image(), "the pool was changed");
    bench.drivers[0].request(&[], &[4]);
    bench.drivers[1].request(&[], &[5]);
    bench.notify(0);
    bench.notify(1);
    assert_eq!((bench.drivers[0].take_used(), bench.drivers[1].take_used()), (vec![], vec![]));
    assert_eq!(bench.memory.gate.audit().rings().accesses, rings);
    assert_eq!((bench.memory.gate.audit().written().bytes, driver.take_messages()), (0, vec![0; 3]));
    // What was asked for meanwhile is done when it may be, without another notification.
    driver.set_command(MEMORY | BUS_MASTER);
    bench.events.run();
    assert_eq!((bench.drivers[0].take_used(), bench.drivers[1].take_used()), (vec![(0, 4)], vec![(0, 5)]));
    assert_eq!(driver.take_messages(), [1, 1, 0]);
    // The device is woken by the change alone.
    bench.take_calls();
    driver.set_command(MEMORY | BUS_MASTER);
    driver.set_command(MEMORY | BUS_MASTER | INTERRUPT_DISABLE);
    driver.set_command(BUS_MASTER);
    bench.events.run();
    assert_eq!(bench.take_calls(), []);
}

/// A message that is due while there is no bus mastering is sent when it comes back: once.
#[test]
fn a_message_waits_for_bus_mastering() {
    let mut bench = Bench::<PciMsix>::new();
    let driver = bench.transport.0.clone();
    bench.initialise(11);
    driver.set_command(MEMORY);
    // The configuration change of this refusal comes from the registers, not from a queue.
    bench.transport.enable_queue(0);
    assert_eq!(bench.status(), 11 | 64);
    assert_eq!((driver.take_messages(), driver.pending_bits()), (vec![0; 3], 0b100));
    for expected in [1, 0] {
        driver.set_command(MEMORY | BUS_MASTER);
        assert_eq!((driver.take_messages(), driver.pending_bits()), (vec![0, 0, expected], 0));
        driver.set_command(MEMORY);
    }
}

/// As after a reset of PCI: no addresses, no memory (6.2.2).
#[test]
fn a_function_starts_switched_off() {
    let (machine, _workers) = PciMachine::new(vec![Toy::new().0], &Memory::new().gate);
    let command = crate::testing::pci::read(&machine.memory, ECAM + (1 << 15) + 4, 2);
    assert_eq!((command, machine.functions[0].slot.take()), (0, vec![]));
    assert_eq!(machine.functions[0].transport.window(), None);
    assert!(!machine.functions[0].transport.with_core(|core| core.handle().allow_dma(false)));
}

/// Two devices side by side, and in one place: each works when it is alone, and what one does is not the other's.
#[test]
fn two_functions_on_one_address() {
    let memory = Memory::new();
    let (machine, _workers) = PciMachine::new(vec![Toy::new().0, Toy::new().0], &memory.gate);
    let [one, two] = [1, 2].map(|device| PciDriver::probe(&machine, device));
    assert_ne!(one.bar(), two.bar());
    one.set(0x14, 1, 1);
    assert_eq!((one.get(0x14, 1), two.get(0x14, 1)), (1, 0));
    let (first, second) = (one.bar(), two.bar());
    two.move_bar(first);
    assert_eq!((one.slot().window(), two.slot().window()), (window(first), window(first)));
    let seen = one.get(0x14, 1);
    one.set(0x14, 1, 3);
    assert!([0, 1].contains(&seen));
    one.set_command(0);
    assert_eq!(two.get(0x14, 1), 0);
    two.move_bar(second);
    one.set_command(MEMORY);
    assert_eq!((one.get(0x14, 1), two.get(0x14, 1)), (3, 0));
}
