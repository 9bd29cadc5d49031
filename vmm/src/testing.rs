// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What unit tests share.

/// Says what this machine does not let a test do, past the capture of tests that pass. `cargo lab test` counts such lines.
pub(crate) fn not_tested(why: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("NOT TESTED: {why}\n").as_bytes());
}
