// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

// Doc comments here are help texts: brackets in them are no links.
#![allow(rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const AFTER_HELP: &str = "\
Exit codes:
  0  the guest powered off
  1  cvmm failed, or could not flush a disk, or could not write console output or the report
  2  an option is wrong, or a file that it names
  3  the host can't run the guest: no usable KVM, too little memory, or too few open files
  4  the guest crashed: panic, triple fault, or an error inside KVM
  5  the guest asked for a reset
  6  stopped from outside: by a signal that would end a process, such as SIGTERM, or by the quit key";

/// A virtual machine monitor whose devices reach one pool of guest memory, and nothing else.
#[derive(Debug, Parser)]
#[command(
    name = "cvmm",
    version,
    after_help = "'cvmm COMMAND --help' shows the options, an example and the exit codes."
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
    /// Show the machine that a guest would get, without running it
    Describe(Box<DescribeArgs>),
}

const RUN_HELP: &str = "\
cvmm splits guest memory into private memory and one or more pools. The guest's devices reach their pool and nothing else.
Only the loader touches private memory, before the guest starts. The device tree (or ACPI) describes the pool, and the
guest copies all DMA through it. A device refuses every address outside its pool. 'cvmm describe' shows the description.

A size is in bytes, or ends in K, M or G (powers of 1024); 0x begins a hexadecimal number. --mem and --pool take multiples
of 2M, and --mem is 34M to 63G. A guest has at most 254 CPUs and 32 pools. A disk or network device has at most 8 queues.
In a key=value list, write a comma inside a value twice, but not in --console file=PATH. A file to be written can be -,
which is standard output.

On a terminal, Ctrl-A x quits, and Ctrl-A Ctrl-A sends Ctrl-A to the guest.

Example:
  cvmm run --kernel bzImage --pool 64M --blk path=root.ext4 \\
      --cmdline 'root=/dev/vda rw' --report report.json";

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

    /// Where the guest's console goes: stdio, file=PATH or off
    #[arg(long, value_name = "WHERE", default_value = "stdio")]
    pub console: OsString,

    /// Write a report of the run as JSON: memory split, devices, DMA, refusals, exits
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Write the guest's device tree to this file
    #[arg(long, value_name = "FILE")]
    pub dump_dtb: Option<PathBuf>,

    /// For experiments: give the guest this device tree, such as an edited one from --dump-dtb
    #[arg(long, value_name = "FILE")]
    pub dtb: Option<PathBuf>,

    /// Write the guest's ACPI tables to this folder, one file each
    #[arg(long, value_name = "DIR")]
    pub dump_acpi: Option<PathBuf>,

    /// For experiments: give the guest this DSDT, such as an edited one from --dump-acpi
    #[arg(long, value_name = "FILE")]
    pub dsdt: Option<PathBuf>,

    /// For debugging: do not confine cvmm itself (seccomp, Landlock)
    #[arg(long)]
    pub no_sandbox: bool,
}

const DESCRIBE_HELP: &str = "\
Takes the machine options of cvmm run. It needs no KVM. It opens no disk and no tap, so these need not exist.

Formats:
  text  guest-physical memory as a table
  dts   the device tree as source; needs dtc (Debian: device-tree-compiler)
  dtb   the device tree, as cvmm run --dump-dtb writes it
  asl   the ACPI tables as source; needs iasl (Debian: acpica-tools)
  acpi  the ACPI tables, one file each in the folder --output, as cvmm run --dump-acpi writes them
  json  the machine, for programs
  svg   guest-physical memory as a picture

A guest gets either a device tree or ACPI tables, as --firmware says. 'cvmm describe' can show both for each machine.

Example:
  cvmm describe --pool 64M --blk path=root.ext4,transport=pci --rng --format svg --output machine.svg

Exit codes:
  0  done
  1  cvmm failed
  2  an option is wrong, or a file that it names
  3  the host can't: dtc or iasl is missing, no temporary files, or too few open files";

/// Options of `cvmm describe`.
#[derive(Args, Debug)]
#[command(after_help = DESCRIBE_HELP)]
pub struct DescribeArgs {
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// Format of the description: text, dts, dtb, asl, acpi, json or svg
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: String,

    /// Write to this file, or for acpi to this folder, instead of standard output (-)
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// The options that describe the machine.
#[derive(Args, Debug)]
pub struct MachineArgs {
    /// Text to add to the kernel command line. cvmm's own part names the console and says how the
    /// kernel resets; a reboot= here replaces that
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// Guest memory, including the pools
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub mem: String,

    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "1")]
    pub cpus: String,

    /// A pool, the memory that devices can reach: SIZE, or
    /// size=SIZE[,name=NAME][,base=ADDRESS][,default][,hugepages]. Repeat it for more pools; devices that name none use the
    /// default one. hugepages backs it by huge pages that the host has reserved
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,

    /// A disk, a raw image: path=FILE[,ro][,format=raw][,direct][,serial=TEXT][,queues=N][,transport=mmio|pci][,pool=NAME].
    /// format=raw takes any bytes: without it, a file that begins like another format is refused. direct does not use the
    /// host's page cache
    #[arg(long, value_name = "BLK")]
    pub blk: Vec<OsString>,

    /// A network device: tap=NAME[,mac=MAC][,queues=N][,transport=mmio|pci][,pool=NAME]
    #[arg(long, value_name = "NET")]
    pub net: Vec<String>,

    /// An entropy device: without a value, or [transport=mmio|pci][,pool=NAME]
    #[arg(long, value_name = "RNG", num_args = 0..=1, default_missing_value = "")]
    pub rng: Vec<String>,

    /// How the machine is described to the guest: dt (a device tree) or acpi
    #[arg(long, value_name = "FORM", default_value = "dt")]
    pub firmware: String,

    /// The specification text that cvmm follows: upstream (what kernels know today), rfc (the RFC of April 2025) or plan
    /// (the four-step plan)
    #[arg(long, value_name = "TEXT", default_value = "upstream")]
    pub spec: String,

    /// Number of the feature bit VIRTIO_F_RESTRICTED_DMA: 25 to 27, 31, or 44 to 49 [default: 27 with rfc, 45 with plan]
    #[arg(long, value_name = "N")]
    pub feature_bit: Option<String>,

    /// What to do with a driver that does not accept that bit: refuse (no FEATURES_OK) or allow [default: refuse]
    #[arg(long, value_name = "WHAT")]
    pub unaware: Option<String>,

    /// For experiments: do not offer VIRTIO_F_ACCESS_PLATFORM, and do not require it. Linux then bypasses the pool, and is
    /// refused
    #[arg(long)]
    pub withhold_access_platform: bool,
}
