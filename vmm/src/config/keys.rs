// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `key=value,flag,key=value`: a comma inside a value is written twice. A value may be a path, which is bytes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::split::split;

/// The keys of one option that were not taken yet.
#[derive(Debug)]
pub(super) struct Keys {
    left: Vec<(String, Option<OsString>)>,
    /// A path was taken, in which a comma may have been meant as itself.
    has_path: bool,
}

impl Keys {
    /// No keys at all.
    pub(super) fn none() -> Self {
        Self { left: Vec::new(), has_path: false }
    }

    /// Splits `text`. A first part without `=` is the value of the key `main`, if there is such a key.
    pub(super) fn parse(text: impl AsRef<OsStr>, main: Option<&str>) -> Result<Self, String> {
        let mut keys = Vec::<(String, Option<OsString>)>::new();
        for (index, part) in split(text.as_ref().as_bytes()).into_iter().enumerate() {
            let equals = part.iter().position(|byte| *byte == b'=');
            let (key, value) = match (equals, main) {
                (Some(at), _) => (lossy(&part[..at]), Some(OsString::from_vec(part[at + 1..].to_vec()))),
                (None, Some(main)) if index == 0 => (main.to_owned(), Some(OsString::from_vec(part))),
                (None, _) => (lossy(&part), None),
            };
            if key.is_empty() {
                return Err("it has an empty key; the form is key=value,key=value".into());
            }
            if keys.iter().any(|(other, _)| *other == key) {
                return Err(format!("{key} is given twice"));
            }
            keys.push((key, value));
        }
        Ok(Self { left: keys, has_path: false })
    }

    /// Takes the value of `key`, a path. A key without one has the empty value.
    pub(super) fn take_path(&mut self, key: &str) -> Option<OsString> {
        let value = self.take_value(key)?;
        self.has_path = true;
        Some(value)
    }

    /// Takes the value of `key`, a text. What is not UTF-8 becomes U+FFFD, which no text of ours may contain.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.take_value(key).map(|value| lossy(value.as_bytes()))
    }

    fn take_value(&mut self, key: &str) -> Option<OsString> {
        let at = self.left.iter().position(|(other, _)| other == key)?;
        Some(self.left.remove(at).1.unwrap_or_default())
    }

    /// The first word without `=` that is none of the keys `known`, as it would be written for a value.
    pub(super) fn stray(&self, known: &[&str]) -> Option<String> {
        let stray = self.left.iter().find(|(key, value)| value.is_none() && !known.contains(&key.as_str()));
        stray.map(|(word, _)| word.replace(',', ",,"))
    }

    /// Takes a flag: a key without a value.
    pub(super) fn take_flag(&mut self, key: &str) -> Result<bool, String> {
        let Some(at) = self.left.iter().position(|(other, _)| other == key) else { return Ok(false) };
        match self.left.remove(at).1 {
            None => Ok(true),
            Some(value) => Err(format!("{key} takes no value, but has '{}'", value.display())),
        }
    }

    /// Refuses what was not taken; `known` is what there is.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), String> {
        let Some((key, value)) = self.left.first() else { return Ok(()) };
        let comma = self.has_path && value.is_none();
        let comma = if comma { "; a comma in a value is written twice" } else { "" };
        Err(format!("unknown key '{key}'; the keys are {}{comma}", known.join(", ")))
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
