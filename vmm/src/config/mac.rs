// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MAC addresses.

use std::fmt;
use std::str::FromStr;

/// An address that one station can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of the network device with this index: locally administered.
    pub(super) fn of_device(index: usize) -> Self {
        Self([0x02, 0, 0, 0, 0, u8::try_from(index).unwrap_or(u8::MAX)])
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
            return Err(wrong("is a group address"));
        }
        if octets == [0; 6] {
            return Err(wrong("is nobody's address"));
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
