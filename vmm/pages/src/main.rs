// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes cvmm's man pages and shell completions, from the definition of its command line.
//!
//! `cargo lab pages DIR` runs this.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use cvmm::cli::Cli;

/// The shells, and the file that each looks for.
const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "cvmm.bash"), (Shell::Zsh, "_cvmm"), (Shell::Fish, "cvmm.fish")];

/// Writes cvmm's man pages and shell completions.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder to write them to
    folder: PathBuf,
}

fn main() -> ExitCode {
    let folder = Arguments::parse().folder;
    for (name, text) in pages() {
        let path = folder.join(name);
        if let Err(error) = write(&path, &text) {
            eprintln!("cvmm-pages: {} can't be written: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("{}", path.display());
    }
    ExitCode::SUCCESS
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, text)
}

/// The command line, with names such as `cvmm-run` filled in.
fn command() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Each file: its path in the folder, and its text.
fn pages() -> Vec<(String, String)> {
    let command = command();
    let commands = [&command].into_iter().chain(command.get_subcommands());
    let manuals = commands.map(|command| (format!("man/man1/{}.1", name(command)), manual(command)));
    manuals.chain(SHELLS.map(|(shell, file)| (format!("completions/{file}"), completions(shell)))).collect()
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "cvmm", &mut text);
    utf8(text)
}

fn manual(command: &Command) -> String {
    let version = format!("cvmm {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(version);
    let mut text = Vec::new();
    let written = man
        .render_title(&mut text)
        .and_then(|()| man.render_name_section(&mut text))
        .and_then(|()| man.render_synopsis_section(&mut text))
        .and_then(|()| man.render_description_section(&mut text))
        .and_then(|()| man.render_options_section(&mut text));
    let written = match command.has_subcommands() {
        true => written.and_then(|()| man.render_subcommands_section(&mut text)),
        false => written,
    };
    written.expect("a vector takes all that is written to it");
    let after = command.get_after_long_help().or(command.get_after_help());
    utf8(text) + &after.map_or_else(String::new, |after| sections(&after.to_string()))
}

/// What follows the options in `--help`. A line that begins a paragraph and ends in a colon is a heading. An indented line is
/// an entry of a list (`  word  text`) or stays as it is.
fn sections(text: &str) -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["NOTES"]);
    for paragraph in text.split("\n\n") {
        let mut lines = paragraph.lines().peekable();
        match lines.next_if(|line| line.ends_with(':') && !line.starts_with(' ')) {
            Some(heading) => roff.control("SH", [heading.trim_end_matches(':').to_uppercase().as_str()]),
            None => roff.control("PP", []),
        };
        for line in lines {
            match line.strip_prefix("  ").map(entry) {
                None => roff.text([roman(line)]),
                Some(None) => roff.control("nf", []).text([roman(line)]).control("fi", []),
                Some(Some((word, text))) => roff.control("TP", []).text([bold(word)]).text([roman(text)]),
            };
        }
    }
    roff.to_roff()
}

/// The word and the text of `word  text`, an entry of a list.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (word, text) = line.split_once("  ")?;
    (!word.is_empty()).then_some((word, text.trim_start()))
}

fn utf8(text: Vec<u8>) -> String {
    String::from_utf8(text).expect("what is made of text is text")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a file, with hyphens as people see them.
    fn page(path: &str) -> String {
        let pages = pages();
        let names: Vec<_> = pages.iter().map(|(path, _)| path).collect();
        let found = pages.iter().find(|(other, _)| other == path);
        found.unwrap_or_else(|| panic!("{path} is not among {names:?}")).1.replace("\\-", "-")
    }

    /// Long options, but for `--help` and `--version`.
    fn options(command: &Command) -> Vec<&str> {
        let options = command.get_arguments().filter_map(|option| option.get_long());
        options.filter(|option| !["help", "version"].contains(option)).collect()
    }

    /// Whether `option` is in `line`, and not only as the beginning of a longer one.
    fn has(text: &str, option: &str) -> bool {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        text.match_indices(option).any(|(at, _)| ends(&text[at + option.len()..]))
    }

    #[test]
    fn each_command_has_a_page_with_each_of_its_options() {
        let command = command();
        let subcommands: Vec<_> = command.get_subcommands().collect();
        assert!(subcommands.len() >= 2, "{subcommands:?}");
        for subcommand in subcommands {
            let text = page(&format!("man/man1/cvmm-{}.1", subcommand.get_name()));
            let options = options(subcommand);
            assert!(options.len() > 10, "{options:?}");
            let (_, section) = text.split_once(".SH OPTIONS").unwrap();
            for option in options {
                // Its own entry: the synopsis has it, too.
                let entry = format!("\\fB--{option}\\fR");
                assert!(section.contains(&format!(".TP\n{entry}")), "{option}: {section}");
            }
            let about = subcommand.get_about().unwrap().to_string();
            assert!(page("man/man1/cvmm.1").contains(&about), "{about}");
        }
    }

    /// In the part of each shell's script that is about this subcommand.
    #[test]
    fn each_shell_completes_each_option_of_each_command() {
        let command = command();
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            let (bash, zsh) = (page("completions/cvmm.bash"), page("completions/_cvmm"));
            let bash = bash.split_once(&format!("\n        cvmm__subcmd__{name})\n")).unwrap().1;
            let bash = bash.lines().find(|line| line.trim_start().starts_with("opts=")).unwrap();
            let zsh =
                zsh.split_once(&format!("({name})\n_arguments ")).unwrap().1.split("\n;;").next().unwrap();
            let fish = page("completions/cvmm.fish");
            let fish =
                fish.lines().filter(|line| line.contains(&format!("__fish_cvmm_using_subcommand {name}\"")));
            let fish: Vec<_> = fish.collect();
            for option in options(subcommand) {
                let long = format!("--{option}");
                assert!(has(bash, &long), "bash, {name}, {option}: {bash}");
                assert!(has(zsh, &long), "zsh, {name}, {option}: {zsh}");
                let told = |line: &&str| has(line, &format!("-l {option}"));
                assert!(fish.iter().any(told), "fish, {name}, {option}: {fish:?}");
            }
        }
    }

    #[test]
    fn the_exit_codes_are_a_list() {
        let text = page("man/man1/cvmm-run.1");
        let codes = text.split_once(".SH \"EXIT CODES\"\n").unwrap_or_else(|| panic!("{text}")).1;
        for code in 0..=6 {
            assert!(codes.contains(&format!(".TP\n\\fB{code}\\fR\n")), "{code}: {codes}");
        }
    }

    #[test]
    fn an_option_is_not_found_in_a_longer_one() {
        assert!(has("--dtb --x", "--dtb") && has("-l dtb", "-l dtb"));
        assert!(!has("--dtb-more --dump-dtb", "--dtb"));
    }
}
