// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the guest is built: a program without a C library and without relocations, entered at `_start`.

/// Its target.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// `RUSTFLAGS`.
pub const FLAGS: &str = "-C panic=abort -C relocation-model=static -C link-arg=-nostartfiles -C link-arg=-static \
                         -C link-arg=-no-pie -C link-arg=-Wl,--build-id=none";
/// Arguments of cargo, before `--target-dir`.
pub const ARGUMENTS: [&str; 10] = [
    "build",
    "--quiet",
    "--release",
    "--package",
    "cvmm-hostile",
    "--features",
    "guest",
    "--bin=hostile-guest",
    "--target",
    TARGET,
];
/// The other settings.
pub const ENVIRONMENT: [(&str, &str); 3] =
    [("RUSTFLAGS", FLAGS), ("CARGO_PROFILE_RELEASE_PANIC", "abort"), ("CARGO_PROFILE_RELEASE_DEBUG", "0")];
/// Where it is then, in the target folder's folder of [`TARGET`].
pub const PROGRAM: &str = "release/hostile-guest";
