// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab run`: cvmm on the best KVM host there is, with this machine's files.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::agent::tap_exists;
use crate::host::{self, CommandLine, Exit, Host, Kind, Stream};
use crate::options::{self, Carried};
use crate::table::Report;
use crate::{packages, terminal};

/// The demo's network: the host's tap, and the guest at the other end.
const TAP: &str = "cvmm-demo";
const TAP_ADDRESS: &str = "192.168.77.1/24";
const PORT: u16 = 5000;
const DISK_SIZE: u64 = 64 << 20;
/// cvmm's exit code for them.
const BAD_ARGUMENTS: i32 = 2;

/// Runs cvmm on the `chosen` kind of host with `options` (without any: the demo), and returns its exit code.
pub fn run(chosen: Option<Kind>, options: &[OsString]) -> Result<i32> {
    let (kind, why) = host::best_kind(chosen)?;
    eprintln!("lab: {why}; using {kind}");
    if options.is_empty() {
        return demo(kind);
    }
    let carried = options::carry(options, Path::new("/"));
    if let Err(error) = make_folders(&carried.folders).and_then(|()| check_files(kind, options, &carried)) {
        eprintln!("lab: {error:#}");
        return Ok(BAD_ARGUMENTS);
    }
    let host = start(kind, options)?;
    // A tap of this machine is of no use on an emulated host, and one that is there must not be changed.
    let taps = options::taps(options);
    let made: Vec<_> = taps
        .iter()
        .enumerate()
        .filter(|(_, name)| kind == Kind::Emulated || !tap_exists(name))
        .map(|(index, name)| {
            let address = format!("192.168.{}.1/24", 77 + index);
            eprintln!("lab: the host's end of tap {name} is {address}");
            host.multi_queue_tap(name, &address)
        })
        .collect::<Result<_>>()?;
    let (code, _) = carry_and_run(&host, options)?;
    drop(made);
    Ok(code)
}

/// Shows a stock kernel with a disk, a network and a random number generator confined to a pool.
fn demo(kind: Kind) -> Result<i32> {
    packages::require(&[packages::MKFS_EXT4])?;
    let disk = tempfile::Builder::new().prefix("cvmm-demo-").suffix(".ext4").tempfile()?;
    make_ext4(disk.path(), DISK_SIZE)?;
    let guest = TAP_ADDRESS.replace(".1/", ".2/");
    let peer = TAP_ADDRESS.split('/').next().unwrap_or_default();
    let words = format!(
        "cvmm.test=pool,cpus,blk,net,rng cvmm.cpus=2 cvmm.blk=vda:rw \
         cvmm.net={guest},peer={peer},port={PORT},bytes=4194304"
    );
    let options = [
        "--mem=512M".to_owned(),
        "--cpus=2".to_owned(),
        "--pool=64M".to_owned(),
        format!("--blk=path={}", disk.path().display()),
        format!("--net=tap={TAP}"),
        "--rng".to_owned(),
        format!("--cmdline={words}"),
    ];
    let line = options.join(" ");
    let options = options.map(OsString::from);
    let host = start(kind, &options)?;
    let tap = host.tap(TAP, TAP_ADDRESS)?;
    let peer = host.peer(PORT)?;
    eprintln!("lab: cvmm run {line}");
    let (code, console) = carry_and_run(&host, &options)?;
    match peer.received(Duration::ZERO) {
        Ok(received) => {
            eprintln!(
                "lab: the host received {} bytes from the guest, sha256 {}",
                received.bytes, received.sha256
            );
        }
        Err(error) => eprintln!("lab: no transfer between guest and host: {error:#}"),
    }
    drop(tap);
    if code == 0 && !console.contains(" passed, 0 failed") {
        bail!("cvmm ended in order, but not all of the guest's assertions held");
    }
    Ok(code)
}

