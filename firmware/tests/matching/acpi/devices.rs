// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The devices of a DSDT.

use std::collections::{BTreeMap, BTreeSet};

use super::asl::{self, Term};
use super::namespace::{Object, Paths, load, parent};
use super::pci::Root;
use super::resources::{Resource, resources};
use crate::model::{Line, Pool, VirtioMmio, VirtioPci, Window};

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
    pub pools: BTreeMap<String, Pool>,
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

    /// What the property `memory-region` refers to, if there are properties.
    fn pool_of(&self, object: &mut Object, paths: &Paths) -> Option<Window> {
        let mut properties = object.has("_DSD").then(|| properties(object))?;
        let reference = properties.remove("memory-region");
        let reference = reference.unwrap_or_else(|| panic!("{} has no memory-region", object.path));
        assert!(properties.is_empty(), "{}: {properties:?}", object.path);
        let [pool] = reference.package() else { panic!("{}: {reference:?}", object.path) };
        let path = paths.resolve(pool.name(), &object.path);
        let pool = self.pools.get(&path);
        Some(pool.unwrap_or_else(|| panic!("{}: {path} is no pool", object.path)).window)
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
fn pool(object: &mut Object) -> Pool {
    let mut properties = properties(object);
    let compatible = properties.remove("compatible").unwrap_or_else(|| panic!("{}", object.path));
    assert_eq!(compatible.string(), "restricted-dma-pool", "{}", object.path);
    // A property without a value is true as any integer but 0 (Linux, firmware-guide/acpi/DSD-properties-rules).
    let dma_default = properties.remove("linux,dma-default").is_some_and(|value| value.integer() != 0);
    assert!(properties.is_empty(), "{}: {properties:?}", object.path);
    let [Resource::Ram(window)] = resources(&object.take("_CRS"))[..] else {
        panic!("{}: one range of memory, and nothing else", object.path)
    };
    Pool { window, dma_default }
}

/// The device properties of `object`.
fn properties(object: &mut Object) -> BTreeMap<String, Term> {
    /// Of device properties, not of another form of data (Linux, Documentation/firmware-guide/acpi/DSD-properties-rules).
    const UUID: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";
    let data = object.take("_DSD");
    let [uuid, properties] = data.package() else { panic!("{}._DSD: {data:?}", object.path) };
    let ("ToUUID", [Term::String(uuid)], []) = uuid.call() else { panic!("{}: {uuid:?}", object.path) };
    assert_eq!(uuid.to_lowercase(), UUID, "{}._DSD", object.path);
    let mut found = BTreeMap::new();
    for property in properties.package() {
        let [key, value] = property.package() else { panic!("{}._DSD: {property:?}", object.path) };
        let before = found.insert(key.string().to_owned(), value.clone());
        assert!(before.is_none(), "{}: {key:?} twice", object.path);
    }
    found
}
