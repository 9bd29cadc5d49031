// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const AFTER_HELP: &str = "\
Exit codes:
  0  the guest powered off
  1  error of cvmm itself; also: a disk could not be flushed, console output or the report could not be written
  2  bad arguments, or a file that they name
  3  the host can't: no usable KVM, or no memory for the guest
  4  the guest crashed: panic, triple fault, or an error inside KVM
  5  the guest asked for a reset
  6  stopped from outside: SIGTERM, SIGINT, SIGHUP, or the quit key";

/// A virtual machine monitor whose devices reach one pool of guest memory, and nothing else.
#[derive(Debug, Parser)]
#[command(
    name = "cvmm",
    version,
    after_help = "Each command has its own --help, with examples and exit codes."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a guest and run it to its end
    Run(Box<RunArgs>),
    /// Show the machine that a guest would be told of, without running it
    Describe(Box<DescribeArgs>),
}

const RUN_HELP: &str = "\
Guest memory is split: private memory, which only the loader ever touches, and a pool, which the guest's devices can
reach. The device tree (or ACPI) tells the guest to bounce all DMA through the pool; a device refuses every address
outside it. 'cvmm describe' shows what the guest is told.

Example:
  cvmm run --kernel bzImage --pool 64M --blk path=root.ext4 --cmdline 'root=/dev/vda rw' --report report.json

Sizes are bytes, or end in K, M, G (powers of 1024); 0x begins a hexadecimal number. Memory and pools are multiples of
2M, the first 32M to 63G. There are at most 254 CPUs, 32 pools, and 8 queues of a disk or tap. In key=value lists, a comma inside a value is written twice.
On a terminal, Ctrl-A x quits, and Ctrl-A Ctrl-A sends Ctrl-A.";

/// Options of `cvmm run`.
#[derive(Args, Debug)]
#[command(after_long_help = format!("{RUN_HELP}\n\n{AFTER_HELP}"), after_help = AFTER_HELP)]
pub struct RunArgs {
    /// Kernel: a bzImage or an ELF vmlinux
    #[arg(long, value_name = "PATH")]
    pub kernel: PathBuf,

    /// Initial RAM disk
    #[arg(long, value_name = "PATH")]
    pub initrd: Option<PathBuf>,

    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// Where the console goes: stdio, file=PATH or off
    #[arg(long, value_name = "WHERE", default_value = "stdio")]
    pub console: String,

    /// Write what happened, as JSON: memory split, devices, DMA, refusals
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Write the device tree that the guest gets
    #[arg(long, value_name = "FILE")]
    pub dump_dtb: Option<PathBuf>,

    /// Give the guest this device tree instead: for experiments with what --dump-dtb wrote
    #[arg(long, value_name = "FILE")]
    pub dtb: Option<PathBuf>,

    /// Write the ACPI tables that the guest gets, one file each, into this folder
    #[arg(long, value_name = "DIR")]
    pub dump_acpi: Option<PathBuf>,

    /// Give the guest this DSDT instead: for experiments with what --dump-acpi wrote
    #[arg(long, value_name = "FILE")]
    pub dsdt: Option<PathBuf>,

    /// Do not confine cvmm itself (seccomp, Landlock): for debugging
    #[arg(long)]
    pub no_sandbox: bool,
}

const DESCRIBE_HELP: &str = "\
Takes the machine options of cvmm run. It needs no KVM, opens no disk and no tap: files need not be there.

  text  what is where in guest-physical memory, as a table
  dts   the device tree as source; needs dtc (Debian: device-tree-compiler)
  dtb   the device tree, as cvmm run --dump-dtb writes it
  asl   the ACPI tables as source; needs iasl (Debian: acpica-tools)
  acpi  the ACPI tables, one file each in the folder --output, as cvmm run --dump-acpi writes them
  json  the machine, for programs
  svg   guest-physical memory as a picture

A guest gets the form that --firmware says; here, each form can be had with either.

Example:
  cvmm describe --pool 64M --blk path=root.ext4,transport=pci --rng --format svg --output machine.svg

Exit codes:
  0  done
  1  error of cvmm itself
  2  bad arguments, or a file that they name
  3  the host can't: dtc or iasl is missing";

/// Options of `cvmm describe`.
#[derive(Args, Debug)]
#[command(after_help = DESCRIBE_HELP)]
pub struct DescribeArgs {
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// How: text, dts, dtb, asl, acpi, json or svg
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: String,

    /// Where to, instead of standard output: a file, or for acpi a folder
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// The options that describe the machine.
#[derive(Args, Debug)]
pub struct MachineArgs {
    /// Added to the kernel's command line, which names the console and asks for a reset after a panic
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// Guest memory, the pool included
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub mem: String,

    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "1")]
    pub cpus: String,

    /// Memory that devices can reach: SIZE, or size=SIZE[,name=NAME][,base=ADDRESS][,default]. Repeat it for more pools;
    /// the default one is for devices that name none
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,

    /// A disk: path=FILE[,ro][,serial=TEXT][,queues=N][,transport=mmio|pci][,pool=NAME]
    #[arg(long, value_name = "BLK")]
    pub blk: Vec<String>,

    /// A network device: tap=NAME[,mac=MAC][,queues=N][,transport=mmio|pci][,pool=NAME]
    #[arg(long, value_name = "NET")]
    pub net: Vec<String>,

    /// An entropy device: nothing more, or [transport=mmio|pci][,pool=NAME]
    #[arg(long, value_name = "RNG", num_args = 0..=1, default_missing_value = "")]
    pub rng: Vec<String>,

    /// What tells the guest of its machine: dt (a device tree) or acpi
    #[arg(long, value_name = "FORM", default_value = "dt")]
    pub firmware: String,

    /// What the guest is told of the pool: upstream (what kernels know today), rfc (the RFC of April 2025) or plan (the
    /// four-step plan)
    #[arg(long, value_name = "TEXT", default_value = "upstream")]
    pub spec: String,

    /// Number of the feature bit VIRTIO_F_RESTRICTED_DMA: 25 to 27, 31, or 44 to 49 [default: 27 with rfc, 45 with plan]
    #[arg(long, value_name = "N")]
    pub feature_bit: Option<String>,

    /// What happens to a driver that does not accept that bit: refuse (no FEATURES_OK) or allow [default: refuse]
    #[arg(long, value_name = "WHAT")]
    pub unaware: Option<String>,

    /// Do not offer VIRTIO_F_ACCESS_PLATFORM, nor ask for it: to see what a driver does then. (Linux bypasses the pool, and
    /// is refused)
    #[arg(long)]
    pub withhold_access_platform: bool,
}
