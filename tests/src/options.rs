// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cvmm run`'s options as the lab sees them: which of them name files, that must be carried to the KVM host or back.
//!
//! A path is bytes, and need not be text.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

#[path = "../../vmm/src/config/split.rs"]
mod split;
use split::split;

/// Options whose value is a file that is read.
const READS: [&str; 4] = ["--kernel", "--initrd", "--dtb", "--dsdt"];
/// Options whose value is a file that is written.
const WRITES: [&str; 2] = ["--report", "--dump-dtb"];

/// The option whose value is a folder that is written, and the files in it: those that are there afterwards come back.
const FOLDER: &str = "--dump-acpi";
const FOLDER_FILES: [&str; 7] =
    ["rsdp.aml", "xsdt.aml", "facp.aml", "apic.aml", "mcfg.aml", "spcr.aml", "dsdt.aml"];

/// Before the path in the value of `--console`.
const CONSOLE_FILE: &[u8] = b"file=";

/// Options rewritten for the KVM host, and what to carry.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The options with the host's paths.
    pub arguments: Vec<OsString>,
    /// Files to carry there: the lab's path, the host's path.
    pub there: Vec<(PathBuf, String)>,
    /// What is there and should be read, but is no regular file, so that there is nothing to carry.
    pub no_files: Vec<PathBuf>,
    /// Files to carry back: the host's path, the lab's path.
    pub back: Vec<(String, PathBuf)>,
    /// Folders to make here for what is carried back.
    pub folders: Vec<PathBuf>,
}

impl Carried {
    /// What the VMM says of files by the host's paths, as those who gave it the files know them.
    pub fn with_paths_of_here(&self, message: &str) -> String {
        let there = self.there.iter().map(|(here, there)| (there, here));
        let both = there.chain(self.back.iter().map(|(there, here)| (there, here)));
        both.fold(message.to_owned(), |message, (there, here)| {
            let here = here.to_string_lossy();
            // In an option, the user wrote a comma twice.
            let message =
                message.replace(&format!("path={there}"), &format!("path={}", here.replace(',', ",,")));
            message.replace(there.as_str(), &here)
        })
    }
}

/// Rewrites `options` such that each file lies in `folder` on the host. A file that should be read but is not there keeps
/// its path: the VMM then complains about it, in terms of its option.
pub fn carry(options: &[OsString], folder: &Path) -> Carried {
    let mut carrier = Carrier { folder, carried: Carried::default(), known: HashMap::new() };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let rewritten = match name_and_value(option) {
            Some((name, value)) => {
                let mut rewritten = OsString::from(format!("{name}="));
                rewritten.push(carrier.value(&name, value));
                rewritten
            }
            None => {
                carrier.carried.arguments.push(option.clone());
                let name = option.to_string_lossy();
                let Some(value) = takes_file(&name).then(|| options.next()).flatten() else { continue };
                carrier.value(&name, value)
            }
        };
        carrier.carried.arguments.push(rewritten);
    }
    carrier.carried
}

/// Whether one of `options` is `name`, in either form.
pub fn has(options: &[OsString], name: &str) -> bool {
    options.iter().any(|option| option == name || with_value(option, name).is_some())
}

/// The value of the option `name`, in either form.
pub fn value(options: &[OsString], name: &str) -> Option<OsString> {
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if option == name {
            return rest.next().cloned();
        }
        if let Some(value) = with_value(option, name) {
            return Some(value.to_owned());
        }
    }
    None
}

/// The option that names the file or folder `path`, for a message.
pub fn naming(options: &[OsString], path: &Path) -> String {
    let names = |name: &str, value: &OsStr| match name {
        "--blk" => key(value, "path").is_some_and(|named| named == path),
        "--console" => console_file(value).is_some_and(|named| named == path),
        _ => value == path,
    };
    let mut options = options.iter().peekable();
    while let Some(option) = options.next() {
        let beside = || Some((option.to_string_lossy().into_owned(), options.peek()?.as_os_str()));
        let named = name_and_value(option).or_else(beside);
        if let Some((name, value)) = named.filter(|(name, value)| names(name, value)) {
            return format!("{name} {}", value.display());
        }
    }
    path.display().to_string()
}

