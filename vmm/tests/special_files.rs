// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Options that name what is no ordinary file: nothing waits for the other end of a pipe, nothing is read that has no end,
//! and the message says what it is.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

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

/// A kernel that prints an x, and powers off.
fn kernel(dir: &TempDir) -> PathBuf {
    let kernel = dir.path().join("kernel");
    // mov eax, 0xd1000000; mov byte [rax], 'x'
    let say = [0xb8, 0x00, 0x00, 0x00, 0xd1, 0xc6, 0x00, b'x'];
    fs::write(&kernel, elf(&[&say[..], POWER_OFF].concat())).unwrap();
    kernel
}

/// Standard output is a pipe here, and a file in which something is.
#[test]
fn report_and_console_can_go_to_standard_output() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (kernel, file) = (kernel(&dir), dir.path().join("file"));
    let run = |options: &[&str], stdout: Stdio| {
        let mut command = cvmm("run");
        command.arg("--kernel").arg(&kernel).args(options).current_dir(dir.path());
        let mut child = command.stdin(Stdio::null()).stdout(stdout).spawn().unwrap();
        assert_eq!(wait_for_end(&mut child).code(), Some(0), "{options:?}");
        let mut said = Vec::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_end(&mut said).unwrap();
        }
        said
    };
    let has = |said: &[u8], part: &[u8]| said.windows(part.len()).any(|window| window == part);
    for (options, expected) in [
        (["--console=off", "--report=/dev/stdout"].as_slice(), &b"\"powered-off\""[..]),
        (&["--console=file=/dev/stdout"], b"x"),
        (&["--console=off", "--report=-"], b"\"powered-off\""),
        (&["--console=file=-"], b"x"),
        (&["--console=off", "--dump-dtb=-"], b"\xd0\x0d\xfe\xed"),
    ] {
        let said = run(options, Stdio::piped());
        assert!(has(&said, expected), "{options:?}: {}", String::from_utf8_lossy(&said));
        if options.iter().any(|option| option.ends_with('-')) {
            let mut before = fs::File::create(&file).unwrap();
            before.write_all(b"before").unwrap();
            run(options, before.into());
            let both = fs::read(&file).unwrap();
            assert!(both.starts_with(b"before") && has(&both[6..], expected), "{options:?}");
            // As `> file 2>&1` has it.
            let both = fs::File::create(&file).unwrap();
            let stderr = both.try_clone().unwrap();
            let mut command = cvmm("run");
            command
                .arg("--kernel")
                .arg(&kernel)
                .args(options)
                .stdin(Stdio::null())
                .stdout(both)
                .stderr(stderr);
            assert_eq!(wait_for_end(&mut command.spawn().unwrap()).code(), Some(0), "{options:?}");
            assert!(has(&fs::read(&file).unwrap(), expected), "{options:?}");
        }
    }
    assert!(!dir.path().join("-").exists());
}

/// A closed stream is /dev/null, and no file that an option names has its number.
#[test]
fn what_goes_to_a_closed_stream_is_in_no_file() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let run = cvmm("run");
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"]).arg(run.get_program()).args(run.get_args());
    shell.arg("--kernel").arg(kernel(&dir)).args(["--report=report", "--dump-dtb=dtb"]);
    let mut child = shell.env("RUST_LOG", "trace").current_dir(dir.path()).spawn().unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("report")).unwrap()).unwrap();
    assert_eq!(report["outcome"]["kind"], "powered-off");
    let dtb = fs::read(dir.path().join("dtb")).unwrap();
    // Devicetree Specification 0.4, 5.2: magic and total size.
    assert_eq!(dtb[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    assert_eq!(u32::from_be_bytes(dtb[4..8].try_into().unwrap()) as usize, dtb.len());
}
