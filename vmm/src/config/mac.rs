// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MAC addresses.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

/// An address that one station can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of the guest behind the tap `name` of this host: the same in every run, and another one for every
    /// tap and host, since guests meet on bridges. Locally administered.
    pub(super) fn of_tap(name: &str) -> Self {
        let host = std::fs::read("/etc/machine-id").unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (host, name).hash(&mut hasher);
        let [a, b, c, d, e, ..] = hasher.finish().to_le_bytes();
        Self([0x02, a, b, c, d, e])
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why| format!("mac: '{text}' {why}; an example is 02:00:00:00:00:01");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|c| c.is_ascii_hexdigit()));
            let part = part.ok_or_else(|| wrong("is not six octets in hexadecimal"))?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong("is not six octets in hexadecimal"))?;
        }
        if parts.next().is_some() {
            return Err(wrong("is longer than six octets"));
        }
        if octets[0] & 1 != 0 {
            return Err(wrong("is a group address: its first octet must be even"));
        }
        if octets == [0; 6] {
            return Err(wrong("is all zeros, which is no device's address"));
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
