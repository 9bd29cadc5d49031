// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Options that name what is no ordinary file: nothing waits for the other end of a pipe, nothing is read that has no end,
//! and the message says what it is.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use common::{LOOP, POWER_OFF, cvmm, elf, kvm, wait_for_end};

/// Exit code, and what was said on standard error.
fn ended(command: &str, options: &[&str]) -> (Option<i32>, String) {
    let mut child = cvmm(command)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = wait_for_end(&mut child);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

#[test]
fn what_is_no_file_is_named_and_not_waited_for() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (kernel, folder, pipe, socket) = (path("kernel"), path("folder"), path("pipe"), path("socket"));
    fs::write(&kernel, elf(LOOP)).unwrap();
    fs::create_dir(&folder).unwrap();
    mkfifo(pipe.as_str(), Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    let option = |option: &str, path: &str| match option {
        "--blk" => format!("--blk=path={path}"),
        "--blk,ro" => format!("--blk=path={path},ro"),
        "--console" => format!("--console=file={path}"),
        _ => format!("{option}={path}"),
    };
    let good = option("--kernel", &kernel);
    let no_address = "No such device or address";
    for (name, read) in [
        ("--kernel", true),
        ("--initrd", true),
        ("--dtb", true),
        ("--blk", true),
        ("--blk,ro", true),
        ("--console", false),
        ("--report", false),
        ("--dump-dtb", false),
    ] {
        for (path, expected) in [
            (folder.as_str(), if read { "is a directory" } else { "Is a directory" }),
            (&pipe, if read { "a pipe" } else { "a pipe that nobody reads" }),
            (&socket, if read { no_address } else { "or a socket" }),
            ("/dev/zero", "a character device"),
        ] {
            // What is written may go to a terminal, or to /dev/null.
            if !read && path == "/dev/zero" {
                continue;
            }
            let wrong = option(name, path);
            let options = if name == "--kernel" { vec![wrong.as_str()] } else { vec![good.as_str(), &wrong] };
            let (code, said) = ended("run", &options);
            assert_eq!(code, Some(2), "{wrong}: {said}");
            let named = name.strip_suffix(",ro").unwrap_or(name);
            // A directory can't be opened for writing at all.
            let expected = if name == "--blk" && path == folder { "Is a directory" } else { expected };
            assert!(said.contains(named) && said.contains(expected), "{wrong}: {said}");
            assert_eq!(said.lines().count(), 1, "{wrong}: {said}");
        }
    }
}

#[test]
fn a_description_does_not_wait_for_a_reader() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let (code, said) = ended("describe", &["--output", pipe.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--output") && said.contains("a pipe that nobody reads"), "{said}");
}

/// A device tree has an end, and the message says where.
#[test]
fn a_device_tree_of_any_length_is_not_read() {
    let dir = TempDir::new().unwrap();
    let (kernel, dtb) = (dir.path().join("kernel"), dir.path().join("dtb"));
    fs::write(&kernel, elf(LOOP)).unwrap();
    fs::File::create(&dtb).unwrap().set_len(1 << 40).unwrap();
    let (code, said) = ended("run", &["--kernel", kernel.to_str().unwrap(), "--dtb", dtb.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--dtb") && said.contains("longer than 1024 KiB"), "{said}");
}

/// /dev/stdout is a pipe here.
#[test]
fn report_and_console_can_go_to_standard_output() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let kernel = dir.path().join("kernel");
    // mov eax, 0xd1000000; mov byte [rax], 'x'
    let say = [0xb8, 0x00, 0x00, 0x00, 0xd1, 0xc6, 0x00, b'x'];
    fs::write(&kernel, elf(&[&say[..], POWER_OFF].concat())).unwrap();
    for (options, expected) in [
        (["--console=off", "--report=/dev/stdout"].as_slice(), "\"powered-off\""),
        (&["--console=file=/dev/stdout"], "x"),
    ] {
        let mut child = cvmm("run")
            .arg("--kernel")
            .arg(&kernel)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(wait_for_end(&mut child).code(), Some(0), "{options:?}");
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains(expected), "{options:?}: {said}");
    }
}
