// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device tree and ACPI tables of any machine. firmware/tests/matching makes it from a number, the fuzzer edits it, and
//! the readers of firmware/tests/matching decode what the generators wrote. iasl and dtc, which are slow, see the stored
//! corpus only.

use arbitrary::{Arbitrary, Unstructured};
use cvmm_firmware::{AcpiTable, Binding, Machine, PoolId, Range, Transport, acpi_tables, device_tree};
use proptest::prelude::{BoxedStrategy, Strategy};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::{described, dt, machines, tables};

/// Where the tables go.
const TABLES: u64 = 0xe_0000;

thread_local! {
    static MACHINES: BoxedStrategy<Machine> = machines::any_machine().boxed();
}

#[derive(Arbitrary, Debug)]
struct Input {
    seed: [u8; 4],
    edits: Vec<Edit>,
    spoil: Option<Spoil>,
}

/// A change after which the machine is one that can be.
#[derive(Arbitrary, Debug)]
enum Edit {
    DropDevice(u8),
    SwapDevices(u8, u8),
    KeepDevices(u8),
    KeepCpus(u8),
    ApicId(u32),
    Bootargs(String),
    Power(u32, u32),
    Sleep(u8, u8),
    NoHighMemory,
    /// The device's pool is memory of its own, in BAR 2, if it is on PCI.
    OwnMemory(u8),
}

/// A change after which it is not.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Spoil {
    PciNumber(bool),
    PciNumberTwice,
    NoPciHost,
    NoSuchPool(u8, u16),
    OwnMemoryWithoutBar,
    TwoDefaults,
    NotDefault,
    PoolsOverlap,
}

/// The machine that these bytes stand for; `false` if it is one that can't be.
pub fn machine(data: &[u8]) -> Option<(bool, Machine)> {
    let Input { seed, edits, spoil } = Input::arbitrary_take_rest(Unstructured::new(data)).ok()?;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.repeat(8));
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let mut machine = MACHINES.with(|machines| machines.new_tree(&mut runner)).ok()?.current();
    edits.iter().take(16).for_each(|edit| self::edit(&mut machine, edit));
    let spoiled = spoil.is_some_and(|spoil| self::spoil(&mut machine, spoil));
    Some((!spoiled, machine))
}

