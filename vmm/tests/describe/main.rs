// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cvmm describe`: each format read by something else than what writes it, bad options, and what it leaves behind.

mod dtb;
mod json;
mod rfc;
mod svg;
mod tools;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A disk on each transport, and a device of each other kind. Nothing that they name is there.
const MIXED: &str =
    "--pool 64M --blk path=none,transport=pci --blk path=none --net tap=cvmm-none0,transport=pci --rng";
/// The names of its devices, in their order.
const MIXED_NAMES: [&str; 4] = ["blk0", "blk1", "net0", "rng0"];
const BINARY: &str = env!("CARGO_BIN_EXE_cvmm");

/// A folder to describe machines in, and one for temporary files.
struct Place {
    here: TempDir,
    temporary: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { here: tempfile::tempdir().unwrap(), temporary: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// `cvmm describe` with `options`.
    fn command(&self, options: &str) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("describe").args(options.split_whitespace()).current_dir(self.here.path());
        command.env("TMPDIR", self.temporary.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// What is written for `options`. Leaves no temporary files behind, as the others here.
    fn describe(&self, options: &str) -> Vec<u8> {
        let output = self.output(&mut self.command(options));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*error), (Some(0), ""), "{options}");
        output.stdout
    }

    fn text(&self, options: &str) -> String {
        String::from_utf8(self.describe(options)).unwrap()
    }

    /// `options` end with this exit code and one line that begins like this.
    fn refuse(&self, options: &str, code: i32, begins: &str) {
        let output = self.output(&mut self.command(options));
        assert_error(&output, code, begins);
    }

    fn output(&self, command: &mut Command) -> Output {
        let output = command.output().unwrap();
        assert_eq!(fs::read_dir(self.temporary.path()).unwrap().count(), 0, "{command:?} left files behind");
        output
    }
}

fn assert_error(output: &Output, code: i32, begins: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(error.starts_with(&format!("cvmm: {begins}")), "should be '{begins}': {error}");
    assert!(error.ends_with('\n') && error.lines().count() == 1, "not one line: {error}");
}

#[test]
fn the_default_is_a_table() {
    let place = Place::new();
    let text = place.text(MIXED);
    for line in [
        "memory         512 MiB",
        "0x0-0x1affffff               432 MiB  private memory     no device reaches it",
        "0x1b000000-0x1effffff         64 MiB  pool               restricted-dma-pool",
        "0xc0008000-0xc000ffff         32 KiB  blk0               virtio-pci 00:01.0, BAR 0, MSI-X or interrupt 61, DMA only in pool",
        "0xd0000000-0xd0000fff          4 KiB  blk1               virtio-mmio, interrupt 5, DMA only in pool",
        "0xfee01000-0xffffffff       18.0 MiB  hole",
    ] {
        assert!(text.lines().any(|other| other == line), "no line '{line}': {text}");
    }
    assert_eq!(text, place.text(&format!("{MIXED} --format text")));
    assert_eq!(fs::read_dir(place.here.path()).unwrap().count(), 0, "files appeared");
}

/// `program` in a world that has no /dev/kvm: another folder in place of /dev, for this process alone.
fn without_kvm(place: &Place, program: &str) -> Command {
    // The entropy device of a run opens this file.
    let script = "mount -t tmpfs none /dev && touch /dev/urandom && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh", program]);
    command.current_dir(place.here.path()).env_remove("RUST_LOG");
    command
}

/// Neither /dev/kvm nor what the options name is needed, and what is there is not opened: a pipe would keep its reader
/// waiting.
#[test]
fn nothing_is_opened() {
    let place = Place::new();
    nix::unistd::mkfifo(&place.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for format in ["text", "dtb", "json", "svg"] {
        let command = place.command(&format!("--pool 64M --blk path=pipe --net tap=none --format {format}"));
        let output = without_kvm(&place, BINARY).args(command.get_args()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*error), (Some(0), ""), "{format}");
    }
}

