// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bad input, told before a guest starts: exit code 2, one line that names the option, nothing left behind. What only a
//! KVM host can tell (more CPUs than it allows, a busy tap) is with the boot tests.

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod disks;
mod firmware;
mod paths;

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bench::{Bench, KERNEL, assert_refused, output};

/// A user without rights: nobody.
const NOBODY: u32 = 65_534;

#[test]
fn kernels() {
    let bench = Bench::new();
    let good = fs::read(KERNEL).unwrap();
    let mut old = good.clone();
    // Boot protocol 2.12; then the flag of the 64-bit entry.
    old[0x206..0x208].copy_from_slice(&[0x0c, 0x02]);
    let mut not_64_bit = good.clone();
    not_64_bit[0x236] &= !1;
    for (path, reason) in [
        (bench.path("none"), "No such file or directory"),
        (bench.path(""), "it is a directory"),
        (bench.file("empty", 0), "neither a bzImage nor an ELF kernel"),
        (bench.write("text", b"#!/bin/sh\n"), "neither a bzImage nor an ELF kernel"),
        (bench.file("zeros", 1 << 20), "neither a bzImage nor an ELF kernel"),
        (bench.write("half", &good[..good.len() / 2]), "it is truncated: it has"),
        (bench.write("one-short", &good[..good.len() - 1]), "it is truncated: it has"),
        (bench.write("header-cut", &good[..0x220]), "neither a bzImage nor an ELF kernel"),
        (bench.write("old", &old), "speaks boot protocol 0x20c"),
        (bench.write("not-64-bit", &not_64_bit), "it has no 64-bit entry"),
        (bench.write("elf", b"\x7fELF and nothing more"), "it ends within its headers"),
    ] {
        bench.refuse(&["--kernel", &path], &format!("--kernel {path}"), reason);
    }
    // A relative path is relative to the current folder.
    bench.refuse(&["--kernel", "half"], "--kernel half", "it is truncated: it has");
}

/// As a user who may not: everybody else can read what root can.
#[test]
fn files_that_may_not_be_read_or_written() {
    let bench = Bench::new();
    // The folder of the build may be closed to others. Not by this process: what another thread starts meanwhile would have
    // the copy open for writing, too, and a file that is can't be run (execve(2), ETXTBSY).
    let program = bench.folder.path().join("cvmm");
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_cvmm")).arg(&program).status().unwrap().success());
    let closed = bench.file("closed", 1 << 20);
    let kernel = bench.path("kernel");
    fs::copy(KERNEL, &kernel).unwrap();
    let locked_folder = bench.path("folder");
    fs::create_dir(&locked_folder).unwrap();
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(bench.folder.path(), 0o755);
    set_mode(Path::new(&closed), 0o000);
    set_mode(Path::new(&locked_folder), 0o500);
    let good = format!("--kernel={kernel}");
    let (report, tables) = (format!("{locked_folder}/report.json"), format!("{locked_folder}/tables"));
    let disk = format!("path={closed}");
    for (options, option) in [
        (vec!["--kernel", &closed], format!("--kernel {closed}")),
        (vec![&good, "--initrd", &closed], format!("--initrd {closed}")),
        (vec![&good, "--dtb", &closed], format!("--dtb {closed}")),
        (vec![&good, "--blk", &disk], format!("--blk {disk}")),
        (vec![&good, "--report", &report], format!("--report {report}")),
        (
            vec![&good, "--firmware=acpi", "--dump-acpi", &locked_folder],
            format!("--dump-acpi {locked_folder}"),
        ),
        (vec![&good, "--firmware=acpi", "--dump-acpi", &tables], format!("--dump-acpi {tables}")),
    ] {
        let before = bench.state();
        let mut command = bench.command(&program, &options);
        // Whoever can open it anyway is root.
        if File::open(&closed).is_ok() {
            command.uid(NOBODY).gid(NOBODY);
        }
        assert_refused(&output(&mut command), &option, "Permission denied");
        assert!(before == bench.state());
    }
}

#[test]
fn initial_ram_disks() {
    let bench = Bench::new();
    for (path, reason) in [
        (bench.path("none"), "No such file or directory"),
        (bench.path(""), "it is a directory"),
        (bench.file("empty", 0), "the file is empty"),
        // More than all memory, and more than any piece of it beside kernel and pool.
        (bench.file("large", 1 << 30), "no piece of private memory"),
        (bench.file("too-large", 112 << 20), "no piece of private memory"),
    ] {
        bench.refuse(&["--initrd", &path], &format!("--initrd {path}"), reason);
    }
}