/// The tap interfaces that the options name.
pub fn taps(options: &[OsString]) -> Vec<String> {
    let values = options.iter().enumerate().filter_map(|(index, option)| {
        let beside = || (option == "--net").then(|| options.get(index + 1)).flatten();
        with_value(option, "--net").or_else(|| beside().map(OsString::as_os_str))
    });
    values.filter_map(|value| key(value, "tap")).map(|tap| tap.to_string_lossy().into_owned()).collect()
}

/// `--name=value`.
fn name_and_value(option: &OsStr) -> Option<(String, &OsStr)> {
    let bytes = option.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=').filter(|_| bytes.starts_with(b"--"))?;
    let name = String::from_utf8_lossy(&bytes[..equals]).into_owned();
    Some((name, OsStr::from_bytes(&bytes[equals + 1..])))
}

/// The value in `--name=value`, if that is its name.
fn with_value<'o>(option: &'o OsStr, name: &str) -> Option<&'o OsStr> {
    let value = option.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    Some(OsStr::from_bytes(value))
}

fn takes_file(option: &str) -> bool {
    READS.contains(&option)
        || WRITES.contains(&option)
        || option == FOLDER
        || option == "--blk"
        || option == "--console"
}

/// The value that has these parts.
fn join(parts: &[Vec<u8>]) -> OsString {
    let doubled = |part: &Vec<u8>| -> Vec<u8> {
        part.iter().flat_map(|byte| [*byte; 2].into_iter().take(if *byte == b',' { 2 } else { 1 })).collect()
    };
    OsString::from_vec(parts.iter().map(doubled).collect::<Vec<_>>().join(&b','))
}

/// The value of `name=` among comma-separated `key=value`s.
fn key(value: &OsStr, name: &str) -> Option<PathBuf> {
    let named = |part: &Vec<u8>| {
        let value = part.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(PathBuf::from(OsStr::from_bytes(value)))
    };
    split(value.as_bytes()).iter().find_map(named)
}

/// The file in the value of `--console`, which is no list: a comma is a comma.
fn console_file(value: &OsStr) -> Option<&Path> {
    value.as_bytes().strip_prefix(CONSOLE_FILE).map(|path| Path::new(OsStr::from_bytes(path)))
}

struct Carrier<'f> {
    folder: &'f Path,
    carried: Carried,
    /// One file stays one file, even if two options name it.
    known: HashMap<PathBuf, String>,
}

