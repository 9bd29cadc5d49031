// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host asks for: the words `cvmm.KEY=VALUE` on the kernel's command line.

use std::collections::HashMap;

use anyhow::{Context, Result};

/// All `cvmm.` words, by key.
#[derive(Debug, Default)]
pub(super) struct Options(HashMap<String, String>);

impl Options {
    pub(super) fn parse(command_line: &str) -> Self {
        let pairs = command_line.split_whitespace().filter_map(|word| {
            let (key, value) = word.strip_prefix("cvmm.")?.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        });
        Self(pairs.collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The parts of a value that are separated by commas; none if the key is absent.
    pub(super) fn list(&self, key: &str) -> Vec<&str> {
        self.get(key)
            .map_or_else(Vec::new, |value| value.split(',').filter(|part| !part.is_empty()).collect())
    }

    /// A number, decimal or `0x` hexadecimal.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        self.get(key).map(|value| number(value).with_context(|| format!("cvmm.{key}"))).transpose()
    }

    /// A part `name=value` or `name:value` of a list.
    pub(super) fn part(&self, key: &str, name: &str) -> Option<&str> {
        self.list(key).into_iter().find_map(|part| part.strip_prefix(name)?.strip_prefix(['=', ':']))
    }
}

/// A number, decimal or `0x` hexadecimal.
pub(super) fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("'{text}' is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_ignored() {
        let options = Options::parse("quiet cvmm.test=pool,blk console=ttyS0 cvmm.pool=0x1000,4096\n");
        assert_eq!(options.list("test"), ["pool", "blk"]);
        assert_eq!(options.list("pool"), ["0x1000", "4096"]);
        assert_eq!(options.get("console"), None);
    }

    #[test]
    fn numbers_and_parts() {
        let options =
            Options::parse("cvmm.mem=0x10 cvmm.bad=ten cvmm.net=10.0.0.1/24,peer=10.0.0.2 cvmm.blk=vda:rw");
        assert_eq!(options.number("mem").unwrap(), Some(16));
        assert_eq!(options.number("none").unwrap(), None);
        assert!(options.number("bad").is_err());
        assert_eq!(options.part("net", "peer"), Some("10.0.0.2"));
        assert_eq!(options.part("blk", "vda"), Some("rw"));
    }
}