#[test]
fn command_lines() {
    let bench = Bench::new();
    bench.refuse(&["--cmdline", &"x".repeat(2048)], "--cmdline", "this kernel takes 2047");
    bench.refuse(&["--cmdline", &"x".repeat(100_000)], "--cmdline", "this kernel takes 2047");
    bench.refuse(&["--cmdline", "a\nb"], "--cmdline", "line breaks");
}

#[test]
fn pools() {
    let bench = Bench::new();
    for (pool, reason) in [
        ("0", "a multiple of 2M, and not 0"),
        ("1M", "a multiple of 2M"),
        ("3M", "a multiple of 2M"),
        ("4096", "a multiple of 2M"),
        (
            "128M",
            "it does not fit: it needs 128M in one piece, and the largest piece that is free for pools has 96M; use --mem \
             160M or more",
        ),
        ("256M", "has 96M; use --mem 288M or more"),
        ("2G", "has 96M; use --mem 2080M or more"),
        // More than there can be below 4 GiB, and more than there can be.
        ("4G", "has 96M; use --mem 7184M or more"),
        ("64G", "has 96M; a guest has at most 63G of memory, which is too little"),
        ("0xffffffffffe00000", "a guest has at most 63G of memory, which is too little"),
        ("8X", "'8X' is not a size"),
        ("size=8M,base=0x4001000", "its base must be a multiple of 2M"),
        ("size=8M,base=0", "at this base, it is not all in memory where pools can be: 0x1000000-"),
        ("size=8M,base=8M", "at this base, it is not all in memory where pools can be: 0x1000000-"),
        ("size=8M,base=124M", "at this base, it is not all in memory where pools can be: 0x1000000-"),
        ("size=8M,base=1G", "at this base, it is not all in memory where pools can be: 0x1000000-"),
        (
            "size=8M,base=0xffffffffffe00000",
            "at this base, it is not all in memory where pools can be: 0x1000000-",
        ),
        ("size=8M,bse=64M", "unknown key 'bse'; the keys are size, name, base, default"),
        ("base=64M", "size=SIZE is missing"),
        ("size=8M,size=8M", "size is given twice"),
        ("8M,name=a b", "name: use 1 to 32 letters, digits"),
    ] {
        bench.refuse(&["--pool", pool], &format!("--pool {pool}"), reason);
    }
    // Across the hole below 4 GiB.
    bench.refuse(
        &["--mem", "5G", "--pool", "size=8M,base=0xbfc00000"],
        "--pool size=8M,base=0xbfc00000",
        "at this base, it is not all in memory where pools can be: 0x1000000-",
    );
    // Where there is memory above 4 GiB, what it has is said.
    bench.refuse(
        &["--mem", "5G", "--pool", "3G"],
        "--pool 3G",
        "free for pools has 3040M below 4 GiB and 2032M above; use --mem 6160M or more",
    );
    // Where the kernel is loaded and unpacks itself, told in terms of the kernel.
    for base in ["16M", "22M"] {
        let pool = format!("size=2M,base={base}");
        let reason = "not all of that is private memory; use more --mem or another pool base";
        bench.refuse(&["--pool", &pool], &format!("--kernel {KERNEL}"), reason);
    }
    // The first is in the way of the second, and there is no room for both.
    for (first, second, reason) in [
        ("size=8M,base=64M", "size=8M,name=b,base=70M", "at this base, it overlaps the pool at"),
        ("size=64M", "size=64M,name=b", "it does not fit"),
        ("size=8M,name=a", "size=8M,name=a", "another pool has the name 'a', too (--pool size=8M,name=a)"),
    ] {
        bench.refuse(&["--pool", first, "--pool", second], &format!("--pool {second}"), reason);
    }
}

/// There is no mode in which devices reach all memory.
#[test]
fn a_pool_is_needed() {
    let bench = Bench::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cvmm"));
    command.current_dir(bench.folder.path()).args(["run", "--kernel", KERNEL]);
    let output = output(&mut command);
    assert_refused(&output, "--pool", "for example --pool 64M");
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("Devices reach a pool only, never all of guest memory")
    );
}

