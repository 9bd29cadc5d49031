// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab`: cvmm on any x86 Linux machine, with or without hardware that can run guests.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cvmm_tests::bench::io::Order;
use cvmm_tests::bench::io::comparison::Comparison;
use cvmm_tests::bench::native::{Given, Plan};
use cvmm_tests::host::Kind;
use cvmm_tests::{bench, debian, fuzz, pages, run, suite};

/// Runs cvmm and its tests on a KVM host.
///
/// The host is this machine, if its KVM can run Linux. Otherwise the lab starts a virtual machine under QEMU's emulation,
/// which has a KVM. That takes some seconds, and guests run more slowly there.
///
/// Downloads are kept in .lab, and builds in the target folder. As root, the lab installs the Debian packages that are missing.
/// Otherwise it says which to install.
#[derive(Debug, Parser)]
#[command(
    name = "cargo lab",
    bin_name = "cargo lab",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Runs a guest; without options, a demo that ends by itself
    ///
    /// Takes the options of `cvmm run` (see `cargo lab run -- --help`).
    ///
    /// If the KVM host is another machine, the lab copies the files that the options name to it. Afterwards it copies reports,
    /// logs and written disks back.
    ///
    /// Without --kernel, the guest gets a prebuilt kernel of the project. Without --initrd it gets the project's init program,
    /// which tests the devices and powers off. A root= in --cmdline leaves the init program out.
    ///
    /// If a tap does not exist on the KVM host, the lab makes it. The address of the first is 192.168.77.1/24, of the second
    /// 192.168.78.1/24, and so on.
    ///
    /// The exit code is cvmm's. On a terminal, Ctrl-A x ends the guest.
    #[command(override_usage = "cargo lab run [--host HOST] [OPTIONS OF cvmm run]")]
    #[command(after_help = "Examples:\n  cargo lab run\n  cargo lab run --pool 64M --blk path=disk.img\n  \
                            cargo lab run --firmware acpi --pool 64M --rng transport=pci\n  \
                            cargo lab run --host emulated --kernel bzImage --pool 64M --report report.json")]
    Run {
        /// The KVM host to use; must come before all other options
        #[arg(long)]
        host: Option<Kind>,
        /// Options of cvmm run
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Runs all tests of the project: unit tests, and guests that boot
    Test {
        /// The KVM host to use
        #[arg(long)]
        host: Option<Kind>,
        /// Run only tests whose names contain this text
        filter: Option<String>,
    },
    /// Measures start-up and memory, disks, pools, or devices at full speed, and compares them with QEMU and kvmtool
    ///
    /// The programs run in turn. The first round is not counted.
    ///
    /// Without --io, --bounce or --contend it measures the start:
    ///
    /// - The time from exec to the first guest instruction. A tracer stops the VMM at the first ioctl(KVM_RUN) of any thread.
    ///   A seccomp filter hands this one call to the tracer, so nothing else is slowed. This uses the /dev/kvm of this machine
    ///   if it opens, even if it cannot run Linux.
    /// - The time from exec to the first line of the guest's init program on the console, without a tracer. It is measured
    ///   with `quiet`, and with the kernel's whole log on the console; the table says how long the log is.
    /// - The VMM's resident memory at both moments: Rss in /proc/PID/smaps, without the mappings of guest memory.
    ///
    /// Each VMM starts the project's kernel and init program with 128 MiB, one CPU, one virtio disk, a random number
    /// generator and a serial console. The table shows medians and extremes, and whether the project's aims were met. That
    /// is not a test: the exit code is 0 either way.
    ///
    /// --io measures a disk: 4 KiB random and 128 KiB sequential reads and writes with direct I/O, on virtio-mmio and
    /// virtio-pci. It also counts the guest's exits for each request, as KVM reports them. All VMMs get the kernel with the
    /// project's patches, and the same 64 MiB disk in the host's memory.
    ///
    /// --bounce measures the copy through the pool: disk and TCP with a pool, against devices that reach all memory. It also
    /// counts how often the pool had no room.
    ///
    /// --contend measures what sharing a pool costs: 1, 2 and 4 vCPUs use two disks, with one pool and with a pool each.
    ///
    /// --native measures devices at full speed, on the /dev/kvm of this machine, even if it cannot run Linux. A bare-metal
    /// guest at privilege level 3 keeps a device busy and polls its rings, so an emulated level 0 costs nothing. The cases
    /// differ in device, transport, load, depth, queues and event indices, and in whether the file is in the host's page
    /// cache. A case has a name like `blk mmio random-read 4k depth-32 queues-1 cpus-1 event cached`. --case takes words of
    /// such names. The depth is of each queue.
    ///
    /// In each round, these take turns on the same file: cvmm; fio with io_uring, which is what the host can do by itself;
    /// QEMU microvm; and programs given by --peer. All VMMs start the same guest. The table has requests per second, and for
    /// each request: notifications, exits, system calls and sleeps of the device's threads, and CPU time. System calls are
    /// counted in the first round, which is not measured, and only as root. Let nothing else run meanwhile.
    #[command(verbatim_doc_comment)]
    #[command(after_help = "Examples:\n  cargo lab bench\n  cargo lab bench --io --json io.json\n  \
                            cargo lab bench --native --case 'blk mmio cached depth-1'\n  \
                            cargo lab bench --native --case uncached --seconds 2 --peer firecracker=./firecracker")]
    Bench {
        /// Measure a disk on each transport
        #[arg(long, group = "comparison")]
        io: bool,
        /// Measure the copy through the pool
        #[arg(long, group = "comparison")]
        bounce: bool,
        /// Measure one pool against a pool for each device
        #[arg(long, group = "comparison")]
        contend: bool,
        /// Measure devices at full speed, with a bare-metal guest
        #[arg(long, conflicts_with_all = ["comparison", "host"])]
        native: bool,
        /// Measure only cases whose names have all these words
        #[arg(
            long,
            value_name = "WORDS",
            default_value = "",
            requires = "native",
            hide_default_value = true
        )]
        case: String,
        /// How long each measurement takes
        #[arg(long, value_name = "SECONDS", default_value_t = 0.5, requires = "native", value_parser = seconds)]
        seconds: f64,
        /// Compare with this program, too: firecracker=PATH, qemu=PATH, or another cvmm=PATH; may be repeated
        #[arg(long, value_name = "NAME=PATH", requires = "native")]
        peer: Vec<Given>,
        /// Measure cvmm and the programs of --peer only: no fio, no QEMU
        #[arg(long, requires = "native")]
        alone: bool,
        /// More options for cvmm's disk, such as direct
        #[arg(long, value_name = "OPTIONS", requires = "native")]
        disk_options: Option<String>,
        /// Guest kernel to use instead of the project's patched one
        #[arg(long, value_name = "FILE", requires = "comparison")]
        kernel: Option<PathBuf>,
        /// The KVM host to boot guests on
        #[arg(long)]
        host: Option<Kind>,
        /// Number of rounds
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Also write the figures to this file, with all samples
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Makes a Debian root file system with systemd: an ext4 image of 1 GiB (sparse)
    ///
    /// It is made by mmdebstrap from the mirror that this machine's apt sources name, as root. Root has no password, and the
    /// network is set up for the first tap of `cargo lab run`: 192.168.77.2, with the host at 192.168.77.1.
    #[command(
        after_help = "Example:\n  cargo lab debian root.ext4\n  cargo lab run --mem 512M --pool 64M \\\n    \
                            --blk path=root.ext4 --net tap=tap0 --cmdline 'root=/dev/vda rw'"
    )]
    Debian {
        /// The image
        file: PathBuf,
    },
    /// Searches with libFuzzer for inputs that make cvmm misbehave
    ///
    /// Prints how many inputs each target executed. The first search begins with the inputs in tests/fuzz/corpus. New inputs
    /// are kept in .lab/fuzz for the next search. For a failure it prints the command that repeats it, and the exit code is 1.
    Fuzz {
        /// Search this target only: blk, chain, loader, machine, mmio, net, options, pci or pci_config
        target: Option<String>,
        /// Seconds to search, for each target
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Run only this input (base64)
        #[arg(long, value_name = "INPUT", requires = "target", allow_hyphen_values = true)]
        input: Option<String>,
    },
    /// Writes cvmm's man pages and shell completions
    ///
    /// DIR/man/man1 gets cvmm.1, cvmm-run.1 and cvmm-describe.1; DIR/completions gets a file each for bash, zsh and fish.
    /// Prints the name of each file.
    #[command(after_help = "Examples:\n  cargo lab pages pages && man -M pages/man cvmm-run\n  \
                            . pages/completions/cvmm.bash")]
    Pages {
        /// The folder to write them to
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A time that can be measured.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("not between 0.01 and 3600".into()) }
}

