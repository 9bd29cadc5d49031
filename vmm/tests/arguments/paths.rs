// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A path is bytes: those that are no text, and a comma, work in every option that takes one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::bench::{Bench, KERNEL, assert_refused, output};
use super::common::{POWER_OFF, elf, kvm};

/// Not UTF-8, with a comma.
const NAME: &[u8] = b"a,\xff\xfe.img";

fn option(before: &str, path: &Path, after: &str) -> OsString {
    OsString::from_vec([before.as_bytes(), path.as_os_str().as_bytes(), after.as_bytes()].concat())
}

fn run(bench: &Bench, options: &[&OsStr]) -> Output {
    output(bench.command(Path::new(env!("CARGO_BIN_EXE_cvmm")), &[]).args(options))
}

fn odd(bench: &Bench, name: &[u8]) -> PathBuf {
    bench.folder.path().join(OsStr::from_bytes(name))
}

/// The lossy form of such a path, as a message has it.
fn shown(bench: &Bench, name: &str) -> String {
    bench.path(&name.replace('?', "\u{fffd}"))
}

/// Each is opened: another one is wrong, or what is in it.
#[test]
fn files_that_are_read() {
    let bench = Bench::new();
    let (kernel, disk) = (odd(&bench, b"kernel\xff"), odd(&bench, NAME));
    fs::copy(KERNEL, &kernel).unwrap();
    fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let disk = option("--blk=path=", &odd(&bench, b"a,,\xff\xfe.img"), "");
    let run_kernel = |more: &[&OsStr]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cvmm"));
        command.args(["run", "--pool=8M", "--kernel"]).arg(&kernel).arg(&disk);
        output(command.args(more))
    };
    let net = "tap=cvmm-none0";
    let opened = run_kernel(&["--net", net].map(OsStr::new));
    assert_refused(&opened, &format!("--net {net}"), "there is no network device");
    fs::write(&kernel, b"none").unwrap();
    let named = format!("--kernel {}", shown(&bench, "kernel?"));
    assert_refused(&run_kernel(&[]), &named, "neither a bzImage nor an ELF kernel");

    let empty = odd(&bench, b"empty\xff");
    fs::write(&empty, b"").unwrap();
    for (name, form, reason) in [
        ("--initrd", "dt", "the file is empty"),
        ("--dtb", "dt", "it is not a flattened device tree"),
        ("--dsdt", "acpi", "it is not a DSDT"),
    ] {
        let options = [OsStr::new("--firmware"), OsStr::new(form), OsStr::new(name), empty.as_os_str()];
        let named = format!("{name} {}", shown(&bench, "empty?"));
        assert_refused(&run(&bench, &options), &named, reason);
    }
}

/// All of them by a run that comes to its end.
#[test]
fn files_of_a_run() {
    if !kvm() {
        return;
    }
    let bench = Bench::new();
    let (kernel, disk) = (odd(&bench, b"kernel\xff"), odd(&bench, NAME));
    fs::write(&kernel, elf(POWER_OFF)).unwrap();
    fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let [report, console, dtb] =
        [&b"report\xff"[..], b"console\xff", b"dtb\xff"].map(|name| odd(&bench, name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cvmm"));
    command.args(["run", "--pool=2M", "--mem=64M", "--kernel"]).arg(&kernel);
    command.arg(option("--blk=path=", &odd(&bench, b"a,,\xff\xfe.img"), ""));
    command.arg("--report").arg(&report).arg("--dump-dtb").arg(&dtb);
    let ended = output(command.arg(option("--console=file=", &console, "")));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["outcome"]["kind"], "powered-off");
    assert!(fs::read(&dtb).unwrap().starts_with(&[0xd0, 0x0d, 0xfe, 0xed]) && console.is_file());
}

/// A report of a run that is refused, with the path that was wrong in it; it is valid JSON.
#[test]
fn files_that_are_written() {
    let bench = Bench::new();
    let (report, missing) = (odd(&bench, b"report\xff"), odd(&bench, b"no\xff"));
    let options = [option("--report=", &report, ""), option("--blk=path=", &missing, "")];
    let refused = run(&bench, &[&options[0], &options[1]]);
    let named = format!("--blk path={}", shown(&bench, "no?"));
    assert_refused(&refused, &named, "No such file");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert!(report["outcome"]["detail"].as_str().unwrap().starts_with(&named), "{report}");

    for (before, named) in [("--console=file=", "--console file="), ("--dump-dtb=", "--dump-dtb ")] {
        let path = odd(&bench, b"no\xff/such");
        let named = format!("{named}{}", shown(&bench, "no?/such"));
        let refused = run(&bench, &[&option(before, &path, "")]);
        assert_refused(&refused, &named, "No such file");
    }
    let options =
        [OsString::from("--firmware=acpi"), option("--dump-acpi=", &odd(&bench, b"no\xff/such/x"), "")];
    fs::write(odd(&bench, b"no\xff"), b"").unwrap();
    let named = format!("--dump-acpi {}", shown(&bench, "no?/such/x"));
    assert_refused(&run(&bench, &[&options[0], &options[1]]), &named, "");
}

/// Names that are refused stay one line of text.
#[test]
fn other_values_are_text() {
    let bench = Bench::new();
    for (bytes, shown, reason) in [
        (&b"path=d,pool=\xff"[..], "path=d,pool=\u{fffd}", "there is no pool '\u{fffd}'"),
        (b"path=d,serial=\xff", "path=d,serial=\u{fffd}", "all of printable ASCII"),
        (b"path=d,\xff=1", "path=d,\u{fffd}=1", "unknown key '\u{fffd}'"),
        (b"path=d,ro=\xff", "path=d,ro=\u{fffd}", "ro takes no value, but has '\u{fffd}'"),
        (b"path=", "path=", "path=... is missing"),
    ] {
        let value = option("--blk=", Path::new(OsStr::from_bytes(bytes)), "");
        assert_refused(&run(&bench, &[&value]), &format!("--blk {shown}"), reason);
    }
    let console = option("--console=", Path::new(OsStr::from_bytes(b"\xff")), "");
    assert_refused(&run(&bench, &[&console]), "--console \u{fffd}", "it must be stdio, file=PATH or off");
}

#[test]
fn descriptions() {
    let bench = Bench::new();
    let describe = |options: &[&OsStr]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cvmm"));
        let output = output(command.args(["describe", "--pool=8M"]).args(options));
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let disk = option("--blk=path=", Path::new(OsStr::from_bytes(b"a,,\xff")), "");
    let file = odd(&bench, NAME);
    for (format, kind) in [("json", 0), ("dtb", 1), ("svg", 2), ("text", 3)] {
        let format = OsString::from(format!("--format={format}"));
        describe(&[&disk, &format, OsStr::new("--output"), file.as_os_str()]);
        let written = fs::read(&file).unwrap();
        match kind {
            0 => assert!(serde_json::from_slice::<serde_json::Value>(&written).is_ok()),
            1 => assert!(written.starts_with(&[0xd0, 0x0d, 0xfe, 0xed])),
            _ => assert!(std::str::from_utf8(&written).is_ok() && !written.is_empty()),
        }
    }
    let folder = odd(&bench, b"tables\xff");
    describe(&[OsStr::new("--format=acpi"), OsStr::new("--output"), folder.as_os_str()]);
    assert!(folder.join("dsdt.aml").is_file());
}