#[test]
fn memory_and_cpus() {
    let bench = Bench::new();
    for (mem, reason) in [
        ("16M", "from 34M to 63G"),
        ("64G", "from 34M to 63G"),
        ("130M1", "is not a size"),
        ("33000000", "a multiple of 2M"),
        ("99999999999999999999G", "is not a size"),
    ] {
        bench.refuse(&["--mem", mem], &format!("--mem {mem}"), reason);
    }
    for cpus in ["0", "-1", "256", "1.5", "many"] {
        let option = format!("--cpus={cpus}");
        bench.refuse(&[&option], &format!("--cpus {cpus}"), "it must be a number from 1 to 254");
    }
}

#[test]
fn disks() {
    let bench = Bench::new();
    let disk = |name: &str, rest: &str| format!("path={}{rest}", bench.path(name));
    bench.file("good", 1 << 20);
    bench.file("empty", 0);
    bench.file("odd", (1 << 20) + 511);
    for (value, reason) in [
        (disk("none", ""), "No such file or directory"),
        (disk("", ""), "Is a directory"),
        (disk("empty", ""), "it is empty"),
        (disk("odd", ""), "its size, 1049087 bytes, is not a multiple of 512"),
        (
            disk("good", ",rw"),
            "unknown key 'rw'; the keys are path, ro, format, direct, serial, queues, transport",
        ),
        (disk("good", ",transport=usb"), "transport: 'usb' is unknown; use mmio or pci"),
        (disk("good", ",queues=0"), "queues: '0' is not a number from 1 to 8"),
        (disk("good", ",queues=9"), "queues: '9' is not a number from 1 to 8"),
        (disk("good", ",queues=two"), "queues: 'two' is not a number from 1 to 8"),
        (disk("good", ",queues=2,queues=2"), "queues is given twice"),
        (disk("good", ",serial=123456789012345678901"), "at most 20 characters, all of printable ASCII"),
        (disk("good", ",ro=yes"), "ro takes no value"),
        ("ro".to_owned(), "path=... is missing"),
    ] {
        bench.refuse(&["--blk", &value], &format!("--blk {value}"), reason);
    }
    // The second of two is the one that is named.
    let (good, odd) = (disk("good", ""), disk("odd", ""));
    bench.refuse(&["--blk", &good, "--blk", &odd], &format!("--blk {odd}"), "not a multiple of 512");
    // The first that has no room is named; each transport has room of its own.
    for (transport, room) in [("mmio", 55), ("pci", 31)] {
        let disks: Vec<_> =
            (0..=room).map(|index| disk("good", &format!(",serial={index},transport={transport}"))).collect();
        let options: Vec<_> = disks.iter().flat_map(|disk| ["--blk", disk]).chain(["--rng"]).collect();
        let reason = format!("a machine has room for {room} devices on {transport}");
        bench.refuse(&options, &format!("--blk {}", disks[room]), &reason);
    }
}

#[test]
fn networks() {
    let bench = Bench::new();
    for (value, reason) in [
        ("tap=cvmm-none0", "there is no network device 'cvmm-none0'; make it with: ip tuntap add"),
        ("tap=lo", "'lo' is not a tap"),
        ("tap=../lo", "can't be the name of a network device"),
        ("tap=a-name-that-is-too-long", "can't be the name of a network device"),
        ("tap=t,mac=2:0:0:0:0:1", "is not six octets"),
        ("tap=t,mac=02:00:00:00:00:0g", "is not six octets"),
        ("tap=t,mac=02:00:00:00:00", "is not six octets"),
        ("tap=t,mac=02:00:00:00:00:01:02", "is longer than six octets"),
        ("tap=t,mac=01:00:00:00:00:01", "is a group address"),
        ("tap=t,mac=00:00:00:00:00:00", "is all zeros"),
        ("tap=t,mtu=9000", "unknown key 'mtu'; the keys are tap, mac, queues, transport"),
        ("tap=t,transport=PCI", "transport: 'PCI' is unknown; use mmio or pci"),
        ("tap=t,queues=99999", "queues: '99999' is not a number from 1 to 8"),
        ("mac=02:00:00:00:00:01", "tap=... is missing"),
    ] {
        bench.refuse(&["--net", value], &format!("--net {value}"), reason);
    }
    // Before any of them is opened.
    let nets = ["--net", "tap=cvmm-none0,queues=2", "--net", "tap=t", "--net", "tap=cvmm-none0"];
    let said = "--net tap=cvmm-none0,queues=2 names the same tap";
    bench.refuse(&nets, "--net tap=cvmm-none0", said);
}

