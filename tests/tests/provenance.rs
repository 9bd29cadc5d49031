// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The prebuilt guest kernels are what their provenance files say, and the files say all that is needed to build them again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cvmm_tests::{pattern, workspace};

const STOCK: &str = "PROVENANCE.toml";
const PATCHED: &str = "PROVENANCE-patched.toml";

fn folder() -> PathBuf {
    workspace::root().join("resources/guest-kernel")
}

/// One provenance file.
struct Provenance {
    name: &'static str,
    fields: BTreeMap<String, toml::Value>,
}

impl Provenance {
    fn read(name: &'static str) -> Self {
        let text = fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let fields = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, fields }
    }

    fn both() -> [Self; 2] {
        [Self::read(STOCK), Self::read(PATCHED)]
    }

    fn field(&self, field: &str) -> &toml::Value {
        self.fields.get(field).unwrap_or_else(|| panic!("{}: no field {field}", self.name))
    }

    fn text(&self, field: &str) -> &str {
        let text = self.field(field).as_str();
        let text = text.unwrap_or_else(|| panic!("{}: {field} is no text", self.name));
        assert!(!text.trim().is_empty(), "{}: {field} is empty", self.name);
        text
    }

    fn content(&self, field: &str) -> Vec<u8> {
        let file = self.text(field);
        fs::read(folder().join(file)).unwrap_or_else(|error| panic!("{}: {file}: {error}", self.name))
    }
}

#[test]
fn image_configuration_and_fragment_are_the_ones_that_were_built() {
    for provenance in Provenance::both() {
        for file in ["image", "config", "fragment"] {
            let checksum = pattern::sha256(&provenance.content(file));
            assert_eq!(provenance.text(&format!("{file}_sha256")), checksum, "{}: {file}", provenance.name);
        }
        let size = i64::try_from(provenance.content("image").len()).unwrap();
        assert_eq!(provenance.field("image_size").as_integer(), Some(size), "{}", provenance.name);
    }
    let stock = Provenance::read(STOCK);
    assert_eq!(folder().join(stock.text("image")), workspace::guest_kernel());
}

#[test]
fn it_says_how_to_build_the_image_again() {
    for provenance in Provenance::both() {
        for field in ["architecture", "kernel_release", "licence", "source_version", "compiler", "linker"] {
            provenance.text(field);
        }
        assert_eq!(provenance.text("source_package"), "linux-source-6.12");
        let checksum = provenance.text("source_sha256");
        assert!(
            checksum.len() == 64 && checksum.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{}: {checksum}",
            provenance.name
        );
    }
    assert_eq!(Provenance::read(STOCK).text("source_patches"), "none");
    assert!(folder().join("build.sh").is_file());
}

/// The patches are all that the two images differ in: a test that runs both shows what the patches do.
#[test]
fn both_images_have_the_same_source_configuration_and_tools() {
    let [stock, patched] = Provenance::both();
    for field in
        ["architecture", "kernel_release", "licence", "source_package", "source_version", "source_sha256"]
    {
        assert_eq!(stock.text(field), patched.text(field), "{field}");
    }
    for field in ["fragment", "fragment_sha256", "config", "config_sha256", "compiler", "linker"] {
        assert_eq!(stock.text(field), patched.text(field), "{field}");
    }
    assert_ne!(stock.text("image"), patched.text("image"));
    assert_ne!(stock.text("image_sha256"), patched.text("image_sha256"));
}

/// The patches named are the ones in the folder, all of them, in the order of their numbers, and unchanged.
#[test]
fn the_patches_are_the_ones_that_were_applied() {
    let patched = Provenance::read(PATCHED);
    let named = patched.field("source_patches").as_array().expect("source_patches is no list");
    let mut there: Vec<String> = fs::read_dir(folder().join("patches"))
        .unwrap()
        .map(|entry| format!("patches/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    there.sort();
    let files: Vec<&str> = named.iter().map(|patch| patch["file"].as_str().unwrap()).collect();
    assert_eq!(files, there);
    assert!(!files.is_empty());
    for (number, patch) in (1..).zip(named) {
        let file = patch["file"].as_str().unwrap();
        assert!(file.starts_with(&format!("patches/{number:04}-")), "{file} is not number {number}");
        let content = fs::read(folder().join(file)).unwrap();
        assert_eq!(patch["sha256"].as_str(), Some(pattern::sha256(&content).as_str()), "{file}");
    }
}

/// `git am` takes each patch, and no patch names a person or claims a sign-off that nobody gave.
#[test]
fn each_patch_is_a_mail_from_the_project() {
    for entry in fs::read_dir(folder().join("patches")).unwrap() {
        let path = entry.unwrap().path();
        let patch = fs::read_to_string(&path).unwrap();
        let name = path.display();
        assert!(patch.contains("\nFrom: cvmm <cvmm@localhost>\n"), "{name}: author");
        assert!(patch.contains("\nSubject: [PATCH "), "{name}: subject");
        let (message, change) = patch.split_once("\n---\n").unwrap_or_else(|| panic!("{name}: no message"));
        assert!(message.lines().count() > 10, "{name}: a message that says why");
        assert!(change.contains("\ndiff --git a/"), "{name}: no change");
        assert!(!patch.to_lowercase().contains("signed-off-by:"), "{name}: a sign-off");
    }
}

/// The image carries its release (Linux, Documentation/arch/x86/boot.rst, kernel_version), and is the size we aim for.
#[test]
fn the_image_is_the_release_that_is_named() {
    for provenance in Provenance::both() {
        let image = provenance.content("image");
        let place = usize::from(u16::from_le_bytes([image[0x20e], image[0x20f]])) + 0x200;
        let version: Vec<u8> = image[place..].iter().copied().take_while(|byte| *byte != 0).collect();
        let version = String::from_utf8(version).unwrap();
        assert_eq!(version.split(' ').next(), Some(provenance.text("kernel_release")), "{version}");
        assert!(image.len() < 3 << 20, "{}: {} bytes", provenance.name, image.len());
    }
}

/// Each option of the fragment is in the full configuration.
#[test]
fn the_configuration_has_what_the_fragment_asks_for() {
    let stock = Provenance::read(STOCK);
    let read = |file: &str| String::from_utf8(stock.content(file)).unwrap();
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
