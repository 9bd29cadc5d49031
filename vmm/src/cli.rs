// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const AFTER_HELP: &str = "\
Exit codes:
  0  the guest powered off
  1  error of cvmm itself
  2  bad arguments, or a file that they name
  3  the host can't: no usable KVM
  4  the guest crashed: panic, triple fault, or an error inside KVM
  5  the guest asked for a reset
  6  stopped from outside: SIGTERM, SIGINT, SIGHUP, or the quit key";

/// A virtual machine monitor whose devices reach one pool of guest memory, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "cvmm", version, after_help = AFTER_HELP)]
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
}

const RUN_HELP: &str = "\
Guest memory is split: private memory, which only the loader ever touches, and a pool, which the guest's devices can
reach. The device tree tells the guest to bounce all DMA through the pool; a device refuses every address outside it.

Example:
  cvmm run --kernel bzImage --pool 64M --blk path=root.ext4 --cmdline 'root=/dev/vda rw' --report report.json

Sizes are bytes, or end in K, M, G (powers of 1024). In key=value lists, a comma inside a value is written twice.
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

    /// Added to the kernel's command line, which names the console and asks for a reset after a panic
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// Guest memory, the pool included
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub mem: String,

    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "1")]
    pub cpus: String,

    /// The memory that devices can reach: SIZE, or size=SIZE[,name=NAME][,base=ADDRESS]
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,

    /// A disk: path=FILE[,ro][,serial=TEXT][,transport=mmio]
    #[arg(long, value_name = "BLK")]
    pub blk: Vec<String>,

    /// A network device: tap=NAME[,mac=MAC][,transport=mmio]
    #[arg(long, value_name = "NET")]
    pub net: Vec<String>,

    /// An entropy device
    #[arg(long)]
    pub rng: bool,

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
}
