// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of clauses for reviewers, resources/review/clauses.md, is not out of date: what it names is there, what it
//! calls a test is run, and what the code cites and our own texts say has a row.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cvmm_tests::workspace;

const DOCUMENT: &str = "resources/review/clauses.md";
/// Code whose every citation must have a row: what confines a device, and what tries to break out.
const CITING: [&str; 7] = [
    "devices/src/pool",
    "devices/src/queue",
    "devices/src/virtio/core.rs",
    "devices/src/virtio/status.rs",
    "devices/src/virtio/engine.rs",
    "tests/hostile/src/table",
    "tests/hostile/src/guest",
];
/// How a citation begins.
const CITATION: &str = "virtio 1.3, ";

/// A row: clause, statement, what cvmm does, places in the code, tests.
struct Row {
    line: usize,
    cells: [String; 5],
}

/// ``[`item`](../../path)``
struct Link {
    item: String,
    path: String,
}

fn read(path: impl AsRef<Path>) -> String {
    let path = workspace::root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rows() -> Vec<Row> {
    let document = read(DOCUMENT);
    let lines = (1..).zip(document.lines()).filter(|(_, line)| line.starts_with("| "));
    let rows = lines.map(|(line, text)| {
        let cells: Vec<String> = text.trim_matches('|').split(" | ").map(|cell| cell.trim().into()).collect();
        let cells = cells.try_into().unwrap_or_else(|_| panic!("line {line} has not five cells"));
        Row { line, cells }
    });
    rows.filter(|row| row.cells[0] != "clause").collect()
}

impl Row {
    /// The links of a cell; none if it says so in one of these words.
    fn links(&self, cell: usize, none: &[&str]) -> Vec<Link> {
        let text = &self.cells[cell];
        if none.contains(&text.as_str()) {
            return Vec::new();
        }
        let link = |text: &str| {
            let (item, path) = text.strip_prefix("[`")?.strip_suffix(')')?.split_once("`](../../")?;
            Some(Link { item: item.into(), path: path.into() })
        };
        let wrong = || panic!("line {}: '{text}' is neither links nor {none:?}", self.line);
        text.split(", ").map(|text| link(text).unwrap_or_else(wrong)).collect()
    }

    fn is(&self, word: &str) -> bool {
        self.cells[2].starts_with(word)
    }
}

/// The words of each line of Rust that is no comment.
fn code(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect()
    })
}

/// Whether Rust source declares each part of `item` (`Type::function`).
fn declares(text: &str, item: &str) -> bool {
    const WORDS: [&str; 9] = ["fn", "struct", "enum", "trait", "const", "static", "type", "impl", "for"];
    item.split("::").all(|name| {
        code(text).any(|line| line.windows(2).any(|pair| WORDS.contains(&pair[0]) && pair[1] == name))
    })
}

/// Whether `name` is a test of this file that is run: a function with `#[test]` and without `#[ignore]`, or one that a
/// macro of ours makes a test of.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let function = format!("fn {name}");
    let marked = (1..lines.len()).any(|at| {
        let before = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        let attributes: Vec<_> = before.collect();
        lines[at].strip_prefix(&function).is_some_and(|rest| rest.starts_with('('))
            && attributes.iter().any(|line| line.starts_with("#[test]"))
            && !attributes.iter().any(|line| line.starts_with("#[ignore"))
    });
    // Names, up to what a line says of them.
    let listed = |start: &str| {
        let from = lines.iter().position(|line| line.starts_with(start));
        let list = from.map_or(&[][..], |from| &lines[from + 1..]);
        let names = list.iter().take_while(|line| !line.starts_with('}')).flat_map(|line| {
            let names = line.split(':').next().unwrap_or_default();
            names.split(',').map(str::trim)
        });
        names.into_iter().any(|listed| listed == name)
    };
    let macros = ["over_each_transport! {", "over_the_grid! {", "over_each_kind! {"];
    marked || macros.into_iter().any(listed)
}

/// Whether a file of the hostile guest has a row of this name: vmm/tests/matrix runs all of them.
fn is_hostile_row(path: &str, text: &str, name: &str) -> bool {
    let row = format!("\"{name}\"");
    path.starts_with("tests/hostile/src/")
        && text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(&row))
}

#[test]
fn every_place_in_the_code_is_there() {
    for row in rows() {
        for Link { item, path } in row.links(3, &["-"]) {
            assert!(declares(&read(&path), &item), "line {}: {path} declares no {item}", row.line);
        }
    }
}

#[test]
fn every_test_is_one_that_runs() {
    for row in rows() {
        for Link { item, path } in row.links(4, &["-", "not tested"]) {
            let text = read(&path);
            let runs = is_test(&text, &item) || is_hostile_row(&path, &text, &item);
            assert!(runs, "line {}: {path} has no test {item}", row.line);
        }
    }
}

