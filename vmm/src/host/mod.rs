// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What devices use on the host's side.

mod crash;
pub mod disk;
pub mod files;
mod iovec;
pub mod limits;
mod link;
pub mod stdio;
pub mod tap;
pub mod terminal;
