// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A distribution's VMM for an emulated KVM host: the program, the libraries that it is linked with, and its firmware, all
//! in one folder there.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::vmm::Vmm;
use crate::host::{Folder, Host};

/// What microvm loads: its BIOS, and the option ROMs with which that starts a kernel.
const FIRMWARE: [&str; 4] = ["bios-microvm.bin", "linuxboot_dma.bin", "linuxboot.bin", "pvh.bin"];
const FIRMWARE_FOLDERS: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// The files of this machine that `program` needs, itself first.
pub fn files(vmm: Vmm, program: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![program.to_owned()];
    files.extend(libraries(program)?);
    if vmm == Vmm::QemuMicrovm {
        for name in FIRMWARE {
            let places = FIRMWARE_FOLDERS.map(|folder| Path::new(folder).join(name));
            files.extend(places.into_iter().find(|place| place.exists()));
        }
    }
    Ok(files)
}

/// Copies `files` into `folder` on the host (links become what they point to), and returns the words that start the program.
pub fn put(host: &Host, folder: &Folder, vmm: Vmm, files: &[PathBuf]) -> Result<Vec<String>> {
    let there = |file: &Path| folder.file(&file.file_name().unwrap_or_default().to_string_lossy());
    for file in files {
        host.put(file, there(file))?;
    }
    let program = there(files.first().context("a program has a file")?);
    let linker = files.iter().find(|file| is_linker(file.file_name().unwrap_or_default()));
    let library_path = folder.path().display();
    let mut words = match linker {
        // The linker where the program looks for it would need folders outside of ours.
        Some(linker) => vec![there(linker), "--library-path".to_owned(), library_path.to_string(), program],
        None => vec![program],
    };
    if vmm == Vmm::QemuMicrovm {
        words.extend(["-L".to_owned(), library_path.to_string()]);
    }
    Ok(words)
}

fn is_linker(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with("ld-linux")
}

/// The dynamic linker and all libraries, as the linker itself finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("not found") {
        bail!("{} lacks libraries:\n{text}", program.display());
    }
    // It fails for a static program, and names no libraries.
    Ok(parse_ldd(&text))
}

/// Reads "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f...)" and "/lib64/ld-linux-x86-64.so.2 (0x...)".
fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f00)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n";
        let expected = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text), expected);
        assert_eq!(parse_ldd("\tnot a dynamic executable\n"), Vec::<PathBuf>::new());
    }
}
