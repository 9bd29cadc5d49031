// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command `cvmm`.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use cvmm::cli::{Cli, Command};
use cvmm::config::VmConfig;
use cvmm::host::stdio::Messages;
use cvmm::run::Ended;
use cvmm::{Outcome, describe, logger, run};

fn main() -> ExitCode {
    // Fails only where there is a logger.
    let _ = logger::init();
    // Now: on the way out, nothing can be opened any more.
    let messages = Messages::open();
    let Ended { outcome, in_line } = match Cli::try_parse() {
        Ok(Cli { command: Command::Run(args) }) => match VmConfig::new(&args) {
            Ok(config) => run::run(&config),
            Err(error) => error.outcome().into(),
        },
        Ok(Cli { command: Command::Describe(args) }) => match describe::describe(&args) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => error.outcome().into(),
        },
        Err(error) if is_wrong(error.kind()) => Outcome::BadArguments(one_line(&error)).into(),
        // Help, and the version.
        Err(error) => error.exit(),
    };
    match &outcome {
        Outcome::PoweredOff(_) | Outcome::Reset(_) => log::info!("{}", outcome.detail()),
        _ => {
            let last = format!("{}cvmm: {}\n", if in_line { "\n" } else { "" }, outcome.detail());
            match messages {
                Ok(messages) => messages.last(&last),
                // No file can be opened: the one that is open may make us wait.
                Err(_) => eprint!("{last}"),
            }
        }
    }
    ExitCode::from(outcome.exit_code())
}

fn is_wrong(kind: ErrorKind) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    !matches!(kind, DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// What clap says in several lines, as one.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim);
    let said: String = lines
        .filter(|line| !line.is_empty())
        .map(|line| line.strip_prefix("tip: ").map_or_else(|| format!(" {line}"), |tip| format!("; {tip}")))
        .collect();
    let first = std::env::args_os().nth(1).unwrap_or_default();
    let command = ["run ", "describe "].into_iter().find(|command| first == command.trim_end());
    format!("{}; see cvmm {}--help", said.trim_start_matches(" error: "), command.unwrap_or_default())
}