/// What is honoured names code and tests, or says that it has no test; what is not, names no code.
#[test]
fn every_row_is_whole_and_the_sum_is_theirs() {
    let rows = rows();
    for row in &rows {
        let [clause, statement, ..] = &row.cells;
        assert!(!clause.is_empty() && !statement.is_empty(), "line {}", row.line);
        let (code, tests) = (row.links(3, &["-"]).len(), row.links(4, &["-", "not tested"]).len());
        if row.is("Yes") || row.is("Part") {
            let told = tests > 0 || row.cells[4] == "not tested";
            assert!(told && (code > 0 || tests > 0), "line {}: where, and what test?", row.line);
        } else {
            assert!(row.is("No") || row.is("Elsewhere"), "line {}: '{}'", row.line, row.cells[2]);
        }
    }
    let count = |word: &str| rows.iter().filter(|row| row.is(word)).count();
    let untested = rows.iter().filter(|row| row.cells[4] == "not tested").count();
    let sum = format!(
        "{} statements: {} honoured, {} in part, {} not implemented, {} for others to keep; {untested} without a test.",
        rows.len(),
        count("Yes"),
        count("Part"),
        count("No"),
        count("Elsewhere")
    );
    assert!(read(DOCUMENT).lines().any(|line| line == sum), "the sum is: {sum}");
}

/// The clauses of virtio in a text: `2.7.5.3.1` after "virtio 1.3, ", and after "and" or a comma.
fn clauses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(CITATION) {
        let mut rest = &text[at + CITATION.len()..];
        loop {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let clause = rest[..end].trim_end_matches('.');
            if !clause.contains('.') {
                break;
            }
            found.insert(clause.to_owned());
            let more = [" and ", ", "].iter().find_map(|joint| rest[end..].strip_prefix(joint));
            match more {
                Some(more) => rest = more,
                None => break,
            }
        }
    }
    found
}

fn rust_files(path: PathBuf) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path];
    }
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let files = entries.flat_map(|entry| rust_files(entry.unwrap().path()));
    files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn every_clause_that_the_code_cites_has_a_row() {
    let rows = rows();
    let has = |clause: &str| {
        let starts = |row: &Row| {
            let rest = row.cells[0].strip_prefix(clause);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        rows.iter().any(starts)
    };
    let mut cited = 0;
    for file in CITING.iter().flat_map(|path| rust_files(workspace::root().join(path))) {
        for clause in clauses(&read(&file)) {
            assert!(
                has(&clause),
                "{} cites {CITATION}{clause}, which has no row in {DOCUMENT}",
                file.display()
            );
            cited += 1;
        }
    }
    assert!(cited > 40, "only {cited} citations were found");
}

/// The sentences of the text that a page proposes, as rows have them.
fn sentences(page: &str) -> Vec<String> {
    let (_, text) = page.split_once("### Text").expect("the page has a text");
    let quoted: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    let quoted = quoted.join(" ");
    let part = |sentence: &str| match sentence.split_once(":* ") {
        Some((_, rest)) => rest.to_owned(),
        None => sentence.to_owned(),
    };
    quoted.trim_end_matches('.').split(". ").map(part).collect()
}

fn binds(sentence: &str) -> bool {
    ["MUST", "SHOULD", "MAY", "requires"].iter().any(|word| sentence.split(' ').any(|other| other == *word))
}

#[test]
fn our_own_texts_have_their_rows_word_by_word() {
    let rows = rows();
    for step in ["step 3", "step 4"] {
        let page = format!("resources/review/{}.md", step.replace(' ', ""));
        let sentences = sentences(&read(&page));
        let start = format!("{step}, ");
        let of_step: Vec<&Row> = rows.iter().filter(|row| row.cells[0].starts_with(&start)).collect();
        for Row { line, cells } in &of_step {
            assert!(sentences.contains(&cells[1]), "line {line}: {page} does not say '{}'", cells[1]);
        }
        let binding = sentences.iter().filter(|sentence| binds(sentence));
        for sentence in binding.clone() {
            assert!(of_step.iter().any(|row| row.cells[1] == *sentence), "{page}: no row has '{sentence}'");
        }
        assert!(binding.count() > 6, "{page}: its text was not found");
    }
}

/// The checks above can fail.
#[test]
fn what_is_missing_is_missed() {
    let source = "// fn gone()\n#[test]\nfn run() {}\n#[test]\n#[ignore]\nfn slow() {}\nfn helper() {}\n\
                  over_each_transport! {\n    listed,\n}\nover_each_kind! {\n    one, two: Kind;\n}\nimpl Gate {\n    pub fn check(&self) {}\n}";
    assert!(declares(source, "Gate::check") && declares(source, "helper"));
    assert!(!declares(source, "gone") && !declares(source, "Gate::open") && !declares(source, "Pool::check"));
    for name in ["run", "listed", "one", "two"] {
        assert!(is_test(source, name), "{name}");
    }
    for name in ["slow", "helper", "gone", "ru", "list", "Kind"] {
        assert!(!is_test(source, name), "{name}");
    }
    let text =
        "> A plan.\n### Text\n\n> A range.\n> It has a\n> length.\n>\n> *Device:* It MUST do so.\n\nMore.";
    assert_eq!(sentences(text), ["A range", "It has a length", "It MUST do so"]);
    assert!(binds("It MUST do so") && !binds("MUSTARD"));
    let found = clauses("(virtio 1.3, 2.1 and 3.1.1), virtio 1.3, 2.7: a. virtio 1.3, 2.7.6.");
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["2.1", "2.7", "2.7.6", "3.1.1"]);
}
