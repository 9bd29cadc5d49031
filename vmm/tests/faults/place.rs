// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A small world for one test: mounts and networks that only its thread, and what it starts, can see.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use tempfile::TempDir;

/// Takes this thread into a world of its own. `false`, and a word about it, where that is not allowed.
pub fn enter() -> bool {
    let private = || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
    };
    private()
        .inspect_err(|error| crate::common::not_tested(&format!("mounts and networks of its own: {error}")))
        .is_ok()
}

/// A file system of so many bytes.
pub fn small(bytes: u64) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    fs::create_dir(&path).unwrap();
    let options = format!("size={bytes}");
    mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
    (folder, path)
}

/// Makes a tap that is up, on which the host says nothing by itself. From now on sysfs shows this network.
pub fn tap(name: &str) {
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
    tap_alone(name);
}

/// The same, and sysfs is as it was.
pub fn tap_alone(name: &str) {
    ip(&["tuntap", "add", "dev", name, "mode", "tap"]);
    // Not there in a kernel without IPv6.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    ip(&["link", "set", name, "up"]);
}

/// The other end of a tap that is up: whoever sends to this address sends to the guest.
pub fn neighbour(tap: &str) -> SocketAddr {
    ip(&["addr", "add", "192.168.91.1/24", "dev", tap]);
    ip(&["neigh", "replace", "192.168.91.2", "lladdr", "02:00:00:00:00:01", "dev", tap]);
    ([192, 168, 91, 2], 9).into()
}

/// Runs `ip`.
pub fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// An image of so many sectors, all of them a hole.
pub fn image(folder: &Path, sectors: u64) -> PathBuf {
    let path = folder.join("disk");
    fs::File::create(&path).unwrap().set_len(sectors * 512).unwrap();
    path
}

/// Has a program that is to be started live where io_uring is forbidden, as in many containers.
#[allow(unsafe_code)]
pub fn without_io_uring(command: &mut Command) {
    let rules = [(nix::libc::SYS_io_uring_setup, Vec::new())];
    let refused = SeccompAction::Errno(nix::libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules.into(), SeccompAction::Allow, refused, arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    // SAFETY: two system calls on memory that was there before the fork.
    unsafe {
        command
            .pre_exec(move || apply_filter(&filter).map_err(|_| std::io::ErrorKind::PermissionDenied.into()));
    }
}
