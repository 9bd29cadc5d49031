// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a virtio-pci device shows of itself before it is driven: identity, BAR, and capabilities that say which structure
//! is where in the BAR (virtio 1.3, 4.1.2 and 4.1.4).

use cvmm_firmware::Range;

use crate::pci::{ConfigSpace, ENTRY_SIZE, Identity};
use crate::virtio::Kind;

/// Bytes of BAR 0, which has the registers.
pub const BAR_SIZE: u64 = 0x8000;

/// The structures in the BAR; each has its page or more, so that a host could map them one by one.
pub const COMMON: Range = Range::fixed(0x0000, 0x50);
/// How much of it a device has that does not name its pool: up to queue_device.
const COMMON_STANDARD: u64 = 0x38;
/// ISR status.
pub const ISR: Range = Range::fixed(0x1000, 1);
/// Device-specific configuration, at most.
pub const DEVICE: Range = Range::fixed(0x2000, 0x1000);
/// Notifications, at most.
pub const NOTIFY: Range = Range::fixed(0x3000, 0x1000);
/// MSI-X table, at most.
pub const MSIX_TABLE: Range = Range::fixed(0x4000, 0x2000);
/// MSI-X pending bits, at most.
pub const MSIX_PENDING: Range = Range::fixed(0x6000, 0x1000);

/// Distance of the notification addresses of two queues (virtio 1.3, 4.1.4.4).
pub const NOTIFY_OFF_MULTIPLIER: u32 = 4;

/// The BAR of a device's own memory, if it has any.
const MEMORY_BAR: u8 = 2;

/// Most queues that a device can have: a vector for each must fit the table.
pub const MAX_QUEUES: u16 = 511;

const VENDOR: u16 = 0x1af4;
/// "PCI Device ID ... calculated by adding 0x1040 to the Virtio Device ID" (virtio 1.3, 4.1.2).
const FIRST_DEVICE_ID: u16 = 0x1040;
/// "Devices ... SHOULD have a PCI Revision ID of 1 or higher", "a Subsystem Device ID of 0x40 or higher" (4.1.2.1).
const REVISION: u8 = 1;
const SUBSYSTEM: u16 = 0x40;

/// Capability IDs (PCI 3.0, appendix H).
const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX: u8 = 0x11;

/// cfg_type of a capability (virtio 1.3, 4.1.4).
mod cfg_type {
    pub const COMMON: u8 = 1;
    pub const NOTIFY: u8 = 2;
    pub const ISR: u8 = 3;
    pub const DEVICE: u8 = 4;
    pub const PCI: u8 = 5;
    /// VIRTIO_PCI_CAP_SWIOTLB of the RFC of April 2025, 3/3: not in the standard.
    pub const SWIOTLB: u8 = 10;
}

/// Where in configuration space what a driver writes is.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    /// Message control of MSI-X.
    pub msix_control: usize,
    /// The access capability: its bar, offset and length, and then data, are at fixed distances.
    pub access: usize,
}

/// The configuration space of a device of this `kind`, with a BAR at `bar`.
///
/// `None` if the capabilities find no room, which is a defect of this file.
pub fn config_space(
    kind: Kind,
    queues: u16,
    config_len: usize,
    names_pool: bool,
    bar: Range,
) -> Option<(ConfigSpace, Offsets)> {
    let device = FIRST_DEVICE_ID.checked_add(u16::try_from(kind.device_id()).ok()?)?;
    let identity = Identity {
        vendor: VENDOR,
        device,
        revision: REVISION,
        class: class(kind),
        subsystem: [VENDOR, SUBSYSTEM],
    };
    let mut space = ConfigSpace::new(&identity);
    space.set_bar(bar);
    let msix = add_msix(&mut space, queues.min(MAX_QUEUES))?;
    // A driver sees by the length which fields there are (virtio 1.3, 4.1.4.3).
    let common = if names_pool { COMMON.size() } else { COMMON_STANDARD };
    add(&mut space, cfg_type::COMMON, COMMON.base(), common, &[])?;
    let notify = u64::from(queues) * u64::from(NOTIFY_OFF_MULTIPLIER);
    add(&mut space, cfg_type::NOTIFY, NOTIFY.base(), notify, &NOTIFY_OFF_MULTIPLIER.to_le_bytes())?;
    add(&mut space, cfg_type::ISR, ISR.base(), ISR.size(), &[])?;
    // "for any device type which has a device-specific configuration" (virtio 1.3, 4.1.4.6.1).
    if config_len > 0 {
        add(&mut space, cfg_type::DEVICE, DEVICE.base(), u64::try_from(config_len).ok()?, &[])?;
    }
    let access = add(&mut space, cfg_type::PCI, 0, 0, &[0; 4])?;
    Some((space, Offsets { msix_control: msix + 2, access }))
}

/// Adds the device's own memory, which is all that it can reach: BAR 2 at `memory`, and a capability that says so, a plain
/// `struct virtio_pci_cap` (RFC of April 2025, 3/3).
pub fn add_device_memory(space: &mut ConfigSpace, memory: Range) -> Option<()> {
    space.set_memory(memory);
    add(space, cfg_type::SWIOTLB, 0, memory.size(), &[]).map(|_| ())
}

/// Class code, by which Linux' `lspci` and firmware sort devices; drivers go by the device ID.
fn class(kind: Kind) -> [u8; 3] {
    match kind {
        // Network controller: Ethernet.
        Kind::Net => [0x02, 0x00, 0x00],
        // Mass storage controller: other.
        Kind::Blk => [0x01, 0x80, 0x00],
        // Does not fit any class.
        Kind::Rng => [0xff, 0x00, 0x00],
    }
}

/// MSI-X (PCI 3.0, 6.8.2): a vector for each queue and one for the configuration. Returns the capability's offset.
fn add_msix(space: &mut ConfigSpace, queues: u16) -> Option<usize> {
    debug_assert!(u64::from(queues + 1) * ENTRY_SIZE <= MSIX_TABLE.size());
    let mut body = Vec::with_capacity(10);
    // Table size is "N-1 encoded", so it is the number of queues.
    body.extend(queues.to_le_bytes());
    // The low three bits are the BAR's number, 0.
    body.extend(u32::try_from(MSIX_TABLE.base()).ok()?.to_le_bytes());
    body.extend(u32::try_from(MSIX_PENDING.base()).ok()?.to_le_bytes());
    // Enable and function mask.
    space.add_capability(MSIX, &body, &[0x00, 0xc0])
}

/// `struct virtio_pci_cap`, and what follows it (virtio 1.3, 4.1.4). Returns its offset.
fn add(space: &mut ConfigSpace, cfg_type: u8, offset: u64, length: u64, more: &[u8]) -> Option<usize> {
    const LEN: usize = 16;
    let len = u8::try_from(LEN + more.len()).ok()?;
    let bar = if cfg_type == cfg_type::SWIOTLB { MEMORY_BAR } else { 0 };
    // Length, type, BAR, ID, padding.
    let mut body = vec![len, cfg_type, bar, 0, 0, 0];
    body.extend(u32::try_from(offset).ok()?.to_le_bytes());
    body.extend(u32::try_from(length).ok()?.to_le_bytes());
    body.extend(more);
    // Of the access capability a driver writes bar, offset, length and data.
    let writable: &[u8] = match cfg_type {
        cfg_type::PCI => {
            &[0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        }
        _ => &[],
    };
    space.add_capability(VENDOR_SPECIFIC, &body, writable)
}
