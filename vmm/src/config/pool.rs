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
    /// Backed by huge pages that the host's administrator has reserved.
    pub hugepages: bool,
}

/// The pools of a guest, at least one.
pub(super) fn parse(options: &[String]) -> Result<Vec<PoolConfig>> {
    if options.is_empty() {
        return Err(Error::argument(
            "--pool",
            "it is missing. Devices reach a pool only, never all of guest memory: say how large the pool is, for \
             example --pool 64M",
        ));
    }
    let mut pools: Vec<PoolConfig> = Vec::new();
    for text in options {
        let pool = one(text)?;
        let wrong = |reason: String| Err(Error::argument(&pool.option, reason));
        if pools.len() == MAX_POOLS {
            return wrong(format!("a guest has at most {MAX_POOLS} pools; this is one too many"));
        }
        let mut named = pools.iter().filter(|other| !other.name.is_empty());
        if let Some(other) = named.find(|other| other.name == pool.name) {
            return wrong(format!("name: another pool has the name '{}', too ({})", pool.name, other.option));
        }
        if let Some(other) = pools.iter().find(|other| other.default && pool.default) {
            return wrong(format!("default: another pool is the default one, too ({})", other.option));
        }
        pools.push(pool);
    }
    name(&mut pools);
    // A pool that is the only one needs no word for it.
    if let [only] = &mut pools[..] {
        only.default = true;
    }
    Ok(pools)
}

/// Gives names to the pools without one: by their place among all; if a user's pool has that name, a number that no place
/// has.
fn name(pools: &mut [PoolConfig]) {
    let count = pools.len();
    for index in 0..count {
        if pools[index].name.is_empty() {
            let names = std::iter::once(index).chain(count..).map(|number| match number {
                0 => "pool".to_owned(),
                _ => format!("pool{number}"),
            });
            let mut free = names.filter(|name| pools.iter().all(|other| other.name != *name));
            pools[index].name = free.next().unwrap_or_default();
        }
    }
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
                "it names no pool, and there is no default pool. Add pool=NAME to it (the pools are: {}), or mark a \
                 pool: --pool size=SIZE,name=NAME,default",
                names()
            )
        }),
    }
}

/// Reads an option. A pool without a name has the empty one.
fn one(text: &str) -> Result<PoolConfig> {
    let option = format!("--pool {text}");
    let wrong = |reason: String| Error::argument(&option, reason);
    let mut keys = Keys::parse(text, Some("size")).map_err(wrong)?;
    let size = keys.take("size").ok_or_else(|| wrong("size=SIZE is missing".into()))?;
    let size = size::parse(&size).map_err(|reason| wrong(format!("size: {reason}")))?;
    let base = keys.take("base").map(|base| size::parse(&base)).transpose();
    let base = base.map_err(|reason| wrong(format!("base: {reason}")))?;
    let default = keys.take_flag("default").map_err(wrong)?;
    let hugepages = keys.take_flag("hugepages").map_err(wrong)?;
    let name = keys.take("name");
    keys.finish(&["size", "name", "base", "default", "hugepages"]).map_err(wrong)?;
    let good = |name: &String| {
        (1..=MAX_POOL_NAME).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if !name.as_ref().is_none_or(good) {
        return Err(wrong(format!("name: use 1 to {MAX_POOL_NAME} letters, digits, '-', '_' and '.'")));
    }
    let name = name.unwrap_or_default();
    Ok(PoolConfig { option, name, size, base, default, hugepages })
}
