// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A Debian root file system with systemd, from this machine's own mirror, as an ext4 image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::packages::{self, Tool};
use crate::workspace;

/// Bytes of the image. It is sparse.
const SIZE: u64 = 1 << 30;

/// systemd, and what the guide's examples call.
const PACKAGES: &str = "systemd,systemd-sysv,udev,dbus,iproute2,iputils-ping,curl,ca-certificates";

/// The guest's end of the lab's first tap.
const NETWORK: &str = "[Match]\nType=ether\n\n[Network]\nAddress=192.168.77.2/24\nGateway=192.168.77.1\n";

/// What the shell does in the new root, whose path is `$1`.
const CUSTOMIZE: &str = r#"set -e
echo cvmm > "$1/etc/hostname"
rm -f "$1/etc/resolv.conf"
chroot "$1" passwd --quiet --delete root
chroot "$1" systemctl --quiet enable systemd-networkd.service
"#;

const TOOLS: [Tool; 2] = [packages::MMDEBSTRAP, packages::MKFS_EXT4];

/// The image, made at the first time, and kept in .lab: copy it.
pub fn cached() -> Result<PathBuf> {
    // Two tests at once: one makes it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let (codename, _) = source()?;
    let image = workspace::lab_dir().join("debian").join(format!("{codename}.ext4"));
    if !image.exists() {
        make(&image)?;
    }
    Ok(image)
}

/// Makes an image at `path`. What is there when this fails is what was there before.
pub fn make(path: &Path) -> Result<()> {
    if !packages::is_root() {
        bail!("a Debian root file system has files of several users: only root can make it");
    }
    if path.is_dir() {
        bail!("{} is a folder; say where the image should be, for example {0}/root.ext4", path.display());
    }
    packages::require(&TOOLS)?;
    let (codename, line) = source()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Beside it: a rename is all or nothing.
    let aside = tempfile::tempdir_in(folder)?;
    let (root, image) = (aside.path().join("root"), aside.path().join("image"));
    fs::write(aside.path().join("network"), NETWORK)?;
    eprintln!("lab: making a root file system of Debian {codename} (some minutes)");
    let network = aside.path().join("network");
    packages::run(
        Command::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"])
            .arg(format!("--include={PACKAGES}"))
            .args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"])
            .args(["--dpkgopt=path-exclude=/usr/share/locale/*", "--aptopt=Acquire::Retries 3"])
            .arg(format!("--customize-hook=upload {} /etc/systemd/network/80-lab.network", network.display()))
            .arg(format!("--customize-hook={CUSTOMIZE}"))
            .arg(&codename)
            .arg(&root)
            .arg(&line),
    )?;
    fs::File::create(&image)?.set_len(SIZE)?;
    let mkfs = packages::find(packages::MKFS_EXT4.program).context("mkfs.ext4 is not installed")?;
    packages::run(Command::new(mkfs).args(["-q", "-d"]).arg(&root).arg(&image))?;
    fs::rename(&image, path).with_context(|| format!("cannot create {}", path.display()))?;
    eprintln!("lab: made {}", path.display());
    Ok(())
}

/// The code name of this machine's release, and the line of apt's sources for its main suite.
fn source() -> Result<(String, String)> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no release: this needs Debian")?;
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(RELEASE)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"])
        .stderr(Stdio::null())
        .output()
        .context("cannot run apt-get: this needs Debian")?;
    let targets = String::from_utf8_lossy(&output.stdout);
    let uri = main_suite(&targets, codename)
        .with_context(|| format!("this machine's apt sources have no main suite of {codename}"))?;
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed = if Path::new(key).exists() { format!("[signed-by={key}] ") } else { String::new() };
    Ok((codename.to_owned(), format!("deb {signed}{uri} {codename} main")))
}

/// The URI of the suite called `codename`, or "stable", in the lines RELEASE|COMPONENT|URI.
fn main_suite<'t>(targets: &'t str, codename: &str) -> Option<&'t str> {
    targets.lines().find_map(|line| {
        let mut fields = line.split('|');
        let (release, component, uri) = (fields.next()?, fields.next()?, fields.next()?);
        ((release == codename || release == "stable") && component == "main").then_some(uri)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_main_suite() {
        let targets =
            "bookworm-security|main|http://b/\nbookworm|contrib|http://c/\nbookworm|main|http://a/\n";
        assert_eq!(main_suite(targets, "bookworm"), Some("http://a/"));
        assert_eq!(main_suite("stable|main|http://s/\n", "trixie"), Some("http://s/"));
        assert_eq!(main_suite(targets, "trixie"), None);
    }
}