#[test]
fn entropy() {
    let bench = Bench::new();
    for (value, reason) in [
        ("yes", "unknown key 'yes'; the keys are transport, pool"),
        ("transport=usb", "transport: 'usb' is unknown; use mmio or pci"),
        ("transport=pci,queues=2", "unknown key 'queues'; the keys are transport, pool"),
        ("transport=pci,transport=pci", "transport is given twice"),
    ] {
        // The option without a value takes none of what follows.
        bench.refuse(&["--rng", "--rng", value], &format!("--rng {value}"), reason);
        bench.refuse(&[&format!("--rng={value}"), "--rng"], &format!("--rng {value}"), reason);
    }
}

#[test]
fn files_to_be_written() {
    let bench = Bench::new();
    for option in ["--report", "--dump-dtb"] {
        for (path, reason) in [(bench.path(""), "directory"), (bench.path("no/such"), "No such file")] {
            bench.refuse(&[option, &path], &format!("{option} {path}"), reason);
        }
    }
    for (path, reason) in [(bench.path(""), "directory"), (bench.path("no/such"), "No such file")] {
        let console = format!("file={path}");
        bench.refuse(&["--console", &console], &format!("--console {console}"), reason);
    }
    bench.refuse(&["--console", "tty"], "--console tty", "it must be stdio, file=PATH or off");
    let tree = bench.file("tree", 1 << 20);
    bench.refuse(&["--dtb", &tree], &format!("--dtb {tree}"), "it is not a flattened device tree");
}

/// A report that can be written says what was wrong.
#[test]
fn the_report_of_bad_input() {
    let bench = Bench::new();
    let report = bench.path("report.json");
    let options = ["--report", &report, "--blk", "path=none"];
    let output = output(&mut bench.command(Path::new(env!("CARGO_BIN_EXE_cvmm")), &options));
    assert_refused(&output, "--blk path=none", "No such file");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let outcome = &report["outcome"];
    assert_eq!((&outcome["kind"], &outcome["exit_code"]), (&"bad-arguments".into(), &2.into()));
    assert!(outcome["detail"].as_str().unwrap().starts_with("--blk path=none: "), "{report}");
    assert_eq!((&report["memory"], &report["refused"]), (&serde_json::Value::Null, &0.into()));
}

