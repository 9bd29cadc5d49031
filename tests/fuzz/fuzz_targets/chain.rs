// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! See `cvmm_fuzz::targets::chain`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cvmm_fuzz::targets::chain::run(data));