fn execute(command: LabCommand) -> anyhow::Result<i32> {
    match command {
        LabCommand::Run { host, options } => run::run(host, &options),
        LabCommand::Test { host, filter } => suite::test(host, filter.as_deref()),
        LabCommand::Fuzz { target, input: Some(input), .. } => fuzz::reproduce(target.as_deref(), &input),
        LabCommand::Fuzz { target, seconds, input: None } => fuzz::fuzz(target.as_deref(), seconds),
        LabCommand::Debian { file } => debian::make(&file).map(|()| 0),
        LabCommand::Pages { folder } => pages::write(&folder),
        LabCommand::Bench {
            native: true, case, seconds, peer, alone, disk_options, rounds, json, ..
        } => bench::native::bench(&Plan {
            filter: case,
            seconds,
            rounds,
            peers: peer,
            alone,
            disk_options,
            json,
        }),
        LabCommand::Bench { io, bounce, contend, kernel, host, rounds, json, .. } => {
            let comparison = match (io, bounce, contend) {
                (true, ..) => Comparison::Transports,
                (_, true, _) => Comparison::Bouncing,
                (.., true) => Comparison::Contention,
                _ => return bench::bench(host, rounds, json.as_deref()),
            };
            bench::io::bench(comparison, &Order { host, rounds, kernel, json })
        }
    }
}
