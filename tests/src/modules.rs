// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kernel modules in the order in which they must be loaded.
//!
//! A kernel package has no modules.dep (its installation makes that), so the dependencies are read from the modules
//! themselves.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::kmod::ModuleInitFlags;

use crate::packages;

/// Where an initial file system has them, their names beginning with their place in the order.
pub const FOLDER: &str = "/modules";

/// Loads what is in [`FOLDER`].
pub fn load() -> Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(FOLDER)?.collect::<Result<_, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in files {
        let module = File::open(file.path())?;
        nix::kmod::finit_module(&module, c"", ModuleInitFlags::empty())
            .with_context(|| format!("cannot load {}", file.path().display()))?;
    }
    Ok(())
}

/// One module, unpacked.
#[derive(Debug)]
pub struct Module {
    /// The name with underscores.
    pub name: String,
    /// The ELF file.
    pub content: Vec<u8>,
}

/// Finds the modules `wanted` below `folder` (`lib/modules/RELEASE`) and everything they depend on, dependencies first.
/// A module that is built into the kernel is left out.
pub fn in_load_order(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    collect(folder, &mut files)?;
    let builtin = std::fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let builtin: Vec<String> = builtin.lines().map(|line| canonical(Path::new(line))).collect();

    let mut order = Vec::new();
    for name in wanted {
        add(&name.replace('-', "_"), &files, &builtin, &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    files: &HashMap<String, PathBuf>,
    builtin: &[String],
    order: &mut Vec<Module>,
) -> Result<()> {
    if builtin.iter().any(|known| known == name) || order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let file = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let content = read(file)?;
    for dependency in dependencies(&content) {
        add(&dependency, files, builtin, order)?;
    }
    order.push(Module { name: name.to_owned(), content });
    Ok(())
}

fn collect(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if path.to_string_lossy().ends_with(".ko") || path.to_string_lossy().ends_with(".ko.xz") {
            files.insert(canonical(&path), path);
        }
    }
    Ok(())
}

/// The module's name from its file: file names may have dashes, modules have underscores.
fn canonical(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if !file.to_string_lossy().ends_with(".xz") {
        return std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    packages::require(&[packages::XZ])?;
    let output =
        Command::new("xz").args(["--decompress", "--stdout"]).arg(file).stdin(Stdio::null()).output();
    let output = output.context("cannot run xz")?;
    if !output.status.success() {
        bail!("cannot unpack {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// A module's .modinfo section holds NUL-terminated `key=value` strings; one is `depends=a,b`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(start) = module.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let value = module[start + key.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        format!("\x7fELF code license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel/deep");
        std::fs::create_dir_all(&kernel).unwrap();
        std::fs::write(kernel.join("kvm-amd.ko"), module("kvm,ccp")).unwrap();
        std::fs::write(kernel.join("kvm.ko"), module("irqbypass")).unwrap();
        std::fs::write(kernel.join("irqbypass.ko"), module("")).unwrap();
        std::fs::write(kernel.join("tun.ko"), module("")).unwrap();
        std::fs::write(folder.path().join("modules.builtin"), "kernel/drivers/ccp.ko\n").unwrap();

        let order = in_load_order(folder.path(), &["kvm-amd", "tun", "kvm"]).unwrap();
        let names: Vec<_> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["irqbypass", "kvm", "kvm_amd", "tun"]);

        let error = in_load_order(folder.path(), &["vhost"]).unwrap_err();
        assert!(error.to_string().contains("no module vhost"), "{error}");
    }
}
