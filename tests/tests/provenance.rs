// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The prebuilt guest kernels are what their provenance files say, and the files say all that is needed to build them again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cvmm_tests::{pattern, workspace};

const STOCK: &str = "PROVENANCE.toml";
const PATCHED: &str = "PROVENANCE-patched.toml";

/// Of a kernel that can be built, too, and whose image is not kept.
const NEWER: &str = "PROVENANCE-7.3-patched.toml";

/// The series of patches, one for each kernel; the first is the one that is built.
const SERIES: [&str; 2] = ["patches", "patches-7.3"];

/// The binding of what the series adds to the device tree. It is not for Linux: bindings like this one are in dt-schema.
const BINDING: &str = "dt-schema";

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

/// The patches of a series, in the order of their numbers, without its cover letter.
fn series(series: &str) -> Vec<String> {
    let mut files: Vec<String> = fs::read_dir(folder().join(series))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".patch") && !name.starts_with("0000-"))
        .map(|name| format!("{series}/{name}"))
        .collect();
    files.sort();
    for (number, file) in (1..).zip(&files) {
        assert!(file.starts_with(&format!("{series}/{number:04}-")), "{file} is not number {number}");
    }
    assert!(!files.is_empty());
    files
}

/// The patches named are the ones in the folder, all of them, in the order of their numbers, and unchanged.
#[test]
fn the_patches_are_the_ones_that_were_applied() {
    for (name, folder_name) in [PATCHED, NEWER].into_iter().zip(SERIES) {
        let patched = Provenance::read(name);
        let named = patched.field("source_patches").as_array().expect("source_patches is no list");
        let files: Vec<&str> = named.iter().map(|patch| patch["file"].as_str().unwrap()).collect();
        assert_eq!(files, series(folder_name));
        for patch in named {
            let file = patch["file"].as_str().unwrap();
            let content = fs::read(folder().join(file)).unwrap();
            assert_eq!(patch["sha256"].as_str(), Some(pattern::sha256(&content).as_str()), "{file}");
        }
    }
}

/// What is recorded of the kernel whose image is not kept is enough to build it again, by the same fragment and tools.
#[test]
fn the_newer_kernel_can_be_built_again() {
    let (stock, newer) = (Provenance::read(STOCK), Provenance::read(NEWER));
    assert_eq!(newer.text("source_package"), "linux-source-7.3");
    for field in ["image_sha256", "kernel_release", "source_version", "source_sha256", "config_sha256"] {
        assert_ne!(newer.text(field), stock.text(field), "{field}");
    }
    for field in ["architecture", "licence", "fragment", "fragment_sha256", "compiler", "linker"] {
        assert_eq!(newer.text(field), stock.text(field), "{field}");
    }
    assert!(!folder().join(newer.text("image")).is_file(), "the image is not to be kept");
}

/// Subject and message of the patch in `file`.
fn message(file: &str) -> String {
    let patch = fs::read_to_string(folder().join(file)).unwrap();
    let from_subject = patch.split_once("\nSubject: ").unwrap_or_else(|| panic!("{file}: no subject")).1;
    from_subject.split_once("\n---\n").unwrap_or_else(|| panic!("{file}: no message")).0.to_owned()
}

/// `git am` takes each patch, and no patch names a person or claims a sign-off that nobody gave.
#[test]
fn each_patch_is_a_mail_from_the_project() {
    for file in SERIES.into_iter().chain([BINDING]).flat_map(series) {
        let patch = fs::read_to_string(folder().join(&file)).unwrap();
        assert!(patch.contains("\nFrom: cvmm <cvmm@localhost>\n"), "{file}: author");
        let message = message(&file);
        assert!(message.starts_with("[RFC PATCH "), "{file}: subject");
        assert!(message.lines().count() > 10, "{file}: a message that says why");
        assert!(patch.contains("\n---\n") && patch.contains("\ndiff --git a/"), "{file}: no change");
        assert!(!patch.to_lowercase().contains("signed-off-by:"), "{file}: a sign-off");
    }
}

/// The cover letter lists the patches that there are.
#[test]
fn the_cover_letters_list_the_patches() {
    for folder_name in SERIES {
        let file = format!("{folder_name}/0000-cover-letter.patch");
        let letter = fs::read_to_string(folder().join(&file)).unwrap();
        let files = series(folder_name);
        assert!(letter.contains(&format!("\nSubject: [RFC PATCH 00/{}] ", files.len())), "{file}: subject");
        let listed =
            letter.split_once(&format!("\ncvmm ({}):\n", files.len())).expect("no list of patches").1;
        let listed: Vec<&str> = listed.lines().map_while(|line| line.strip_prefix("  ")).collect();
        let subjects: Vec<String> = files.iter().map(|file| subject(file)).collect();
        assert_eq!(listed, subjects, "{file}");
    }
}

/// The subject of the patch in `file`, on one line and without its prefix.
fn subject(file: &str) -> String {
    let message = message(file);
    let subject = message.split_once("\n\n").unwrap_or_else(|| panic!("{file}: only a subject")).0;
    subject.replace("\n ", " ").split_once("] ").unwrap_or_else(|| panic!("{file}: no prefix")).1.to_owned()
}

/// The binding of the pool is one patch, and the kernels' series have none that anticipates it. The only binding that they change is
/// that of virtio-mmio, which is Linux' own, in a patch for nothing else.
#[test]
fn the_binding_is_in_the_patch_for_dt_schema() {
    let changed = |file: &str| -> Vec<String> {
        let patch = fs::read_to_string(folder().join(file)).unwrap();
        let names = patch.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        names.map(str::to_owned).collect()
    };
    let [patch] = series(BINDING).try_into().expect("one patch for dt-schema");
    assert_eq!(changed(&patch), ["dtschema/schemas/reserved-memory/shared-dma-pool.yaml"]);
    for folder_name in SERIES {
        let bindings: Vec<Vec<String>> = series(folder_name)
            .iter()
            .map(|file| changed(file))
            .filter(|names| names.iter().any(|name| name.contains("devicetree/bindings/")))
            .collect();
        assert_eq!(bindings, [["Documentation/devicetree/bindings/virtio/mmio.yaml"]], "{folder_name}");
    }
}

/// A patch for another kernel does the same for the same reason; only the code around it differs.
#[test]
fn the_series_for_both_kernels_say_the_same() {
    let [first, second] = SERIES.map(series);
    assert_eq!(first.len(), second.len());
    for (one, other) in first.iter().zip(&second) {
        assert_eq!(message(one), message(other), "{one}, {other}");
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
        // Half a MiB of it is for what a distribution's init needs.
        assert!(image.len() < 7 << 19, "{}: {} bytes", provenance.name, image.len());
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
