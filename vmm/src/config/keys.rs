// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `key=value,flag,key=value`: a comma inside a value is written twice.

/// The keys of one option that were not taken yet.
#[derive(Debug)]
pub(super) struct Keys(Vec<(String, Option<String>)>);

impl Keys {
    /// No keys at all.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Splits `text`. A first part without `=` is the value of the key `main`, if there is such a key.
    pub(super) fn parse(text: &str, main: Option<&str>) -> Result<Self, String> {
        let mut keys = Vec::<(String, Option<String>)>::new();
        for (index, part) in split(text).into_iter().enumerate() {
            let (key, value) = match (part.split_once('='), main) {
                (Some((key, value)), _) => (key.to_owned(), Some(value.to_owned())),
                (None, Some(main)) if index == 0 => (main.to_owned(), Some(part)),
                (None, _) => (part, None),
            };
            if key.is_empty() {
                return Err("there is an empty key: the form is key=value,key=value".into());
            }
            if keys.iter().any(|(other, _)| *other == key) {
                return Err(format!("{key} is given twice"));
            }
            keys.push((key, value));
        }
        Ok(Self(keys))
    }

    /// Takes the value of `key`. A key without one has the empty value.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == key)?;
        Some(self.0.remove(at).1.unwrap_or_default())
    }

    /// Takes a flag: a key without a value.
    pub(super) fn take_flag(&mut self, key: &str) -> Result<bool, String> {
        let Some(at) = self.0.iter().position(|(other, _)| other == key) else { return Ok(false) };
        match self.0.remove(at).1 {
            None => Ok(true),
            Some(value) => Err(format!("{key} takes no value ('{value}')")),
        }
    }

    /// Refuses what was not taken; `known` is what there is.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => {
                let there = if known.len() == 1 { "is" } else { "are" };
                Err(format!("unknown key '{key}'; there {there} {}", known.join(", ")))
            }
        }
    }
}

fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}
