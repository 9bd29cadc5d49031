// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! /init of the guest's initramfs; see [`cvmm_tests::guest`].

fn main() {
    cvmm_tests::guest::main()
}
