// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare-metal guest as a program: built once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cvmm_hostile::build::{ARGUMENTS, ENVIRONMENT, PROGRAM, TARGET};

/// Builds the guest, or finds it up to date.
pub fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
        let status = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(ARGUMENTS)
            .arg("--target-dir")
            .arg(&target_dir)
            .envs(ENVIRONMENT)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "the guest does not build");
        target_dir.join(TARGET).join(PROGRAM)
    })
}
