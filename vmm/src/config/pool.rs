// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pools: `--pool`.

use super::keys::Keys;
use super::size;
use crate::{Error, Result};

/// Longest name of a pool.
const MAX_POOL_NAME: usize = 32;

/// Most pools of a guest. Linux keeps 64 reserved regions (MAX_RESERVED_REGIONS), and has some of its own.
const MAX_POOLS: usize = 32;

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The option as it was given.
    pub option: String,
    /// Its name, no other pool's.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Guest-physical address, if the user wants a certain one.
    pub base: Option<u64>,
    /// The catch-all: the pool of devices that are not bound to one. At most one pool is.
    pub default: bool,
}

/// The pools of a guest with `mem` bytes of memory, at least one.
pub(super) fn parse(options: &[String], mem: u64) -> Result<Vec<PoolConfig>> {
    if options.is_empty() {
        return Err(Error::argument(
            "--pool",
            "it is missing. cvmm has no mode in which devices see all of guest memory: say how much of it they may \
             reach, for example --pool 64M",
        ));
    }
    let mut pools: Vec<PoolConfig> = Vec::new();
    for text in options {
        let pool = one(text, pools.len(), mem)?;
        let wrong = |reason: String| Err(Error::argument(&pool.option, reason));
        if pools.len() == MAX_POOLS {
            return wrong(format!("a guest has at most {MAX_POOLS} pools, and this is one more"));
        }
        if let Some(other) = pools.iter().find(|other| other.name == pool.name) {
            return wrong(format!("name: '{}' is the name of another pool ({})", pool.name, other.option));
        }
        if let Some(other) = pools.iter().find(|other| other.default && pool.default) {
            return wrong(format!("default: another pool is the default one ({})", other.option));
        }
        pools.push(pool);
    }
    // A pool that is the only one needs no word for it.
    if let [only] = &mut pools[..] {
        only.default = true;
    }
    Ok(pools)
}

/// The index of the pool called `name`, or of the default one.
pub(super) fn find(pools: &[PoolConfig], name: Option<&str>) -> std::result::Result<usize, String> {
    let names = || pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) => pools
            .iter()
            .position(|pool| pool.name == name)
            .ok_or_else(|| format!("pool: there is no pool '{name}'; the pools are: {}", names())),
        None => pools.iter().position(|pool| pool.default).ok_or_else(|| {
            format!(
                "it names no pool, and none is the default one: say pool=NAME (the pools are: {}), or mark a pool, \
                 --pool size=SIZE,name=NAME,default",
                names()
            )
        }),
    }
}

fn one(text: &str, index: usize, mem: u64) -> Result<PoolConfig> {
    let option = format!("--pool {text}");
    let wrong = |reason: String| Error::argument(&option, reason);
    let mut keys = Keys::parse(text, Some("size")).map_err(wrong)?;
    let size = keys.take("size").ok_or_else(|| wrong("size=SIZE is missing".into()))?;
    let size = size::parse(&size).map_err(|reason| wrong(format!("size: {reason}")))?;
    let base = keys.take("base").map(|base| size::parse(&base)).transpose();
    let base = base.map_err(|reason| wrong(format!("base: {reason}")))?;
    let default = keys.take_flag("default").map_err(wrong)?;
    let name = keys.take("name").unwrap_or_else(|| match index {
        0 => "pool".into(),
        _ => format!("pool{index}"),
    });
    keys.finish(&["size", "name", "base", "default"]).map_err(wrong)?;
    if name.is_empty()
        || name.len() > MAX_POOL_NAME
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        let reason = format!("a name is made of letters, digits, '-', '_' and '.', at most {MAX_POOL_NAME}");
        return Err(wrong(reason));
    }
    if size > mem {
        return Err(wrong(format!(
            "the pool is part of guest memory, and larger than that (--mem, {}M)",
            mem >> 20
        )));
    }
    Ok(PoolConfig { option, name, size, base, default })
}