/// What is no option at all is told by the parser of the command line, with its usage.
#[test]
fn unknown_and_missing_options() {
    let bench = Bench::new();
    let program = Path::new(env!("CARGO_BIN_EXE_cvmm"));
    for (mut command, named) in [
        (bench.command(program, &["--disk", "x"]), "--disk"),
        (bench.command(program, &["--rng", "transport=pci", "more"]), "more"),
        (bench.command(program, &["--dump-acpi"]), "--dump-acpi"),
        (bench.command(program, &["--blk"]), "--blk"),
        (bench.command(program, &["--mem", "64M", "--mem", "128M"]), "--mem"),
    ] {
        let output = output(&mut command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true), "{error}");
        assert!(error.lines().next().unwrap().contains(named), "{error}");
    }
    let mut command = Command::new(program);
    let output = output(command.args(["run", "--pool", "8M"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--kernel"), "{output:?}");
}

/// The help is of the command that was given, and of cvmm where none was.
#[test]
fn help_is_where_the_options_are() {
    for (arguments, said) in [
        ("boot", "unrecognized subcommand 'boot'; see cvmm --help"),
        ("--pool 8M run", "unexpected argument '--pool' found; 'run --pool' exists; see cvmm --help"),
        ("ru", "unrecognized subcommand 'ru'; a similar subcommand exists: 'run'; see cvmm --help"),
        (
            "run --pol 8M",
            "unexpected argument '--pol' found; a similar argument exists: '--pool'; see cvmm run --help",
        ),
        (
            "describe --pol 8M",
            "unexpected argument '--pol' found; a similar argument exists: '--pool'; see cvmm describe --help",
        ),
        ("run", "the following required arguments were not provided: --kernel <PATH>; see cvmm run --help"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cvmm"));
        let output = output(command.args(arguments.split(' ')));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*error), (Some(2), &*format!("cvmm: {said}\n")));
    }
}

/// Without /dev/kvm: another exit code, because another one can mend it.
#[test]
fn a_host_without_kvm() {
    let bench = Bench::new();
    // A folder in place of /dev, for this process alone.
    let script = "mount -t tmpfs none /dev && exec \"$@\"";
    let inner = bench.command(Path::new(env!("CARGO_BIN_EXE_cvmm")), &[]);
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let output = output(&mut command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.starts_with("cvmm: this host can't run the guest: /dev/kvm can't be opened: "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

/// The exit codes that the tests rely on are documented.
#[test]
fn the_help_has_the_exit_codes() {
    for (arguments, last) in [
        (["run", "--help"].as_slice(), 6),
        (&["run", "-h"], 6),
        (&["describe", "--help"], 3),
        (&["describe", "-h"], 3),
    ] {
        let output = output(Command::new(env!("CARGO_BIN_EXE_cvmm")).args(arguments));
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0));
        for code in 0..=last {
            assert!(help.contains(&format!("\n  {code}  ")), "exit code {code}: {help}");
        }
    }
}

/// What is in a file that an option names is lost to a guest that starts, and to no other.
#[test]
fn files_that_are_not_emptied() {
    let bench = Bench::new();
    let (kernel, old) = (bench.file("junk", 1 << 20), bench.write("old", b"precious"));
    for options in [["--console", &format!("file={old}")], ["--dump-dtb", &old]] {
        let options = [&["--kernel", &kernel][..], &options].concat();
        bench.refuse(&options, &format!("--kernel {kernel}"), "neither a bzImage nor an ELF kernel");
    }
    // Two names for what is not there yet.
    std::os::unix::fs::symlink("new", bench.path("link")).unwrap();
    let (link, new) = (bench.path("link"), bench.path("new"));
    let options = ["--console", &format!("file={link}"), "--report", &new];
    bench.refuse(&options, &format!("--console file={link}"), "--report names the same file");
}

/// The guest's console would be in the middle of it.
#[test]
fn standard_streams_are_not_overwritten() {
    let bench = Bench::new();
    let path = bench.write("stream", b"");
    let stream = || File::options().append(true).open(&path).unwrap();
    for (name, option) in [("output", ["--report", "/dev/stdout"]), ("error", ["--report", &path])] {
        let mut command = bench.command(Path::new(env!("CARGO_BIN_EXE_cvmm")), &option);
        command.stdin(Stdio::null());
        let command = match name {
            "output" => command.stdout(stream()).stderr(Stdio::null()),
            _ => command.stdout(Stdio::null()).stderr(stream()),
        };
        assert_eq!(command.status().unwrap().code(), Some(2), "{name}");
    }
    let said = fs::read_to_string(&path).unwrap();
    assert_eq!(said, format!("cvmm: --report {path}: standard error names the same file\n"));
}

#[test]
fn standard_output_takes_one_thing() {
    let bench = Bench::new();
    for option in ["--report", "--dump-dtb"] {
        let reason = "it is standard output: the guest's console is there, too; add --console off";
        bench.refuse(&[option, "-"], &format!("{option} -"), reason);
    }
    bench.refuse(&["--report=-", "--console=file=-"], "--console file=-", "--report is there, too");
    bench.refuse(&["--console=off", "--report=-", "--dump-dtb=-"], "--dump-dtb -", "--report is there, too");
    let options = ["--console=off", "--firmware=acpi", "--dump-acpi", "-"];
    bench.refuse(&options, "--dump-acpi -", "each table is a file of its own");
}

/// They are text nowhere, or text in several lines.
#[test]
fn odd_bytes() {
    let program = env!("CARGO_BIN_EXE_cvmm");
    for arguments in [&[b"\xff".as_slice()][..], &[b"run", b"\xff"]] {
        let mut command = Command::new(program);
        command.args(arguments.iter().map(|argument| std::ffi::OsStr::from_bytes(argument)));
        let output = output(&mut command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.starts_with("cvmm: ") && error.lines().count() == 1, "{error}");
    }
    let bench = Bench::new();
    for (option, told) in [("tap=a\nb;reboot", "tap=a\\nb;reboot"), ("tap=\u{1b}[2J", "tap=\\u{1b}[2J")] {
        bench.refuse(&["--net", option], &format!("--net {told}"), "");
    }
}
