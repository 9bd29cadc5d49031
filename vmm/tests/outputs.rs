// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that are written never destroy one that is read, and messages that nobody reads do no harm.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use tempfile::TempDir;

fn cvmm() -> Command {
    let mut cvmm = Command::new(env!("CARGO_BIN_EXE_cvmm"));
    cvmm.args(["run", "--pool", "2M"]).stdin(Stdio::null()).stdout(Stdio::null());
    cvmm
}

#[test]
fn a_file_that_is_read_is_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (kernel, disk, link) = (path("kernel"), path("disk"), path("link"));
    fs::write(&kernel, b"kernel").unwrap();
    fs::write(&disk, [7; 512]).unwrap();
    fs::hard_link(&disk, &link).unwrap();
    let blk = format!("path={disk}");
    for (options, expected) in [
        (["--report", &disk].as_slice(), "--blk names the same file"),
        (&["--dump-dtb", &link], "--blk names the same file"),
        (&["--console", &format!("file={disk}")], "--blk names the same file"),
        (&["--report", &kernel], "--kernel names the same file"),
        (&["--report", &path("new"), "--dump-dtb", &path("new")], "--report names the same file"),
        (&["--report", &path("new"), "--dump-dtb", &path("./new")], "--report names the same file"),
    ] {
        let output = cvmm().args(["--kernel", &kernel, "--blk", &blk]).args(options).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {error}");
        assert!(error.contains(expected), "{options:?}: {error}");
    }
    assert_eq!(fs::read(&disk).unwrap(), [7; 512]);
    assert_eq!(fs::read(&kernel).unwrap(), b"kernel");
}

/// Not even where the name is that of a table.
#[test]
fn a_folder_for_tables_keeps_what_is_in_it() {
    let dir = TempDir::new().unwrap();
    let disk = dir.path().join("dsdt.aml");
    let (folder, report) = (dir.path().to_str().unwrap(), dir.path().join("facp.aml"));
    fs::write(&disk, [7; 512]).unwrap();
    let kernel = concat!(env!("CARGO_MANIFEST_DIR"), "/../resources/guest-kernel/bzImage-x86_64");
    let run = |options: &[&str]| {
        let tables = ["--kernel", kernel, "--firmware", "acpi", "--dump-acpi", folder];
        let output = cvmm().args(tables).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let blk = format!("path={}", disk.display());
    assert!(run(&["--blk", &blk]).contains("the folder has dsdt.aml, which is not the DSDT table"));
    assert_eq!(fs::read(&disk).unwrap(), [7; 512]);
    fs::remove_file(&disk).unwrap();
    let error = run(&["--report", report.to_str().unwrap()]);
    assert!(error.contains("the folder has facp.aml, which is not the FACP table"), "{error}");
    assert!(fs::read_to_string(&report).unwrap().contains("bad-arguments"));
}

#[test]
fn a_broken_standard_error_does_not_change_the_exit_code() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let stderr = Stdio::from(std::os::fd::OwnedFd::from(ours));
    let status = cvmm().args(["--kernel", "/nonexistent"]).stderr(stderr).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
