// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where things are in this checkout.

use std::path::{Path, PathBuf};

/// The root of the cargo workspace.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// What the lab fetched or logged. Git ignores it; removing it costs only time.
pub fn lab_dir() -> PathBuf {
    root().join(".lab")
}

/// The target folder of the lab's own builds, so that their flags leave the ordinary build alone.
pub fn static_target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join("static")
}

/// The target folder of the bare-metal guest, likewise.
pub fn bare_metal_target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join("bare-metal")
}

/// The target folder of the fuzz targets, which are built with flags of their own.
pub fn fuzz_target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join("fuzz")
}

/// The guest kernel that comes with the project.
pub fn guest_kernel() -> PathBuf {
    root().join("resources/guest-kernel/bzImage-x86_64")
}

/// The same with the patches that the project carries.
pub fn patched_kernel() -> PathBuf {
    root().join("resources/guest-kernel/bzImage-x86_64-patched")
}