impl Carrier<'_> {
    fn value(&mut self, option: &str, value: &OsStr) -> OsString {
        if READS.contains(&option) {
            return self.there(Path::new(value));
        }
        // Standard output comes back by itself.
        if value == "-" || option == "--console" && console_file(value) == Some(Path::new("-")) {
            return value.to_owned();
        }
        if WRITES.contains(&option) {
            return self.back(Path::new(value)).into();
        }
        match option {
            "--blk" => self.disk(value),
            FOLDER => self.folder_back(Path::new(value)).into(),
            "--console" => match console_file(value) {
                Some(path) => format!("file={}", self.back(path)).into(),
                None => value.to_owned(),
            },
            _ => value.to_owned(),
        }
    }

    fn disk(&mut self, value: &OsStr) -> OsString {
        let mut parts = split(value.as_bytes());
        let read_only = parts.iter().any(|part| part == b"ro");
        let Some(disk) = parts.iter_mut().find(|part| part.starts_with(b"path=")) else {
            return value.to_owned();
        };
        let path = PathBuf::from(OsStr::from_bytes(&disk[b"path=".len()..]));
        let remote = self.there(&path);
        if let Some(remote) = remote.to_str().filter(|remote| !read_only && Path::new(remote) != path) {
            let back = (remote.to_owned(), path);
            if !self.carried.back.contains(&back) {
                self.carried.back.push(back);
            }
        }
        disk.truncate(b"path=".len());
        disk.extend(remote.as_bytes());
        join(&parts)
    }

    fn there(&mut self, path: &Path) -> OsString {
        if !path.is_file() {
            if path.exists() {
                self.carried.no_files.push(path.into());
            }
            return path.into();
        }
        let remote = self.remote(path);
        let there = (path.to_owned(), remote.clone());
        if !self.carried.there.contains(&there) {
            self.carried.there.push(there);
        }
        remote.into()
    }

    fn back(&mut self, path: &Path) -> String {
        let remote = self.remote(path);
        self.carried.back.push((remote.clone(), path.into()));
        remote
    }

    fn folder_back(&mut self, path: &Path) -> String {
        let remote = self.remote(path);
        let files = FOLDER_FILES.map(|file| (format!("{remote}/{file}"), path.join(file)));
        self.carried.back.extend(files);
        self.carried.folders.push(path.into());
        remote
    }

    /// A path of its own on the host, that is text without commas.
    fn remote(&mut self, path: &Path) -> String {
        let number = self.known.len();
        let identity = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = name.chars().map(plain).collect();
        let remote = self.folder.join(format!("{number}-{name}")).to_string_lossy().into_owned();
        self.known.entry(identity).or_insert(remote).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn files_are_carried_there_and_back() {
        let here = tempfile::tempdir().unwrap();
        let path = |name: &str| here.path().join(name).to_string_lossy().into_owned();
        for name in ["kernel", "disk", "readonly"] {
            std::fs::write(path(name), name).unwrap();
        }
        let line = format!(
            "--kernel {} --mem 1G --blk path={},serial=x --blk=path={},ro --report={} --console file={} --rng",
            path("kernel"),
            path("disk"),
            path("readonly"),
            path("report"),
            path("log"),
        );
        let carried = carry(&words(&line), Path::new("/lab/0"));
        let expected = "--kernel /lab/0/0-kernel --mem 1G --blk path=/lab/0/1-disk,serial=x \
                        --blk=path=/lab/0/2-readonly,ro --report=/lab/0/3-report --console file=/lab/0/4-log --rng";
        assert_eq!(carried.arguments, words(expected));
        let there: Vec<_> = carried.there.iter().map(|(from, _)| from.clone()).collect();
        assert_eq!(there, ["kernel", "disk", "readonly"].map(|name| here.path().join(name)));
        let back: Vec<_> = carried.back.iter().map(|(_, to)| to.clone()).collect();
        assert_eq!(back, ["disk", "report", "log"].map(|name| here.path().join(name)));
    }

    #[test]
    fn messages_name_the_files_that_were_given() {
        let kernel = tempfile::NamedTempFile::new().unwrap();
        let path = kernel.path().display();
        let line = format!("--kernel {path} --report=/out/r --dump-acpi tables");
        let carried = carry(&words(&line), Path::new("/lab/0"));
        let name = kernel.path().file_name().unwrap().display();
        let said =
            format!("--kernel /lab/0/0-{name}: no kernel; /lab/0/1-r, /lab/0/2-tables/dsdt.aml: full\n");
        let expected = format!("--kernel {path}: no kernel; /out/r, tables/dsdt.aml: full\n");
        assert_eq!(carried.with_paths_of_here(&said), expected);
    }

    #[test]
    fn the_files_of_a_folder_come_back() {
        let carried = carry(&words("--firmware acpi --dump-acpi tables"), Path::new("/lab"));
        assert_eq!(carried.arguments, words("--firmware acpi --dump-acpi /lab/0-tables"));
        assert_eq!(carried.folders, [PathBuf::from("tables")]);
        let dsdt = ("/lab/0-tables/dsdt.aml".to_owned(), PathBuf::from("tables/dsdt.aml"));
        assert!(carried.back.contains(&dsdt) && carried.back.len() == 7, "{carried:?}");
    }

    #[test]
    fn one_disk_given_twice_stays_one_disk() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        let path = disk.path().to_string_lossy();
        let carried = carry(&words(&format!("--blk path={path} --blk path={path}")), Path::new("/lab"));
        assert_eq!(carried.arguments[1], carried.arguments[3]);
        assert_eq!((carried.there.len(), carried.back.len()), (1, 1));
    }

    #[test]
    fn what_is_not_there_keeps_its_name() {
        let line = "--kernel /no/such/kernel --blk path=/no/such/disk --console stdio --pool";
        // Standard output is everywhere.
        for line in [line, "--report - --dump-dtb=- --console file=- --console=file=- --dump-acpi -"] {
            let carried = carry(&words(line), Path::new("/lab"));
            assert_eq!(carried, Carried { arguments: words(line), ..Carried::default() });
        }
    }

    #[test]
    fn what_is_no_file_is_not_carried() {
        let folder = tempfile::tempdir().unwrap();
        let carried =
            carry(&words(&format!("--kernel {} --rng", folder.path().display())), Path::new("/lab"));
        assert_eq!((carried.there.len(), carried.no_files), (0, vec![folder.path().to_owned()]));
    }

    #[test]
    fn an_option_is_told_from_its_file() {
        let options = words("--mem 64M --blk path=d,ro --report=r --console file=c --kernel k");
        for (path, option) in [
            ("d", "--blk path=d,ro"),
            ("r", "--report r"),
            ("c", "--console file=c"),
            ("k", "--kernel k"),
            ("x", "x"),
        ] {
            assert_eq!(naming(&options, Path::new(path)), option);
        }
    }

    #[test]
    fn options_have_two_forms() {
        let options = words("--net tap=a,mac=x --net=tap=b --pool=64M --rng");
        assert_eq!(taps(&options), ["a", "b"]);
        assert_eq!(value(&options, "--pool"), Some("64M".into()));
        assert_eq!(value(&options, "--net"), Some("tap=a,mac=x".into()));
        assert_eq!(value(&options, "--ne"), None);
        assert!(has(&options, "--pool") && has(&options, "--rng"));
        assert!(!has(&options, "--po") && !has(&options, "--kernel"));
    }

    /// As cvmm reads them: doubled in a list, single elsewhere, and no text at all.
    #[test]
    fn any_path_is_carried() {
        let here = tempfile::tempdir().unwrap();
        let path = |name: &[u8]| here.path().join(OsStr::from_bytes(name));
        let option = |before: &str, name: &[u8], after: &str| {
            OsString::from_vec(
                [before.as_bytes(), path(name).as_os_str().as_bytes(), after.as_bytes()].concat(),
            )
        };
        for name in [&b"a,b.img"[..], b",ro", b"\xff\xfe,"] {
            std::fs::write(path(name), name).unwrap();
        }
        let options = [
            option("--blk=path=", b"a,,b.img", ",serial=x,,y"),
            "--blk".into(),
            option("ro,path=", b"\xff\xfe,,", ""),
            "--blk".into(),
            option("path=", b",,ro", ""),
            option("--kernel=", b"\xff\xfe,", ""),
            option("--console=file=", b"c,ro", ""),
            option("--report=", b"\xfe", ""),
            option("--initrd=", b"none\xff", ""),
        ];
        let carried = carry(&options, Path::new("/lab"));
        let mut expected = words(
            "--blk=path=/lab/0-a_b.img,serial=x,,y --blk ro,path=/lab/1-___ --blk path=/lab/2-_ro --kernel=/lab/1-___ \
             --console=file=/lab/3-c_ro --report=/lab/4-_",
        );
        expected.push(options[8].clone());
        assert_eq!(carried.arguments, expected);
        let there: Vec<_> = carried.there.iter().map(|(from, _)| from.clone()).collect();
        assert_eq!(there, [&b"a,b.img"[..], b"\xff\xfe,", b",ro"].map(path));
        let back: Vec<_> = carried.back.iter().map(|(_, to)| to.clone()).collect();
        assert_eq!(back, [&b"a,b.img"[..], b",ro", b"c,ro", b"\xfe"].map(path));

        let said =
            carried.with_paths_of_here("--blk path=/lab/0-a_b.img,serial=x,,y: bad; /lab/0-a_b.img can't be");
        let folder = here.path().display();
        assert_eq!(said, format!("--blk path={folder}/a,,b.img,serial=x,,y: bad; {folder}/a,b.img can't be"));
        let naming = |name: &[u8]| naming(&options, &path(name));
        assert_eq!(naming(b"a,b.img"), format!("--blk path={folder}/a,,b.img,serial=x,,y"));
        assert_eq!(naming(b",ro"), format!("--blk path={folder}/,,ro"));
        assert_eq!(naming(b"c,ro"), format!("--console file={folder}/c,ro"));
        assert_eq!(naming(b"\xfe"), format!("--report {folder}/\u{fffd}"));
    }
}
