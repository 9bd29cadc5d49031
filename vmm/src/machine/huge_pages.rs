// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Huge pages that an administrator has reserved (Linux, Documentation/admin-guide/mm/hugetlbpage.rst).

use std::fs;
use std::io;

use super::LARGE_PAGE;
use crate::Error;

/// What to say where `size` bytes of them could not be mapped for `option`.
pub(super) fn missing(option: &str, size: u64, error: &io::Error) -> Error {
    let need = size.div_ceil(LARGE_PAGE as u64);
    let free = free().map_or_else(|| "no".into(), |free| free.to_string());
    Error::Host(format!(
        "{option}: hugepages: it takes {need} huge pages of 2 MiB, and this host has {free} free ({error}). Reserve some: \
         `echo {need} | sudo tee /proc/sys/vm/nr_hugepages`"
    ))
}

/// Those that are free and promised to nobody.
fn free() -> Option<u64> {
    let number = |file: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{file}");
        fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    Some(number("free_hugepages")?.saturating_sub(number("resv_hugepages")?))
}
