// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab`: cvmm on any x86 Linux machine, with or without hardware that can run guests.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cvmm_tests::bench::io::Order;
use cvmm_tests::bench::io::comparison::Comparison;
use cvmm_tests::host::Kind;
use cvmm_tests::{bench, fuzz, run, suite};

/// Runs cvmm and its tests on a KVM host: this machine where its KVM can run Linux, else a machine under QEMU's emulation
/// that the lab sets up by itself (it takes some seconds to start, and guests run more slowly in it).
///
/// What the lab fetches is kept in .lab, what it builds in the target folder. As root it installs the Debian packages that
/// are missing; otherwise it says which to install.
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
    /// Takes the options of `cvmm run` (see `cargo lab run -- --help`). Files that they name are carried to the KVM host
    /// where that is another machine; reports, logs and written disks are carried back. Without --kernel a
    /// prebuilt kernel of the project is used; without --initrd, and root= in --cmdline, its init program, which tries the
    /// devices and powers off. A tap is made on the KVM host if it is not there; its address is
    /// 192.168.77.1/24 (the second tap's 192.168.78.1/24, and so on).
    ///
    /// The exit code is cvmm's. On a terminal, Ctrl-A x ends the guest.
    #[command(override_usage = "cargo lab run [--host HOST] [OPTIONS OF cvmm run]")]
    #[command(after_help = "Examples:\n  cargo lab run\n  cargo lab run --pool 64M --blk path=disk.img\n  \
                            cargo lab run --firmware acpi --pool 64M --rng transport=pci\n  \
                            cargo lab run --host emulated --kernel bzImage --pool 64M --report report.json")]
    Run {
        /// Which KVM host to use (before all other options)
        #[arg(long)]
        host: Option<Kind>,
        /// cvmm run's options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Runs every test of the project, unit tests included
    Test {
        /// Which KVM host to use
        #[arg(long)]
        host: Option<Kind>,
        /// Only tests whose names contain this
        filter: Option<String>,
    },
    /// Compares start-up and memory, or a disk, with QEMU's and kvmtool's; or pools with direct DMA and with each other
    ///
    /// Measured, by turns, after a first round that does not count:
    ///
    /// - the time from exec to the first guest instruction: to the first ioctl(KVM_RUN) of any thread, where a tracer stops
    ///   the VMM (a seccomp filter hands it this one call, so that nothing else is slowed); on this machine's /dev/kvm if
    ///   it opens, even where that cannot run Linux;
    /// - the time from exec to the first line of the guest's init program on the console, without a tracer;
    /// - at both moments, the VMM's resident memory (Rss in /proc/PID/smaps) in mappings that are not guest memory.
    ///
    /// Each VMM starts the project's kernel and init program with 128 MiB, one CPU, one virtio disk, a random number
    /// generator and a serial console. The table shows medians and extremes, and whether the project's aims were met; that
    /// is not a test, and the exit code is 0 either way.
    ///
    /// With --io, what a disk does instead: 4 KiB random and 128 KiB sequential reads and writes by direct I/O, on
    /// virtio-mmio and virtio-pci, and KVM's count of the guest's exits for each request. All get the kernel with the
    /// project's patches and the same disk of 64 MiB in the host's memory.
    ///
    /// With --bounce, what the copy through the pool costs: disk and TCP with a pool, and with devices that reach all memory,
    /// and how often the pool had no room. With --contend, what sharing it costs: 1, 2 and 4 vCPUs use two disks with one
    /// pool, and with a pool for each.
    #[command(verbatim_doc_comment)]
    Bench {
        /// Compare disks instead of starts
        #[arg(long, group = "comparison")]
        io: bool,
        /// Compare the pool with DMA to all memory
        #[arg(long, group = "comparison")]
        bounce: bool,
        /// Compare one pool with a pool for each device
        #[arg(long, group = "comparison")]
        contend: bool,
        /// The guest's kernel, instead of the project's with its patches
        #[arg(long, value_name = "FILE", requires = "comparison")]
        kernel: Option<PathBuf>,
        /// Which KVM host to boot guests on
        #[arg(long)]
        host: Option<Kind>,
        /// How many rounds
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Also write the figures, with all samples, to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Searches for inputs that make cvmm do what it must not, by libFuzzer
    ///
    /// Prints how many inputs each target executed. What was new in them is kept in .lab/fuzz, for the next search; the
    /// inputs in tests/fuzz/corpus are where the first one begins. A failure is printed with the command that repeats
    /// it, and the exit code is 1.
    Fuzz {
        /// Only this target: blk, chain, loader, machine, mmio, net, options, pci or pci_config
        target: Option<String>,
        /// How long to search, in each target
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Run this input (base64) and no other
        #[arg(long, value_name = "INPUT", requires = "target", allow_hyphen_values = true)]
        input: Option<String>,
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

fn execute(command: LabCommand) -> anyhow::Result<i32> {
    match command {
        LabCommand::Run { host, options } => run::run(host, &options),
        LabCommand::Test { host, filter } => suite::test(host, filter.as_deref()),
        LabCommand::Fuzz { target, input: Some(input), .. } => fuzz::reproduce(target.as_deref(), &input),
        LabCommand::Fuzz { target, seconds, input: None } => fuzz::fuzz(target.as_deref(), seconds),
        LabCommand::Bench { io, bounce, contend, kernel, host, rounds, json } => {
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
