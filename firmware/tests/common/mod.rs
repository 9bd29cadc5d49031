// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tests of both descriptions share: the machines that are described.

pub mod any;
pub mod usual;
