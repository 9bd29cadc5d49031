// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pieces of AML that several objects of the DSDT share.

use acpi_tables::aml::{
    self, AddressSpace, AddressSpaceCacheable, Device, Memory32Fixed, Name, Package, Path, ResourceTemplate,
    Uuid,
};
use acpi_tables::{Aml, AmlSink};

use super::bytes;
use crate::{Binding, Interrupt, PoolId, Range, VirtioDevice};

/// Device properties (Linux, Documentation/firmware-guide/acpi/dsd: "Device Properties UUID").
const DEVICE_PROPERTIES: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";

/// AML that is written already.
pub(super) struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// `Name (name, value)`
pub(super) fn name(name: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(name), value)
}

/// `Device (name) { children }`
pub(super) fn device(name: &str, children: &[&dyn Aml]) -> Raw {
    Raw(bytes(&Device::new(Path::new(name), children.to_vec())))
}

/// `Name (_CRS, ResourceTemplate () { resources })`
pub(super) fn crs(resources: &[&dyn Aml]) -> Name {
    name("_CRS", &ResourceTemplate::new(resources.to_vec()))
}

/// `Name (_DSD, ...)` with these properties.
pub(super) fn dsd(properties: &[(&'static str, &dyn Aml)]) -> Name {
    let properties: Vec<_> =
        properties.iter().map(|(property, value)| Package::new(vec![property, *value])).collect();
    let properties = Package::new(properties.iter().map(|property| property as &dyn Aml).collect());
    name("_DSD", &Package::new(vec![&Uuid::new(DEVICE_PROPERTIES), &properties]))
}

/// The name of a pool's object, in `\_SB`.
pub(super) fn pool_name(PoolId(index): PoolId) -> String {
    format!("P{index:03X}")
}

/// The `_DSD` of a device that names its pool: the property of the device tree, as a reference to the pool's object.
pub(super) fn memory_region(device: &VirtioDevice) -> Option<Name> {
    let reference = Path::new(&format!("\\_SB_.{}", pool_name(device.pool)));
    (device.binding == Binding::Reference).then(|| dsd(&[("memory-region", &Package::new(vec![&reference]))]))
}

/// A register window that a device consumes.
pub(super) fn window(range: Range) -> Raw {
    match (u32::try_from(range.base()), u32::try_from(range.size()), u32::try_from(range.last())) {
        (Ok(base), Ok(size), Ok(_)) => Raw(bytes(&Memory32Fixed::new(true, base, size))),
        _ => consumed(range, AddressSpaceCacheable::NotCacheable),
    }
}

/// Memory that a device consumes, at any address.
pub(super) fn consumed(range: Range, cacheable: AddressSpaceCacheable) -> Raw {
    // General flags, bit 0 (ACPI 6.5, 6.4.3.5.1): consumed by the device itself. The crate has no way to say it.
    const GENERAL_FLAGS: usize = 4;
    const CONSUMER: u8 = 1;
    let mut bytes =
        bytes(&AddressSpace::<u64>::new_memory(cacheable, true, range.base(), range.last(), None));
    bytes[GENERAL_FLAGS] |= CONSUMER;
    Raw(bytes)
}

/// Memory that a bridge passes on to the devices behind it.
pub(super) fn produced(range: Range) -> Raw {
    let cacheable = AddressSpaceCacheable::NotCacheable;
    match (u32::try_from(range.base()), u32::try_from(range.size()), u32::try_from(range.last())) {
        (Ok(base), Ok(_), Ok(last)) => {
            Raw(bytes(&AddressSpace::<u32>::new_memory(cacheable, true, base, last, None)))
        }
        _ => Raw(bytes(&AddressSpace::<u64>::new_memory(cacheable, true, range.base(), range.last(), None))),
    }
}

/// An interrupt of a device of its own: edge-triggered, active high.
pub(super) fn edge(Interrupt(gsi): Interrupt) -> aml::Interrupt {
    let (consumer, edge_triggered, active_low, shared) = (true, true, false, false);
    aml::Interrupt::new(consumer, edge_triggered, active_low, shared, gsi)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_4_GIB: Range = Range::fixed(0xffff_f000, 0x1000);
    const ACROSS_4_GIB: Range = Range::fixed(0xffff_f000, 0x2000);

    // Memory32Fixed (ReadWrite, 0xFFFFF000, 0x1000)
    #[test]
    fn a_window_up_to_4_gib_has_32_bits() {
        let wanted = [0x86, 9, 0, 1, 0, 0xf0, 0xff, 0xff, 0, 0x10, 0, 0];
        assert_eq!(window(TO_4_GIB).0, wanted);
    }

    // QWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
    //     0, 0xFFFFF000, 0x100000FFF, 0, 0x2000)
    #[test]
    fn a_window_across_4_gib_has_64_bits() {
        let mut wanted = vec![0x8a, 0x2b, 0, 0, 0xd, 1];
        for field in [0, 0xffff_f000, 0x1_0000_0fff, 0, 0x2000u64] {
            wanted.extend(field.to_le_bytes());
        }
        assert_eq!(window(ACROSS_4_GIB).0, wanted);
        // The same as a ResourceProducer.
        wanted[4] = 0xc;
        assert_eq!(produced(ACROSS_4_GIB).0, wanted);
    }

    // DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
    //     0, 0xFFFFF000, 0xFFFFFFFF, 0, 0x1000)
    #[test]
    fn a_bridge_s_window_up_to_4_gib_has_32_bits() {
        let mut wanted = vec![0x87, 0x17, 0, 0, 0xc, 1];
        for field in [0, 0xffff_f000, 0xffff_ffff, 0, 0x1000u32] {
            wanted.extend(field.to_le_bytes());
        }
        assert_eq!(produced(TO_4_GIB).0, wanted);
    }

    /// All of the lowest 4 GiB: the last address has 32 bits, the length does not.
    #[test]
    fn a_window_of_4_gib_has_64_bits() {
        let all = Range::fixed(0, 1 << 32);
        for descriptor in [window(all), produced(all)] {
            assert_eq!(descriptor.0[0], 0x8a, "QWordMemory");
            assert_eq!(descriptor.0[38..46], (1u64 << 32).to_le_bytes(), "its length");
        }
    }
}
