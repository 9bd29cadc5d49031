// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pool: `--pool`.

use super::keys::Keys;
use super::size;
use crate::{Error, Result};

/// Longest name of a pool.
const MAX_POOL_NAME: usize = 32;

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The option as it was given.
    pub option: String,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Guest-physical address, if the user wants a certain one.
    pub base: Option<u64>,
}

/// The one pool of `pools`, part of `mem` bytes of memory.
pub(super) fn parse(pools: &[String], mem: u64) -> Result<PoolConfig> {
    let text = match pools {
        [one] => one,
        [] => {
            return Err(Error::argument(
                "--pool",
                "it is missing. cvmm has no mode in which devices see all of guest memory: say how much of it they \
                 may reach, for example --pool 64M",
            ));
        }
        [_, second, ..] => {
            return Err(Error::argument(format!("--pool {second}"), "a guest has one pool so far"));
        }
    };
    let option = format!("--pool {text}");
    let wrong = |reason: String| Error::argument(&option, reason);
    let mut keys = Keys::parse(text, Some("size")).map_err(wrong)?;
    let size = keys.take("size").ok_or_else(|| wrong("size=SIZE is missing".into()))?;
    let size = size::parse(&size).map_err(|reason| wrong(format!("size: {reason}")))?;
    let base = keys.take("base").map(|base| size::parse(&base)).transpose();
    let base = base.map_err(|reason| wrong(format!("base: {reason}")))?;
    let name = keys.take("name").unwrap_or_else(|| "pool".into());
    keys.finish(&["size", "name", "base"]).map_err(wrong)?;
    if name.is_empty()
        || name.len() > MAX_POOL_NAME
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        let reason = format!("a name is made of letters, digits, '-', '_' and '.', at most {MAX_POOL_NAME}");
        return Err(wrong(reason));
    }
    if size > mem {
        return Err(wrong(format!(
            "the pool is part of guest memory, and larger than that ({mem} bytes, --mem)"
        )));
    }
    Ok(PoolConfig { option, name, size, base })
}