/// Makes an image with an ext4 file system at `path`.
pub fn make_ext4(path: &Path, size: u64) -> Result<()> {
    packages::require(&[packages::MKFS_EXT4])?;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path);
    file.and_then(|file| file.set_len(size)).with_context(|| format!("cannot create {}", path.display()))?;
    let program = packages::find(packages::MKFS_EXT4.program).context("mkfs.ext4 is not installed")?;
    let output = Command::new(program).arg("-q").arg(path).output().context("cannot run mkfs.ext4")?;
    if !output.status.success() {
        bail!("mkfs.ext4 failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn start(kind: Kind, options: &[OsString]) -> Result<Host> {
    match kind {
        Kind::Kvm => Host::kvm(),
        Kind::Emulated => {
            let there = options::carry(options, Path::new("/")).there;
            let sizes = there.iter().filter_map(|(file, _)| Some(file.metadata().ok()?.len()));
            Host::emulated(host::SAFE_CPUS, sizes.sum())
        }
    }
}

/// Returns the exit code, and what the guest wrote on its console.
fn carry_and_run(host: &Host, options: &[OsString]) -> Result<(i32, String)> {
    let folder = host.folder()?;
    let mut carried = match host.kind() {
        Kind::Kvm => Carried { arguments: options.to_vec(), ..Carried::default() },
        Kind::Emulated => options::carry(options, folder.path()),
    };
    // The prebuilt kernel and our init program stand in for what is not given.
    if !options::has(options, "--kernel") {
        let tools = host.tools()?;
        let kernel = if needs_patches(options) {
            eprintln!("lab: the stock kernel finds no pool in this machine: using the one with our patches");
            &tools.patched_kernel
        } else {
            &tools.kernel
        };
        carried.arguments.push(format!("--kernel={}", kernel.display()).into());
    }
    // A kernel that is told of no file system to boot from would only panic.
    let has_root =
        options::value(options, "--cmdline").is_some_and(|words| words.to_string_lossy().contains("root="));
    if !options::has(options, "--initrd") && !has_root {
        let initrd = &host.tools()?.initrd;
        carried.arguments.push(format!("--initrd={}", initrd.display()).into());
    }
    let report = options::value(&carried.arguments, "--report").unwrap_or_else(|| {
        let path = folder.file("report.json");
        carried.arguments.push(format!("--report={path}").into());
        path.into()
    });
    for (from, to) in &carried.there {
        host.put(from, to)?;
    }

    let ended = interact(host, &carried);
    let shown = show_table(host, Path::new(&report));
    for (from, to) in &carried.back {
        // What was never written (the run was refused) leaves what is here alone.
        if host.exists(from) {
            host.get(from, to)?;
        }
    }
    shown?;
    let (exit, console) = ended?;
    let code = match exit {
        Exit::Code(code) => code,
        // As shells say it.
        Exit::Signal(signal) => 128 + signal,
    };
    Ok((code, console))
}

/// Whether a stock kernel would not find the pool: that of a PCI function, one that ACPI describes, or a catch-all.
fn needs_patches(options: &[OsString]) -> bool {
    let spec = options::value(options, "--spec");
    // With the RFC's text, no kernel finds it on PCI.
    options.iter().any(|option| option.to_string_lossy().contains("transport=pci"))
        && spec.as_deref().is_none_or(|spec| spec != "rfc")
        || options::value(options, "--firmware").is_some_and(|firmware| firmware == "acpi")
        || spec.is_some_and(|spec| spec == "plan")
}

/// What can't be carried to the host, or brought home, is better known before the guest runs. A host that is this machine
/// takes the files themselves, and cvmm says what is wrong.
fn check_files(kind: Kind, options: &[OsString], carried: &Carried) -> Result<()> {
    if kind == Kind::Kvm {
        return Ok(());
    }
    if let Some(path) = carried.no_files.first() {
        let option = options::naming(options, path);
        bail!("{option}: it is no regular file, and an emulated host gets copies of such only");
    }
    for (_, to) in &carried.back {
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = match (to.is_dir(), to.exists()) {
            (true, _) => Err(io::ErrorKind::IsADirectory.into()),
            (_, true) => Ok(()),
            (_, false) => tempfile::tempfile_in(folder).map(drop),
        };
        written.with_context(|| format!("{}: it can't be written", options::naming(options, to)))?;
    }
    Ok(())
}

/// Makes the folders that files will be carried back to. What is in them must not be taken for what comes.
fn make_folders(folders: &[PathBuf]) -> Result<()> {
    for folder in folders {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("--dump-acpi {}: the folder can't be made", folder.display()))?;
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name();
            if Path::new(&name).extension().is_some_and(|extension| extension == "aml") {
                bail!("--dump-acpi {}: {} is in it; use another folder", folder.display(), name.display());
            }
        }
    }
    Ok(())
}

/// Prints the table of the report, if the run came that far.
fn show_table(host: &Host, report: &Path) -> Result<()> {
    if host.exists(report) {
        match serde_json::from_slice::<Report>(&host.read(report)?) {
            Ok(report) => eprint!("{}", report.table()),
            Err(error) => eprintln!("lab: the report is not as expected: {error}"),
        }
    }
    Ok(())
}

/// Runs cvmm with its console on our terminal or standard input and output.
fn interact(host: &Host, carried: &Carried) -> Result<(Exit, String)> {
    let raw = terminal::Raw::enter()?;
    let mut process = host.spawn(CommandLine {
        program: host.cvmm().to_owned(),
        arguments: [OsString::from("run")].iter().chain(&carried.arguments).cloned().collect(),
        terminal: raw.is_some(),
        ..CommandLine::default()
    })?;
    terminal::forward_signals(process.control())?;
    terminal::forward_input(process.control());
    let newline = if raw.is_some() { "\r\n" } else { "\n" };
    let exit = process.stream(|stream, bytes| {
        // A reader that is gone stops the display, not the run.
        let _ = match stream {
            Stream::Stdout => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
            Stream::Stderr => {
                let text = carried.with_paths_of_here(&String::from_utf8_lossy(bytes)).replace('\n', newline);
                io::stderr().write_all(text.as_bytes())
            }
        };
    });
    drop(raw);
    Ok((exit?, process.stdout()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before a host is started, and with the option as it was given.
    #[test]
    fn files_that_can_not_be_carried_are_told_of_their_option() {
        let here = tempfile::tempdir().unwrap();
        let path = |name: &str| here.path().join(name).display().to_string();
        let (folder, missing) = (path(""), path("no/such"));
        for (options, expected) in [
            (
                ["--report".into(), missing.clone()],
                format!("--report {missing}: it can't be written: No such file"),
            ),
            (
                ["--rng".into(), format!("--console=file={missing}")],
                format!("--console file={missing}: it can't be"),
            ),
            (
                ["--report".into(), folder.clone()],
                format!("--report {folder}: it can't be written: is a directory"),
            ),
            (["--kernel".into(), folder.clone()], format!("--kernel {folder}: it is no regular file")),
        ] {
            let options = options.map(OsString::from);
            let check = |kind| check_files(kind, &options, &options::carry(&options, Path::new("/")));
            let error = format!("{:#}", check(Kind::Emulated).unwrap_err());
            assert!(error.starts_with(&expected), "{error}");
            assert!(check(Kind::Kvm).is_ok(), "{options:?}");
        }
        let good = ["--report".into(), path("report")].map(OsString::from);
        assert!(check_files(Kind::Emulated, &good, &options::carry(&good, Path::new("/"))).is_ok());
        assert_eq!(run(Some(Kind::Emulated), &["--report".into(), missing.into()]).unwrap(), BAD_ARGUMENTS);
    }
}
