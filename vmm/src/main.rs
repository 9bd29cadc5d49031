// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command `cvmm`.

use std::process::ExitCode;

use clap::Parser;
use cvmm::cli::{Cli, Command};
use cvmm::config::VmConfig;
use cvmm::{Outcome, run};

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .format_target(false)
        .init();
    let Command::Run(args) = Cli::parse().command;
    let outcome = match VmConfig::new(&args) {
        Ok(config) => run::run(&config),
        Err(error) => error.outcome(),
    };
    match &outcome {
        Outcome::PoweredOff | Outcome::Reset => log::info!("{}", outcome.detail()),
        _ => eprintln!("cvmm: {}", outcome.detail()),
    }
    ExitCode::from(outcome.exit_code())
}
