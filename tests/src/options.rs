// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cvmm run`'s options as the lab sees them: which of them name files, that must be carried to the KVM host or back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Options whose value is a file that is read.
const READS: [&str; 4] = ["--kernel", "--initrd", "--dtb", "--dsdt"];
/// Options whose value is a file that is written.
const WRITES: [&str; 2] = ["--report", "--dump-dtb"];

/// The option whose value is a folder that is written, and the files in it: those that are there afterwards come back.
const FOLDER: &str = "--dump-acpi";
const FOLDER_FILES: [&str; 7] =
    ["rsdp.aml", "xsdt.aml", "facp.aml", "apic.aml", "mcfg.aml", "spcr.aml", "dsdt.aml"];

/// Options rewritten for the KVM host, and what to carry.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The options with the host's paths.
    pub arguments: Vec<String>,
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
            message.replace(there.as_str(), &here.to_string_lossy())
        })
    }
}

/// Rewrites `options` such that each file lies in `folder` on the host. A file that should be read but is not there keeps
/// its path: the VMM then complains about it, in terms of its option.
pub fn carry(options: &[String], folder: &Path) -> Carried {
    let mut carrier = Carrier { folder, carried: Carried::default(), known: HashMap::new() };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let rewritten = match option.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                format!("{name}={}", carrier.value(name, value))
            }
            _ => {
                carrier.carried.arguments.push(option.clone());
                let Some(value) = takes_file(option).then(|| options.next()).flatten() else { continue };
                carrier.value(option, value)
            }
        };
        carrier.carried.arguments.push(rewritten);
    }
    carrier.carried
}

/// Whether one of `options` is `name`, in either form.
pub fn has(options: &[String], name: &str) -> bool {
    options
        .iter()
        .any(|option| option == name || option.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
}

/// The value of the option `name`, in either form.
pub fn value(options: &[String], name: &str) -> Option<String> {
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if option == name {
            return rest.next().cloned();
        }
        if let Some(value) = option.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}

/// The option that names the file or folder `path`, for a message.
pub fn naming(options: &[String], path: &Path) -> String {
    let path = path.to_string_lossy();
    let names = |value: &str| {
        let parts = value.split(',').filter_map(|part| part.split_once('='));
        value == path || parts.map(|(_, path)| path).any(|named| named == path)
    };
    let mut options = options.iter().peekable();
    while let Some(option) = options.next() {
        let beside = || options.peek().map(|value| (option.as_str(), value.as_str()));
        let named = option.split_once('=').or_else(beside);
        let named = named.filter(|(name, value)| name.starts_with("--") && names(value));
        if let Some((name, value)) = named {
            return format!("{name} {value}");
        }
    }
    path.into_owned()
}

/// The tap interfaces that the options name.
pub fn taps(options: &[String]) -> Vec<String> {
    let values =
        options.iter().enumerate().filter_map(|(index, option)| match option.strip_prefix("--net=") {
            Some(value) => Some(value),
            None => (option == "--net").then(|| options.get(index + 1)).flatten().map(String::as_str),
        });
    values.filter_map(|value| key(value, "tap")).map(str::to_owned).collect()
}

fn takes_file(option: &str) -> bool {
    READS.contains(&option)
        || WRITES.contains(&option)
        || option == FOLDER
        || option == "--blk"
        || option == "--console"
}

/// The value of `name=` among comma-separated `key=value`s.
fn key<'v>(value: &'v str, name: &str) -> Option<&'v str> {
    value
        .split(',')
        .find_map(|part| part.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}

struct Carrier<'f> {
    folder: &'f Path,
    carried: Carried,
    /// One file stays one file, even if two options name it.
    known: HashMap<PathBuf, String>,
}

impl Carrier<'_> {
    fn value(&mut self, option: &str, value: &str) -> String {
        if READS.contains(&option) {
            return self.there(value);
        }
        if WRITES.contains(&option) {
            return self.back(value);
        }
        match option {
            "--blk" => {
                let read_only = value.split(',').any(|part| part == "ro");
                Self::replace(value, "path", |path| {
                    let remote = self.there(path);
                    let back = (remote.clone(), PathBuf::from(path));
                    if !read_only && remote != path && !self.carried.back.contains(&back) {
                        self.carried.back.push(back);
                    }
                    remote
                })
            }
            FOLDER => self.folder_back(value),
            "--console" => Self::replace(value, "file", |path| self.back(path)),
            _ => value.to_owned(),
        }
    }

    fn replace(value: &str, name: &str, rewrite: impl FnOnce(&str) -> String) -> String {
        let Some(path) = key(value, name) else { return value.to_owned() };
        value.replacen(&format!("{name}={path}"), &format!("{name}={}", rewrite(path)), 1)
    }

    fn there(&mut self, path: &str) -> String {
        if !Path::new(path).is_file() {
            if Path::new(path).exists() {
                self.carried.no_files.push(path.into());
            }
            return path.to_owned();
        }
        let remote = self.remote(path);
        let there = (PathBuf::from(path), remote.clone());
        if !self.carried.there.contains(&there) {
            self.carried.there.push(there);
        }
        remote
    }

    fn back(&mut self, path: &str) -> String {
        let remote = self.remote(path);
        self.carried.back.push((remote.clone(), path.into()));
        remote
    }

    fn folder_back(&mut self, path: &str) -> String {
        let remote = self.remote(path);
        let files = FOLDER_FILES.map(|file| (format!("{remote}/{file}"), Path::new(path).join(file)));
        self.carried.back.extend(files);
        self.carried.folders.push(path.into());
        remote
    }

    fn remote(&mut self, path: &str) -> String {
        let number = self.known.len();
        let identity = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
        let remote = self.folder.join(format!("{number}-{name}")).to_string_lossy().into_owned();
        self.known.entry(identity).or_insert(remote).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
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
        let line = words("--kernel /no/such/kernel --blk path=/no/such/disk --console stdio --pool");
        let carried = carry(&line, Path::new("/lab"));
        assert_eq!(carried, Carried { arguments: line, ..Carried::default() });
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
        assert_eq!(value(&options, "--pool").as_deref(), Some("64M"));
        assert_eq!(value(&options, "--net").as_deref(), Some("tap=a,mac=x"));
        assert_eq!(value(&options, "--ne"), None);
        assert!(has(&options, "--pool") && has(&options, "--rng"));
        assert!(!has(&options, "--po") && !has(&options, "--kernel"));
    }
}
