// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! README.md and the pages in resources/: links lead somewhere, commands are ones that cvmm takes, and exit codes are those of
//! `--help`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use cvmm::cli::{Cli, Command};
use cvmm::config::{MachineConfig, VmConfig};
use cvmm::machine;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All pages below `folder`.
fn pages_in(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pages = paths.flat_map(|path| if path.is_dir() { pages_in(&path) } else { vec![path] });
    pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = pages_in(&root().join("resources"));
    pages.push(root().join("README.md"));
    pages
}

/// The text of a page without its code.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

/// Targets of links, but for those on the web.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let targets = targets.map(|(target, _)| target.to_owned());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    let prose = prose(page);
    let headings =
        prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn each_link_leads_somewhere() {
    let mut count = 0;
    for path in pages() {
        let page = read(&path);
        for link in links(&page) {
            let (file, anchor) =
                link.split_once('#').map_or((&*link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(target.exists(), "{}: {link} leads to nothing", path.display());
            if let Some(anchor) = anchor {
                let anchors = anchors(&read(&target));
                assert!(
                    anchors.iter().any(|other| other == anchor),
                    "{}: {link}: {anchors:?}",
                    path.display()
                );
            }
            count += 1;
        }
    }
    assert!(count > 100, "only {count} links were found");
}

#[test]
fn the_readme_lists_the_guide() {
    let links = links(&read(&root().join("README.md")));
    let guide = pages_in(&root().join("resources/guide"));
    assert!(guide.len() > 10, "{guide:?}");
    for page in guide {
        let link = format!("resources/guide/{}", page.file_name().unwrap().to_str().unwrap());
        assert!(links.contains(&link), "the README has no link to {link}");
    }
}

/// The commands in a page's shell code, each as its words.
fn commands(page: &str) -> Vec<Vec<String>> {
    let code = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = code.map(|block| block.replace("\\\n", " "));
    let lines: Vec<String> =
        lines.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let commands = lines.iter().flat_map(|line| line.split(" # ").next().unwrap().split(" && "));
    commands.map(words).filter(|words| !words.is_empty()).collect()
}

/// As a shell splits it, as far as the pages need that.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        match words.last_mut() {
            Some(last) if index % 2 == 1 => *last = part.to_owned(),
            _ => words.extend(part.split(' ').map(str::to_owned)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What cvmm gets as its arguments, if it is cvmm that the words run.
fn arguments(words: &[String]) -> Option<Vec<String>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = match &words[..] {
        ["cargo", "lab", "run", "--host", _, rest @ ..] | ["cargo", "lab", "run", rest @ ..]
            if !rest.is_empty() =>
        {
            // The lab adds a kernel.
            let kernel = ["--kernel", "bzImage"];
            let kernel = if rest.contains(&"--kernel") { &[][..] } else { &kernel };
            [&["run"], kernel, rest].concat()
        }
        ["cargo", "run", "--", rest @ ..] => rest.to_vec(),
        [program, rest @ ..] if program.ends_with("/cvmm") || *program == "cvmm" => rest.to_vec(),
        _ => return None,
    };
    Some(arguments.into_iter().map(str::to_owned).collect())
}

#[test]
fn cvmm_takes_each_command() {
    let mut count = 0;
    for path in pages() {
        for arguments in commands(&read(&path)).iter().filter_map(|words| arguments(words)) {
            let wrong =
                |why: String| -> ! { panic!("{}: cvmm {}: {why}", path.display(), arguments.join(" ")) };
            let program = "cvmm".to_owned();
            let parsed = Cli::try_parse_from([&program].into_iter().chain(&arguments));
            let config = match parsed.unwrap_or_else(|error| wrong(error.to_string())).command {
                Command::Run(args) => VmConfig::new(&args).map(|config| config.machine),
                Command::Describe(args) => MachineConfig::new(&args.machine),
            };
            let machine = config.and_then(|config| machine::describe(&config));
            machine.map(drop).unwrap_or_else(|error| wrong(error.to_string()));
            count += 1;
        }
    }
    assert!(count > 15, "only {count} commands were found");
}

/// The rows of the first table below a heading.
fn rows(page: &str, heading: &str) -> Vec<(String, String)> {
    let (_, below) = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let lines = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let (code, meaning) = row.trim_matches('|').split_once(" | ").unwrap();
        (code.trim().to_owned(), meaning.trim().to_owned())
    })
    .collect()
}

/// Of the section `Exit codes:`.
fn of_the_help(subcommand: &str) -> Vec<(String, String)> {
    let mut command = Cli::command();
    let help = command.find_subcommand_mut(subcommand).unwrap().render_long_help().to_string();
    let (_, codes) = help.split_once("\nExit codes:\n").expect("the help has exit codes");
    let entries = codes.lines().filter_map(|line| line.strip_prefix("  ")?.split_once("  "));
    entries.map(|(code, meaning)| (code.to_owned(), meaning.to_owned())).collect()
}

#[test]
fn the_guide_has_the_exit_codes_of_the_help() {
    let page = read(&root().join("resources/guide/exit-codes.md"));
    for (subcommand, count) in [("run", 7), ("describe", 4)] {
        let rows = rows(&page, &format!("cvmm {subcommand}"));
        assert_eq!(rows.len(), count);
        assert_eq!(rows, of_the_help(subcommand));
    }
}

/// The checks above can fail.
#[test]
fn what_is_missing_is_missed() {
    let page =
        "# A page, 1\n[x](a.md#b) `c`\n```sh\nx && cvmm run \\\n  --cmdline 'a b' # d\n```\n[y](https://z)";
    assert_eq!(links(page), ["a.md#b"]);
    assert_eq!(anchors(page), ["a-page-1"]);
    assert_eq!(commands(page), [vec!["x"], vec!["cvmm", "run", "--cmdline", "a b"]]);
    let of = |command: &str| arguments(&words(command)).map(|words| words.join(" "));
    assert_eq!(of("cargo lab run --rng").as_deref(), Some("run --kernel bzImage --rng"));
    assert_eq!(of("target/release/cvmm describe").as_deref(), Some("describe"));
    assert_eq!(of("cargo lab run"), None);
}