/// What `cvmm run` gives its guest is what is described.
#[test]
fn a_run_writes_the_same() {
    let place = Place::new();
    let kernel = concat!(env!("CARGO_MANIFEST_DIR"), "/../resources/guest-kernel/bzImage-x86_64");
    let machine = "--pool 64M --rng --rng transport=pci --mem 5G --cpus 3 --cmdline quiet";
    let run = |options: &[&str]| {
        let mut command = without_kvm(&place, BINARY);
        command.args(["run", "--console=off", "--kernel", kernel]).args(machine.split_whitespace());
        let output = command.args(options).output().unwrap();
        // It ends for want of KVM, after it has written what it would give.
        assert_eq!(output.status.code(), Some(3), "{output:?}");
    };
    run(&["--dump-dtb", "dumped.dtb"]);
    assert_eq!(
        fs::read(place.path("dumped.dtb")).unwrap(),
        place.describe(&format!("{machine} --format dtb"))
    );
    run(&["--firmware", "acpi", "--dump-acpi", "dumped"]);
    place.describe(&format!("{machine} --firmware acpi --format acpi --output described"));
    assert_eq!(files(&place.path("dumped")), files(&place.path("described")));
}

#[test]
fn a_dash_is_standard_output() {
    let place = Place::new();
    for format in ["text", "dtb", "json", "svg"] {
        let options = format!("--pool 64M --format {format}");
        assert_eq!(place.describe(&format!("{options} --output -")), place.describe(&options));
    }
    let reason = "--output -: each table is a file of its own, and standard output is one: name a folder";
    place.refuse("--pool 64M --format acpi --output -", 2, reason);
    assert_eq!(files(place.here.path()), []);
}

/// Names and contents of the files in `folder`, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn tables_are_files() {
    let place = Place::new();
    let acpi = |machine: &str| place.describe(&format!("{machine} --format acpi --output new/tables"));
    // Its folder is made; a second time, the tables are overwritten.
    for machine in [MIXED, "--pool 2M --cpus 4 --rng transport=pci"] {
        acpi(machine);
        let tables = files(&place.path("new/tables"));
        let names: Vec<_> = tables.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["rsdp.aml", "xsdt.aml", "facp.aml", "apic.aml", "dsdt.aml", "mcfg.aml"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for (name, bytes) in tables.iter().filter(|(name, _)| name != "rsdp.aml") {
            // ACPI 6.5, 5.2.6: signature, and length of the table.
            assert_eq!(bytes[..4].to_ascii_lowercase(), name.as_bytes()[..4]);
            assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize, bytes.len(), "{name}");
        }
    }
    // The machine without PCI has no MCFG: that of the other would stay.
    place.refuse(
        "--pool 64M --format acpi --output new/tables",
        2,
        "--output new/tables: the folder has mcfg.aml, which is not a table of this machine",
    );
    place.refuse("--pool 64M --format acpi", 2, "--format acpi: each table is a file of its own");
    fs::write(place.path("file"), "").unwrap();
    place.refuse("--pool 64M --format acpi --output file", 2, "--output file: the folder can't be made");
}

#[test]
fn wrong_options() {
    let place = Place::new();
    for (options, begins) in [
        ("", "--pool: it is missing"),
        ("--pool 64M --format png", "--format png: it must be text, dts, dtb, asl, acpi, json or svg"),
        ("--pool 3M", "--pool 3M: its size must be a multiple of 2M"),
        ("--pool 64M --rng transport=usb", "--rng transport=usb: transport: 'usb' is unknown"),
        ("--pool 64M --firmware uefi", "--firmware uefi: it must be dt or acpi"),
        ("--pool 64M --output none/file", "--output none/file: it can't be written: No such file"),
        ("--pool 64M --output .", "--output .: it can't be written: Is a directory"),
    ] {
        place.refuse(options, 2, begins);
    }
    let output = place.output(&mut place.command("--pool 64M --kernel k"));
    assert_error(&output, 2, "unexpected argument '--kernel' found; see cvmm describe --help");
}

