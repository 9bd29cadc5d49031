// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare-metal guest as a program: built once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// A program without a C library and without relocations, entered at `_start`.
const FLAGS: &str = "-C panic=abort -C relocation-model=static -C link-arg=-nostartfiles -C link-arg=-static \
                     -C link-arg=-no-pie -C link-arg=-Wl,--build-id=none";

/// Builds the guest, or finds it up to date.
pub fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
        let status = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--release", "--package", "cvmm-hostile", "--features", "guest"])
            .args(["--bin", "hostile-guest", "--target", TARGET, "--target-dir"])
            .arg(&target_dir)
            .env("RUSTFLAGS", FLAGS)
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "the guest does not build");
        target_dir.join(TARGET).join("release/hostile-guest")
    })
}