fn edit(machine: &mut Machine, edit: &Edit) {
    let devices = machine.virtio.len();
    let index = |number: &u8| usize::from(*number) % devices.max(1);
    match edit {
        Edit::DropDevice(number) if devices > 0 => drop(machine.virtio.remove(index(number))),
        Edit::SwapDevices(a, b) if devices > 0 => machine.virtio.swap(index(a), index(b)),
        Edit::KeepDevices(count) => machine.virtio.truncate((*count).into()),
        Edit::KeepCpus(count) => machine.cpus.truncate(usize::from(*count).max(1)),
        // The last is no CPU's: it means all of them (ACPI 6.5, 5.2.12.12).
        Edit::ApicId(id) if !machine.cpus.contains(id) && *id != u32::MAX => machine.cpus.push(*id),
        Edit::Bootargs(text) if !text.contains('\0') => machine.bootargs.clone_from(text),
        Edit::Power(off, reset) => {
            (machine.system.power_off_value, machine.system.reset_value) = (*off, *reset);
        }
        Edit::Sleep(off, reset) => {
            (machine.system.sleep.type_off, machine.system.sleep.reset_value) = (off % 8, *reset);
        }
        Edit::NoHighMemory if machine.pools.iter().all(|pool| pool.range.base() < 1 << 32) => {
            machine.memory.truncate(1);
        }
        Edit::OwnMemory(number) if devices > 0 => {
            let device = &mut machine.virtio[index(number)];
            if let Transport::Pci { bar, .. } = device.transport {
                let size = machine.pools[usize::from(device.pool.0)].range.size().next_power_of_two();
                device.binding = Binding::OnDevice(Range::fixed(bar.base() / size * size, size));
            }
        }
        _ => {}
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((possible, machine)) = machine(data) else { return };
    if !possible {
        assert!(device_tree(&machine).is_err(), "a device tree of what can't be: {machine:?}");
        assert!(acpi_tables(&machine, TABLES).is_err(), "ACPI tables of what can't be: {machine:?}");
        return;
    }
    let blob = device_tree(&machine).expect("a device tree");
    let (model, only) = dt::read(&blob);
    assert_eq!(model, described::model(&machine), "device tree (left), the description (right)");
    assert_eq!(only, described::dt_only(&machine), "device tree (left), the description (right)");
    model.is_sound(&only.memory);
    check_tables(&machine, &acpi_tables(&machine, TABLES).expect("ACPI tables"));
}

/// Every table but the DSDT's objects.
fn check_tables(machine: &Machine, tables: &[AcpiTable]) {
    let mut end = TABLES;
    for AcpiTable { address, bytes, .. } in tables {
        assert!(*address >= end && address % 16 == 0, "a table at {address:#x}, before {end:#x}");
        end = address + bytes.len() as u64;
    }
    let at = |address: u64| {
        let found = tables.iter().find(|table| table.address == address);
        found.unwrap_or_else(|| panic!("no table at {address:#x}"))
    };
    let xsdt = tables::rsdp(&at(TABLES).bytes);
    let listed = tables::xsdt(&at(xsdt).bytes);
    assert_eq!(listed.len() + 3, tables.len(), "all but RSDP, XSDT and DSDT are listed");
    for table in listed.into_iter().map(at) {
        match table.name {
            "FACP" => {
                let fadt = tables::fadt(&table.bytes);
                assert_eq!(at(fadt.dsdt).name, "DSDT");
                let sleep = machine.system.sleep;
                assert_eq!(fadt.sleep_control, sleep.window.base(), "sleep control");
                assert_eq!(fadt.reset_value, sleep.reset_value, "reset value");
            }
            "APIC" => {
                let madt = tables::madt(&table.bytes);
                let apic_ids: Vec<_> = madt.cpus.iter().map(|(apic_id, _)| *apic_id).collect();
                assert_eq!(apic_ids, machine.cpus, "CPUs");
                assert_eq!(madt.io_apic, machine.io_apic.window.base(), "I/O APIC");
            }
            "MCFG" => {
                let ecam = machine.pci.expect("a PCI host").ecam;
                assert_eq!(tables::mcfg(&table.bytes).0.base, ecam.base(), "ECAM");
            }
            "SPCR" => {
                let (uart, interrupt) = machine.system.uart;
                assert_eq!(tables::spcr(&table.bytes), (uart.base(), interrupt.0), "UART");
            }
            other => panic!("a table that nobody knows: {other}"),
        }
    }
    let dsdt = tables.iter().find(|table| table.name == "DSDT").expect("a DSDT");
    let length = u32::from_le_bytes(dsdt.bytes[4..8].try_into().expect("4 bytes"));
    assert_eq!(length as usize, dsdt.bytes.len(), "length of the DSDT");
}

/// Makes `machine` one that can't be, if it has what is spoiled.
fn spoil(machine: &mut Machine, how: Spoil) -> bool {
    let pools = u16::try_from(machine.pools.len()).expect("few");
    let has_pci = machine.pci.is_some();
    let mut on_pci = machine.virtio.iter_mut().filter_map(|device| match &mut device.transport {
        Transport::Pci { device, .. } => Some(device),
        Transport::Mmio { .. } => None,
    });
    match how {
        Spoil::PciNumber(low) => on_pci.next().map(|number| *number = if low { 0 } else { 32 }).is_some(),
        Spoil::PciNumberTwice => match (on_pci.next(), on_pci.next()) {
            (Some(a), Some(b)) => {
                *a = *b;
                true
            }
            _ => false,
        },
        Spoil::NoPciHost => {
            let on_bus = on_pci.next().is_some();
            machine.pci = None;
            on_bus && has_pci
        }
        Spoil::NoSuchPool(device, past) => {
            let device = machine.virtio.get_mut(usize::from(device));
            device.map(|device| device.pool = PoolId(pools.saturating_add(past))).is_some()
        }
        Spoil::OwnMemoryWithoutBar => {
            let mut devices = machine.virtio.iter_mut();
            let on_mmio = devices.find(|device| matches!(device.transport, Transport::Mmio { .. }));
            on_mmio.map(|device| device.binding = Binding::OnDevice(Range::fixed(0, 1 << 20))).is_some()
        }
        Spoil::TwoDefaults => {
            machine.pools.iter_mut().for_each(|pool| pool.dma_default = true);
            pools > 1
        }
        Spoil::PoolsOverlap => {
            let first = machine.pools.first().map(|pool| pool.range);
            if let Some((last, first)) = machine.pools.last_mut().zip(first) {
                last.range = first;
            }
            pools > 1
        }
        Spoil::NotDefault => {
            machine.pools.iter_mut().for_each(|pool| pool.dma_default = false);
            machine.virtio.first_mut().map(|device| device.binding = Binding::Default).is_some()
        }
    }
}
