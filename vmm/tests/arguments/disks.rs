// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks that are not what their owner believes: told before the guest starts.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::NOBODY;
use super::bench::{Bench, assert_refused, output};
use super::common::{LoopDevice, not_tested};

const RO: &str = "; add ,ro to open it for reading only";

/// This disk is right: the next option is the one that is wrong.
fn take(bench: &Bench, options: &[&str]) {
    let net = ["--net", "tap=cvmm-none0"];
    bench.refuse(&[options, &net].concat(), "--net tap=cvmm-none0", "there is no network device");
}

/// A disk that can't be written: refused with a way out, which works.
fn refuse_to_write(bench: &Bench, path: &str, reason: &str) {
    let value = format!("path={path}");
    let said = format!("it can't be written: {reason}{RO}");
    bench.refuse(&["--blk", &value], &format!("--blk {value}"), &said);
    take(bench, &["--blk", &format!("{value},ro")]);
}

/// A program that is ended in any case.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_that_is_a_running_program() {
    let bench = Bench::new();
    let program = bench.path("program");
    // By another process: see files_that_may_not_be_read_or_written.
    assert!(Command::new("cp").args(["/bin/sleep", &program]).status().unwrap().success());
    File::options().write(true).open(&program).unwrap().set_len(1 << 20).unwrap();
    let running = Running(Command::new(&program).arg("600").spawn().unwrap());
    refuse_to_write(
        &bench,
        &program,
        "Text file busy (os error 26), since a program runs from it, or it is swap space",
    );
    drop(running);
    take(&bench, &["--blk", &format!("path={program}")]);
}

/// Opened for writing, it says nothing.
#[test]
fn a_disk_that_is_sealed() {
    let bench = Bench::new();
    for seal in [SealFlag::F_SEAL_WRITE, SealFlag::from_bits_retain(nix::libc::F_SEAL_FUTURE_WRITE)] {
        let memory = File::from(memfd_create(c"disk", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        memory.set_len(1 << 20).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        take(&bench, &["--blk", &format!("path={path}")]);
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seal)).unwrap();
        refuse_to_write(&bench, &path, "it is sealed against writes");
    }
}

