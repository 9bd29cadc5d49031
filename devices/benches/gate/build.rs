// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Compiles this package's library, and no other, without the check.

fn main() {
    println!("cargo::rustc-cfg=cvmm_unchecked");
    println!("cargo::rerun-if-changed=build.rs");
}
