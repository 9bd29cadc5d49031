// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The Debian packages behind the programs that the lab calls. Nothing is installed that is already there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program, and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The program's name.
    pub program: &'static str,
    /// The package's name.
    pub package: &'static str,
}

/// Emulates the KVM host.
pub const QEMU: Tool = Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" };
/// Makes the guests' disks.
pub const MKFS_EXT4: Tool = Tool { program: "mkfs.ext4", package: "e2fsprogs" };
/// Looks into the guests' disks.
pub const DEBUGFS: Tool = Tool { program: "debugfs", package: "e2fsprogs" };
/// Judges our device trees.
pub const DTC: Tool = Tool { program: "dtc", package: "device-tree-compiler" };
/// Judges our ACPI tables.
pub const IASL: Tool = Tool { program: "iasl", package: "acpica-tools" };
/// Makes the tap of the hostile driver's network device.
pub const IP: Tool = Tool { program: "ip", package: "iproute2" };
/// Unpacks the kernel modules of newer Debian releases.
pub const XZ: Tool = Tool { program: "xz", package: "xz-utils" };
/// Makes a Debian root file system.
pub const MMDEBSTRAP: Tool = Tool { program: "mmdebstrap", package: "mmdebstrap" };
/// Measures what the host can do by itself.
pub const FIO: Tool = Tool { program: "fio", package: "fio" };
/// Compiles libFuzzer.
pub const CXX: Tool = Tool { program: "c++", package: "g++" };

/// Everything that the tests call.
pub const ALL: [Tool; 8] = [QEMU, MKFS_EXT4, DEBUGFS, DTC, IASL, IP, XZ, CXX];

/// Where `program` is. The system folders count even where a user's PATH leaves them out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Makes sure that `tools` can be called: installs what is missing as root, else says what to install.
pub fn require(tools: &[Tool]) -> Result<()> {
    let missing = missing_packages(tools, |program| find(program).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let install = install_line(&missing);
    if !is_root() {
        bail!("Debian packages are missing, and only root can install them. Please run: {install}");
    }
    eprintln!("lab: installing {}", missing.join(" "));
    apt_get(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt_get(&arguments).with_context(|| format!("cannot install what the lab needs; by hand: {install}"))?;
    match missing_packages(tools, |program| find(program).is_some()) {
        still if still.is_empty() => Ok(()),
        still => bail!("installed, but their programs are not there: {}", still.join(" ")),
    }
}

/// Whether this process may install packages, make network interfaces and so on.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs `command`; its output goes to stderr, where the lab's own messages go.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let name = command.get_program().to_string_lossy().into_owned();
    match status.with_context(|| format!("cannot run {name}"))? {
        status if status.success() => Ok(()),
        status => bail!("{name} failed ({status})"),
    }
}

/// Runs apt-get without questions; its output goes to stderr, where the lab's own messages go.
pub fn apt_get(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        // Somebody else may be installing, and a mirror may be busy.
        .args(["--quiet=2", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("cannot run apt-get: the lab needs Debian, or its packages installed by other means")?;
    if !status.success() {
        bail!("apt-get {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}

fn missing_packages(tools: &[Tool], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let missing: BTreeSet<_> =
        tools.iter().filter(|tool| !is_there(tool.program)).map(|tool| tool.package).collect();
    missing.into_iter().collect()
}

fn install_line(packages: &[&str]) -> String {
    format!("apt-get update && apt-get install --no-install-recommends {}", packages.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        let missing = missing_packages(&ALL, |program| program == "xz" || program == "dtc");
        assert_eq!(missing, ["acpica-tools", "e2fsprogs", "g++", "iproute2", "qemu-system-x86"]);
        assert_eq!(
            install_line(&missing),
            "apt-get update && apt-get install --no-install-recommends acpica-tools e2fsprogs g++ iproute2 qemu-system-x86"
        );
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
    }
}
