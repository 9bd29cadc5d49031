// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The prebuilt guest kernel is what its provenance file says, and the file says all that is needed to build it again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cvmm_tests::{pattern, workspace};

fn folder() -> PathBuf {
    workspace::root().join("resources/guest-kernel")
}

fn provenance() -> BTreeMap<String, toml::Value> {
    let text = fs::read_to_string(folder().join("PROVENANCE.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

fn text(field: &str) -> String {
    let provenance = provenance();
    let value = provenance.get(field).unwrap_or_else(|| panic!("no field {field}"));
    let text = value.as_str().unwrap_or_else(|| panic!("{field} is no text"));
    assert!(!text.trim().is_empty(), "{field} is empty");
    text.to_owned()
}

#[test]
fn image_configuration_and_fragment_are_the_ones_that_were_built() {
    for file in ["image", "config", "fragment"] {
        let content = fs::read(folder().join(text(file))).unwrap();
        assert_eq!(text(&format!("{file}_sha256")), pattern::sha256(&content), "{file}");
    }
    let size = fs::metadata(folder().join(text("image"))).unwrap().len();
    assert_eq!(provenance()["image_size"].as_integer(), Some(size.try_into().unwrap()));
    assert_eq!(folder().join(text("image")), workspace::guest_kernel());
}

#[test]
fn it_says_how_to_build_the_image_again() {
    for field in ["architecture", "kernel_release", "licence", "source_version", "compiler", "linker"] {
        text(field);
    }
    assert_eq!(text("source_package"), "linux-source-6.12");
    assert_eq!(text("source_patches"), "none");
    let checksum = text("source_sha256");
    assert!(checksum.len() == 64 && checksum.bytes().all(|byte| byte.is_ascii_hexdigit()), "{checksum}");
    assert!(folder().join("build.sh").is_file());
}

/// The image carries its release (Linux, Documentation/arch/x86/boot.rst, kernel_version), and is the size we aim for.
#[test]
fn the_image_is_the_release_that_is_named() {
    let image = fs::read(workspace::guest_kernel()).unwrap();
    let place = usize::from(u16::from_le_bytes([image[0x20e], image[0x20f]])) + 0x200;
    let version: Vec<u8> = image[place..].iter().copied().take_while(|byte| *byte != 0).collect();
    let version = String::from_utf8(version).unwrap();
    assert_eq!(version.split(' ').next(), Some(text("kernel_release").as_str()), "{version}");
    assert!(image.len() < 3 << 20, "{} bytes", image.len());
}

/// Each option of the fragment is in the full configuration.
#[test]
fn the_configuration_has_what_the_fragment_asks_for() {
    let read = |file: &str| fs::read_to_string(folder().join(text(file))).unwrap();
    let (fragment, config) = (read("fragment"), read("config"));
    let mut count = 0;
    for line in fragment.lines().filter(|line| line.starts_with("CONFIG_")) {
        let is_off = line.strip_suffix("=n").map(|name| format!("# {name} is not set"));
        let wanted = is_off.as_deref().unwrap_or(line);
        let name = line.split('=').next().unwrap();
        let there = config.lines().any(|line| line == wanted);
        // An option that is off may also be absent, because what it depends on is off.
        let absent =
            line.ends_with("=n") && !config.lines().any(|line| line.starts_with(&format!("{name}=")));
        assert!(there || absent, "{line} is not in the configuration");
        count += 1;
    }
    assert!(count > 50, "only {count} options");
}
