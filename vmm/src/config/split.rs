// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The parts of `key=value,flag,key=value`. Also compiled into the lab (tests/src/options.rs), which reads the same options.

/// Splits `text` at its commas. A comma inside a value is written twice, and once in the result.
pub(super) fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&&b',').is_none() {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
    }
    parts
}
