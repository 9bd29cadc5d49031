// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages of MSI-X table entries: writes of the device to memory, for which there is one window.

use super::{Places, Record};

/// A message address.
#[derive(Debug)]
pub struct Message {
    /// In the name of a case.
    pub name: &'static str,
    /// Where the device is told to write.
    pub address: fn(&Places) -> u64,
    /// Why it refuses; `None` if the address is the local APICs'.
    pub refused: Option<&'static str>,
    /// From where that follows.
    pub clause: &'static str,
}

/// What the device has the message for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing.
    None,
    /// The queue.
    Queue,
    /// Changes of its configuration, of which a refusal is one.
    Configuration,
}

/// What a table entry is used for, and which it is: each device has two.
pub const USES: [(Use, u16); 3] = [(Use::None, 0), (Use::Queue, 1), (Use::Configuration, 1)];

/// The cases of a device type: each message in each of these entries.
pub fn messages() -> impl Iterator<Item = (&'static Message, Use, u16)> {
    MESSAGES.iter().flat_map(|message| USES.map(|(use_, entry)| (message, use_, entry)))
}

const NOWHERE: Option<&str> = Some("not in the interrupt window");
const WINDOW: &str = "Intel SDM 3A, 11.11.1: bits 31 to 20 are 0xfee, and none above them is set";
const DWORD: &str = "PCI 3.0, 6.8.2.6: the two lowest bits of a message address are zero";

const fn row(name: &'static str, refused: Option<&'static str>, address: fn(&Places) -> u64) -> Message {
    Message { name, address, refused, clause: WINDOW }
}

const fn odd(name: &'static str, address: fn(&Places) -> u64) -> Message {
    Message { name, address, refused: Some("misaligned"), clause: DWORD }
}

/// All of them.
pub const MESSAGES: &[Message] = &[
    row("local-apic", None, |_| 0xfee0_0000),
    row("last-of-local-apics", None, |_| 0xfeef_fffc),
    row("before-local-apics", NOWHERE, |_| 0xfedf_fffc),
    row("behind-local-apics", NOWHERE, |_| 0xfef0_0000),
    row("local-apic-above-4g", NOWHERE, |_| 0x1_fee0_0000),
    row("local-apic-with-high-bit", NOWHERE, |_| 0x8000_0000_fee0_0000),
    row("at-0", NOWHERE, |_| 0),
    row("in-private", NOWHERE, Places::private),
    row("in-private-below", NOWHERE, Places::private_below),
    row("in-pool", NOWHERE, Places::data),
    row("before-pool", NOWHERE, |at| at.pool - 4),
    row("across-start-of-pool", NOWHERE, |at| at.pool - 2),
    row("across-end-of-pool", NOWHERE, |at| at.pool_end - 2),
    row("behind-pool", NOWHERE, |at| at.pool_end),
    row("in-other-pool", NOWHERE, |at| at.other + 0x1_0000),
    row("own-table", NOWHERE, |at| at.registers + 0x4000),
    row("own-notification", NOWHERE, |at| at.registers + 0x3000),
    row("other-registers", NOWHERE, |at| at.window + 0x50),
    row("other-bar", NOWHERE, |at| at.bar + 0x3000),
    row("configuration-space", NOWHERE, |_| 0xe000_0000),
    row("power-control", NOWHERE, |_| 0xd100_1000),
    row("io-apic", NOWHERE, |_| 0xfec0_0000),
    row("unbacked", NOWHERE, |_| 0xa000_0000),
    row("at-2-64-less-4", NOWHERE, |_| u64::MAX - 3),
    odd("misaligned-by-1", |_| 0xfee0_0001),
    odd("misaligned-by-2", |_| 0xfee0_0002),
    odd("misaligned-by-3", |_| 0xfee0_0003),
];

impl Message {
    /// The refusal that must be in the report.
    pub fn record(&self, places: &Places) -> Option<Record> {
        let (address, length) = ((self.address)(places), 4);
        self.refused.map(|reason| Record { structure: "message", address, length, reason })
    }
}
