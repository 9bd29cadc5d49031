// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The devices of a DSDT.

use std::collections::{BTreeMap, BTreeSet};

use super::asl::{self, Term};
use super::namespace::{Object, Paths, load, parent};
use super::pci::Root;
use super::resources::{Resource, resources};
use crate::model::{Line, VirtioMmio, VirtioPci, Window};

/// What the DSDT says.
#[derive(Default)]
pub struct Devices {
    /// `SLP_TYP` for power off.
    pub type_off: u8,
    /// `_UID` of each processor device.
    pub processors: Vec<u32>,
    /// What the motherboard has.
    pub reserved: Vec<Resource>,
    pub uart: Vec<(Window, Line)>,
    pub pvpanic: Vec<Window>,
    /// By their paths.
    pub pools: BTreeMap<String, Window>,
    pub virtio_mmio: Vec<VirtioMmio>,
    pub pci: Option<Root>,
    pub virtio_pci: Vec<VirtioPci>,
}

/// Reads the ASL of a DSDT.
pub fn read(asl: &str) -> Devices {
    let (objects, paths) = load(&asl::parse(asl));
    let mut devices = Devices::default();
    let mut found = Vec::new();
    let mut identities = BTreeSet::new();
    for mut object in objects {
        match object.path.as_str() {
            "\\" => {
                devices.type_off = sleep_type(&object.take("_S5"));
                object.done();
            }
            "\\_SB" => object.done(),
            _ => {
                let hid = object.identifier("_HID");
                // Objects with an identifier need a number that no other of the same has (ACPI 6.5, 6.1.12).
                if let Some(hid) = &hid {
                    let uid = object.integer("_UID");
                    assert!(
                        identities.insert((hid.clone(), uid)),
                        "{}: another is {hid}, {uid}",
                        object.path
                    );
                    if hid == "ACPI0007" {
                        devices.processors.push(u32::try_from(uid).expect("a UID in the MADT has 32 bits"));
                    }
                }
                found.push((hid, object));
            }
        }
    }
    // What others refer to comes first.
    found.sort_by_key(|(hid, _)| !matches!(hid.as_deref(), Some("PRP0001" | "PNP0A08")));
    for (hid, object) in found {
        devices.add(hid.as_deref(), object, &paths);
    }
    devices.virtio_pci.sort_by_key(|virtio| virtio.device);
    devices
}

impl Devices {
    /// No device has a `_STA`: they are there, and work.
    fn add(&mut self, hid: Option<&str>, mut object: Object, paths: &Paths) {
        match hid {
            Some("ACPI0007") => {}
            Some("PNP0C02") => self.reserved.extend(resources(&object.take("_CRS"))),
            Some("PNP0501") => self.uart.push(registers_and_line(&mut object)),
            Some("QEMU0001") => {
                let [Resource::Registers(window)] = resources(&object.take("_CRS"))[..] else {
                    panic!("{}: one window, and nothing else", object.path)
                };
                self.pvpanic.push(window);
            }
            Some("PRP0001") => {
                let pool = pool(&mut object);
                self.pools.insert(object.path.clone(), pool);
            }
            Some("LNRO0005") => {
                let (window, line) = registers_and_line(&mut object);
                let coherent = coherent(&mut object);
                let pool = self.pool_of(&mut object, paths);
                self.virtio_mmio.push(VirtioMmio { window, line, coherent, pool });
            }
            Some("PNP0A08") => {
                let root = Root::read(&mut object);
                assert!(self.pci.replace(root).is_none(), "two PCI roots");
            }
            None if self.pci.as_ref().is_some_and(|root| Some(&*root.path) == parent(&object.path)) => {
                // Device in the upper half, function in the lower (ACPI 6.5, table 6.2).
                let address = object.integer("_ADR");
                let [device, function] = [address >> 16, address & 0xffff];
                let (device, function) = (u8::try_from(device), u8::try_from(function));
                let (Ok(device @ 0..32), Ok(function @ 0..8)) = (device, function) else {
                    panic!("{}: no function has the address {address:#x}", object.path)
                };
                let pool = self.pool_of(&mut object, paths);
                self.virtio_pci.push(VirtioPci { device, function, pool });
            }
            other => panic!("{}: a device that the reader does not know: {other:?}", object.path),
        }
        object.done();
    }

    /// What the property `memory-region` refers to.
    fn pool_of(&self, object: &mut Object, paths: &Paths) -> Window {
        let reference = property(object, "memory-region");
        let [pool] = reference.package() else { panic!("{}: {reference:?}", object.path) };
        let path = paths.resolve(pool.name(), &object.path);
        *self.pools.get(&path).unwrap_or_else(|| panic!("{}: {path} is no pool", object.path))
    }
}

/// Whether DMA is coherent with the CPUs' caches.
pub(super) fn coherent(object: &mut Object) -> bool {
    match object.integer("_CCA") {
        0 => false,
        1 => true,
        other => panic!("{}._CCA is {other}", object.path),
    }
}

/// `\_S5`: sleep types for the two registers that a PC has; hardware-reduced ACPI has one (ACPI 6.5, 4.8.3.7, 7.4.2).
fn sleep_type(package: &Term) -> u8 {
    let [one, other] = package.package() else { panic!("_S5: {package:?}") };
    assert_eq!(one, other, "elements of _S5");
    u8::try_from(one.integer()).ok().filter(|value| *value < 8).expect("SLP_TYP has 3 bits")
}

fn registers_and_line(object: &mut Object) -> (Window, Line) {
    let [Resource::Registers(window), Resource::Line(line)] = resources(&object.take("_CRS"))[..] else {
        panic!("{}: one window, one line, and nothing else", object.path)
    };
    (window, line)
}

/// A device tree's `restricted-dma-pool`.
fn pool(object: &mut Object) -> Window {
    assert_eq!(property(object, "compatible").string(), "restricted-dma-pool", "{}", object.path);
    let [Resource::Ram(window)] = resources(&object.take("_CRS"))[..] else {
        panic!("{}: one range of memory, and nothing else", object.path)
    };
    window
}

/// The one device property that `object` has.
fn property(object: &mut Object, name: &str) -> Term {
    /// Of device properties, not of another form of data (Linux, Documentation/firmware-guide/acpi/DSD-properties-rules).
    const UUID: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";
    let data = object.take("_DSD");
    let [uuid, properties] = data.package() else { panic!("{}._DSD: {data:?}", object.path) };
    let ("ToUUID", [Term::String(uuid)], []) = uuid.call() else { panic!("{}: {uuid:?}", object.path) };
    assert_eq!(uuid.to_lowercase(), UUID, "{}._DSD", object.path);
    let [property] = properties.package() else { panic!("{}._DSD: {properties:?}", object.path) };
    let [key, value] = property.package() else { panic!("{}._DSD: {property:?}", object.path) };
    assert_eq!(key.string(), name, "the property of {}", object.path);
    value.clone()
}