/// Nobody asked for a guest. The limit that is said to be enough is, and no less would be.
#[test]
fn too_few_open_files() {
    // A file that whoever started us has left open counts.
    for left_open in ["", "9</dev/null"] {
        let describe = |limit: u32| {
            let script = format!("ulimit -n {limit}; exec \"$@\" {left_open}");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script, "sh", BINARY, "describe", "--pool=2M"]).output().unwrap()
        };
        let output = describe(16);
        let expected = "Too many open files: this needs 16 more than are open, and the limit of this process is 16; \
                        ulimit -n ";
        assert_error(&output, 3, expected);
        let said = String::from_utf8(output.stderr).unwrap();
        let (_, said) = said.split_once("ulimit -n ").unwrap();
        let enough = said.strip_suffix(" or more is enough\n").unwrap().parse().unwrap();
        assert!(describe(enough).status.success(), "{enough}");
        assert_error(&describe(enough - 1), 3, "Too many open files");
    }
}

/// What the options allow can be described; what is refused says what would do.
#[test]
fn small_memory_holds_small_pools() {
    let place = Place::new();
    for mem in (16..=72).step_by(2) {
        for pool in [2, 4, 16] {
            let options = format!("--mem {mem}M --pool {pool}M");
            if mem < 34 {
                let expected =
                    format!("--mem {mem}M: guest memory must be a multiple of 2M, from 34M to 63G");
                place.refuse(&options, 2, &expected);
            } else if mem < pool + 32 {
                let output = place.output(&mut place.command(&options));
                assert_error(
                    &output,
                    2,
                    &format!("--pool {pool}M: it does not fit: it needs {pool}M in one piece"),
                );
                let said = String::from_utf8(output.stderr).unwrap();
                let (room, least) = (mem - 32, pool + 32);
                let expected = format!("free for pools has {room}M; use --mem {least}M or more\n");
                assert!(said.ends_with(&expected), "{options}: {said}");
            } else {
                place.describe(&options);
            }
        }
    }
}

#[test]
fn a_disk_is_not_overwritten() {
    let place = Place::new();
    fs::write(place.path("disk"), [7; 512]).unwrap();
    fs::hard_link(place.path("disk"), place.path("link")).unwrap();
    for output in ["disk", "./disk", "link"] {
        let options = format!("--pool 64M --blk path=disk --format svg --output {output}");
        place.refuse(&options, 2, &format!("--output {output}: --blk path=disk names the same file"));
    }
    assert_eq!(fs::read(place.path("disk")).unwrap(), [7; 512]);
}

#[test]
fn a_terminal_gets_no_binary() {
    let place = Place::new();
    let on_terminal = |format: &str| {
        // script gives its command a terminal, and returns its exit code.
        let line = format!("{BINARY} describe --pool 64M --format {format}");
        Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap()
    };
    let refused = on_terminal("dtb");
    let text = String::from_utf8_lossy(&refused.stdout);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(
        text.starts_with("cvmm: --format dtb: it is binary, and standard output is a terminal"),
        "{text}"
    );
    assert_eq!(on_terminal("svg").status.code(), Some(0));
    let line = format!("{BINARY} describe --pool 64M --format dtb --output -");
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
    // A file is one, whoever looks on.
    let line = format!("{BINARY} describe --pool 64M --format dtb --output {}", place.path("t").display());
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
    assert_eq!(output.unwrap().status.code(), Some(0));
    assert_eq!(fs::read(place.path("t")).unwrap(), place.describe("--pool 64M --format dtb"));
}

#[test]
fn readers_may_go_and_disks_may_be_full() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = place.command(MIXED).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = place.command(MIXED).stdout(full).output().unwrap();
    assert_error(&output, 1, "standard output can't be written: No space left");
}