/// Behind the limit, each write would be an error.
#[test]
fn a_disk_that_is_larger_than_a_file_may_be() {
    let bench = Bench::new();
    let path = bench.file("disk", 1 << 20);
    let with_limit = |blocks: u32, value: &str| {
        let run = bench
            .command(Path::new(env!("CARGO_BIN_EXE_cvmm")), &["--blk", value, "--net", "tap=cvmm-none0"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"]);
        output(shell.arg(run.get_program()).args(run.get_args()))
    };
    let [writable, read_only] = ["", ",ro"].map(|ro| format!("path={path}{ro}"));
    // Blocks of 512 bytes.
    let said = "it can't be written: it has 1048576 bytes, and 1048064 are the limit of this process for a file \
                (see ulimit -f)";
    assert_refused(&with_limit(2047, &writable), &format!("--blk {writable}"), &format!("{said}{RO}"));
    for (blocks, value) in [(2048, &writable), (2047, &read_only)] {
        assert_refused(&with_limit(blocks, value), "--net tap=cvmm-none0", "there is no network device");
    }
}

/// As root: nobody else can set the attribute.
#[test]
fn a_disk_that_is_immutable_or_append_only() {
    let bench = Bench::new();
    let path = bench.file("disk", 1 << 20);
    let chattr = |change: &str| Command::new("chattr").args([change, &path]).output();
    for (set, clear, cause) in
        [("+i", "-i", "it is immutable (chattr +i)"), ("+a", "-a", "it can only be appended to (chattr +a)")]
    {
        if !chattr(set).is_ok_and(|output| output.status.success()) {
            return not_tested("attributes of files: chattr fails here");
        }
        let refused = std::panic::catch_unwind(|| {
            refuse_to_write(&bench, &path, &format!("Operation not permitted (os error 1), since {cause}"));
        });
        assert!(chattr(clear).unwrap().status.success());
        refused.unwrap();
    }
}

/// Only root sees past the permissions, and it is not root that asks.
#[test]
fn a_disk_that_may_only_be_read() {
    let bench = Bench::new();
    let (program, path) = (bench.path("cvmm"), bench.file("disk", 1 << 20));
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_cvmm")).arg(&program).status().unwrap().success());
    let set_mode = |path: &str, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(&bench.path(""), 0o755);
    set_mode(&path, 0o444);
    let value = format!("path={path}");
    let mut command = bench.command(Path::new(&program), &["--blk", &value]);
    if File::options().write(true).open(&path).is_ok() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let said = format!("it can't be written: Permission denied (os error 13){RO}");
    assert_refused(&output(&mut command), &format!("--blk {value}"), &said);
    // What can't be read either is none for ,ro.
    set_mode(&path, 0o000);
    let output = output(&mut command);
    assert_refused(&output, &format!("--blk {value}"), "it can't be opened: Permission denied");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(",ro"), "{output:?}");
}

/// One is mounted read-only; on the other, a file can be opened for writing and be read, but there are no writes.
#[test]
fn a_disk_on_a_file_system_that_takes_no_writes() {
    let bench = Bench::new();
    fs::create_dir(bench.path("mount")).unwrap();
    for (mounts, reason) in [
        (
            "mount -t tmpfs none mount && truncate -s 2M mount/disk && mount -o remount,ro mount",
            "Read-only file system (os error 30)",
        ),
        ("mount -t hugetlbfs none mount && truncate -s 2M mount/disk", "Invalid argument (os error 22)"),
    ] {
        // As root, or else as root of a world of one's own, which has fewer file systems.
        let world = |world: &[&str]| {
            let mut command = Command::new("unshare");
            let script = format!("{mounts} && exec \"$@\"");
            command.args(world).args(["--mount", "sh", "-c", &script, "sh"]);
            command.current_dir(bench.folder.path());
            command
        };
        let worlds: [&[&str]; 2] = [&[], &["--map-root-user"]];
        let Some(arguments) =
            worlds.into_iter().find(|arguments| output(world(arguments).arg("true")).status.success())
        else {
            not_tested(&format!("disks on a file system of their own: {mounts}"));
            continue;
        };
        let inside = |options: &[&str]| {
            let inner = bench.command(Path::new(env!("CARGO_BIN_EXE_cvmm")), options);
            output(world(arguments).arg(inner.get_program()).args(inner.get_args()))
        };
        let refused = inside(&["--blk", "path=mount/disk"]);
        assert_refused(&refused, "--blk path=mount/disk", &format!("it can't be written: {reason}{RO}"));
        let taken = inside(&["--blk", "path=mount/disk,ro", "--net", "tap=cvmm-none0"]);
        assert_refused(&taken, "--net tap=cvmm-none0", "there is no network device");
    }
}

/// It can be opened for writing, and so could a guest's first write fail.
#[test]
fn a_block_device_that_is_read_only() {
    let bench = Bench::new();
    let image = bench.file("disk", 1 << 20);
    let Some(device) = LoopDevice::new(&["--read-only"], Path::new(&image)) else { return };
    refuse_to_write(&bench, device.path().to_str().unwrap(), "the device is read-only");
}

#[test]
fn containers_are_not_taken_for_raw_images() {
    let bench = Bench::new();
    let mut bytes = vec![0; 1 << 20];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let path = bench.write("disk", &bytes);
    let said = "it seems to be in qcow2 format: convert it with qemu-img convert -O raw OLD NEW, or add ,format=raw if it \
                really is raw";
    for value in [format!("path={path}"), format!("path={path},ro")] {
        bench.refuse(&["--blk", &value], &format!("--blk {value}"), said);
        take(&bench, &["--blk", &format!("{value},format=raw")]);
    }
    for format in ["qcow2", "", "RAW", "raw2"] {
        let value = format!("path={path},format={format}");
        let said =
            format!("format: '{format}' is not supported; images are raw: convert with qemu-img convert");
        bench.refuse(&["--blk", &value], &format!("--blk {value}"), &said);
    }
    // A block device can have them, too.
    let Some(device) = LoopDevice::new(&[], Path::new(&path)) else { return };
    let value = format!("path={}", device.path().display());
    bench.refuse(&["--blk", &value], &format!("--blk {value}"), "it seems to be in qcow2 format");
    take(&bench, &["--blk", &format!("{value},format=raw")]);
}

/// Who only reads may share a disk with others who only read.
#[test]
fn locked_disks() {
    let bench = Bench::new();
    let path = bench.file("disk", 1 << 20);
    let disk = File::options().read(true).write(true).open(&path).unwrap();
    let (write, read) = (format!("path={path}"), format!("path={path},ro"));
    disk.lock().unwrap();
    let locked = "a disk has one user, or several that all only read it (,ro)";
    for value in [&write, &read] {
        bench.refuse(&["--blk", value], &format!("--blk {value}"), locked);
    }
    disk.unlock().unwrap();
    disk.lock_shared().unwrap();
    bench.refuse(&["--blk", &write], &format!("--blk {write}"), locked);
    take(&bench, &["--blk", &read]);
}

/// A device node of one's own is another file, with another lock.
#[test]
fn one_disk_for_two_options() {
    let bench = Bench::new();
    let (path, link) = (bench.file("disk", 1 << 20), bench.path("link"));
    fs::hard_link(&path, &link).unwrap();
    let (first, second) = (format!("path={path}"), format!("path={link},transport=pci"));
    let (first_ro, second_ro) = (format!("{first},ro"), format!("{second},ro"));
    for (first, second) in [(&first, &second), (&first, &second_ro), (&first_ro, &second), (&first, &first)] {
        let said = format!("--blk {first} names the same disk, and they can share it only if both have ,ro");
        bench.refuse(&["--blk", first, "--blk", second], &format!("--blk {second}"), &said);
    }
    take(&bench, &["--blk", &first_ro, "--blk", &second_ro]);

    let Some(device) = LoopDevice::new(&[], Path::new(&path)) else { return };
    let (number, node) = (fs::metadata(device.path()).unwrap().rdev(), bench.path("node"));
    if mknod(node.as_str(), SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number).is_err()
        || File::open(&node).is_err()
    {
        return not_tested("two nodes of a block device: they can't be made here");
    }
    let (first, second) = (format!("path={}", device.path().display()), format!("path={node}"));
    let options = ["--blk", &first, "--blk", &second];
    bench.refuse(&options, &format!("--blk {second}"), &format!("--blk {first} names the same disk"));
}
