// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run of cvmm on the KVM host, from its options to its report.

use std::path::Path;
use std::time::Duration;

use cvmm_tests::host::{CommandLine, Exit, Folder, Host, Process};

use crate::report::Report;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// For one guest's whole life, on an emulated host that is shared with other work.
pub const LIMIT: Duration = Duration::from_secs(480);

/// A guest to be run. Small, because the kernel clears the pool when it starts, which is slow under emulation.
pub struct Guest<'h> {
    host: &'h Host,
    folder: Folder,
    mem: u64,
    cpus: u64,
    /// Name, size, base if one was asked for; the first is the default one.
    pools: Vec<(String, u64, Option<u64>)>,
    kernel: Option<String>,
    initrd: Option<String>,
    patched: bool,
    words: Vec<String>,
    options: Vec<String>,
    terminal: bool,
}

impl<'h> Guest<'h> {
    /// A guest that asserts what `test` says (see `cvmm_tests::guest`).
    pub fn new(host: &'h Host, test: &str) -> Self {
        Self {
            host,
            folder: host.folder().unwrap(),
            mem: 128 * MIB,
            cpus: 1,
            pools: vec![("pool".into(), 8 * MIB, None)],
            kernel: None,
            initrd: None,
            patched: false,
            words: vec![format!("cvmm.test={test}")],
            options: Vec::new(),
            terminal: false,
        }
    }

    pub fn mem(self, mem: u64) -> Self {
        Self { mem, ..self }
    }

    pub fn cpus(self, cpus: u64) -> Self {
        Self { cpus, ..self }
    }

    /// Another default pool.
    pub fn pool(mut self, size: u64, base: Option<u64>) -> Self {
        self.pools[0] = ("pool".into(), size, base);
        self
    }

    /// One more pool.
    pub fn more_pool(mut self, name: &str, size: u64, base: Option<u64>) -> Self {
        self.pools.push((name.into(), size, base));
        self
    }

    /// Another kernel than the project's, by its path on the host.
    pub fn kernel(self, path: String) -> Self {
        Self { kernel: Some(path), ..self }
    }

    /// Another initial file system than the project's, by its path on the host.
    pub fn initrd(self, path: String) -> Self {
        Self { initrd: Some(path), ..self }
    }

    /// No initial file system: the kernel boots from a disk.
    pub fn without_initrd(self) -> Self {
        self.initrd(String::new())
    }

    /// The project's kernel with its patches.
    pub fn patched(self) -> Self {
        Self { patched: true, ..self }
    }

    /// What tells the guest of its machine: `dt` or `acpi`.
    pub fn firmware(self, firmware: &str) -> Self {
        self.option(format!("--firmware={firmware}"))
    }

    /// Standard input and output are a terminal.
    pub fn terminal(self) -> Self {
        Self { terminal: true, ..self }
    }

    /// More of the kernel's command line.
    pub fn word(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Another option of cvmm.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// A disk: a copy of the image `from`, called `name` on the host, with `rest` of its option (`,ro`).
    pub fn disk(self, from: &Path, name: &str, rest: &str) -> Self {
        let path = self.folder.file(name);
        self.host.put(from, &path).unwrap();
        self.option(format!("--blk=path={path}{rest}"))
    }

    /// The path of a file of this run.
    pub fn file(&self, name: &str) -> String {
        self.folder.file(name)
    }

    /// Starts cvmm.
    pub fn start(self) -> Run<'h> {
        let tools = self.host.tools().unwrap();
        let ours = if self.patched { &tools.patched_kernel } else { &tools.kernel };
        let kernel = self.kernel.clone().unwrap_or_else(|| ours.display().to_string());
        let initrd = self.initrd.clone().unwrap_or_else(|| tools.initrd.display().to_string());
        let mut arguments = vec![
            "run".to_owned(),
            format!("--kernel={kernel}"),
            format!("--mem={}", self.mem),
            format!("--cpus={}", self.cpus),
            format!("--report={}", self.folder.file("report.json")),
            format!("--cmdline={}", self.words.join(" ")),
        ];
        if !initrd.is_empty() {
            arguments.push(format!("--initrd={initrd}"));
        }
        for (index, (name, size, base)) in self.pools.iter().enumerate() {
            let base = base.map_or_else(String::new, |base| format!(",base={base:#x}"));
            let default = if index == 0 { ",default" } else { "" };
            arguments.push(format!("--pool=size={size},name={name}{base}{default}"));
        }
        arguments.extend(self.options.iter().cloned());
        let command = CommandLine {
            program: tools.cvmm.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            terminal: self.terminal,
            ..CommandLine::default()
        };
        let process = self.host.spawn(command).unwrap();
        Run { guest: self, process }
    }

    /// Runs cvmm until it ends by itself, in this way.
    pub fn run(self, exit_code: i32, kind: &str) -> Ended<'h> {
        self.start().end(exit_code, kind)
    }
}

/// A running cvmm. Dropped, it is killed.
pub struct Run<'h> {
    pub guest: Guest<'h>,
    pub process: Process,
}

impl<'h> Run<'h> {
    /// Waits for a line that contains `text`, and returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.process.wait_for(text, LIMIT).unwrap().text
    }

    /// Waits for the end: the exit code, and the outcome in the report.
    pub fn end(mut self, exit_code: i32, kind: &str) -> Ended<'h> {
        let exit = self.process.wait(LIMIT).unwrap();
        if exit != Exit::Code(exit_code) {
            panic!("{:#}", self.process.failure(&format!("ended with {exit:?}, not with {exit_code}")));
        }
        let report = self.guest.host.read(self.guest.file("report.json")).unwrap();
        let report: Report = serde_json::from_slice(&report).unwrap();
        let ended = Ended { guest: self.guest, process: self.process, report };
        let outcome = &ended.report.outcome;
        ended.ensure((&*outcome.kind, outcome.exit_code) == (kind, exit_code), || {
            format!("should have come to '{kind}', but reports {outcome:?}")
        });
        ended.check_report();
        ended
    }

    /// Ends the run by a signal.
    pub fn stop(self, signal: i32) -> Ended<'h> {
        self.process.signal(signal).unwrap();
        self.end(6, "stopped")
    }
}

/// A run that has ended, with its report.
pub struct Ended<'h> {
    guest: Guest<'h>,
    pub process: Process,
    pub report: Report,
}

impl Ended<'_> {
    /// Fails with the console's last lines unless `condition` holds.
    pub fn ensure(&self, condition: bool, what: impl FnOnce() -> String) {
        if !condition {
            panic!("{:#}", self.process.failure(&what()));
        }
    }

    /// The guest made exactly these assertions, and all of them held.
    pub fn passed(&self, expected: impl IntoIterator<Item = String>) {
        let stdout = self.process.stdout();
        let failed: Vec<_> = stdout.lines().filter(|line| line.starts_with("FAIL ")).collect();
        self.ensure(failed.is_empty(), || format!("had failures: {failed:#?}"));
        let mut expected: Vec<String> = expected.into_iter().collect();
        let mut passed: Vec<String> =
            stdout.lines().filter_map(assertion).map(|(name, _)| name.into()).collect();
        expected.sort();
        passed.sort();
        self.ensure(passed == expected, || {
            let lacking: Vec<_> = expected.iter().filter(|name| !passed.contains(name)).collect();
            let new: Vec<_> = passed.iter().filter(|name| !expected.contains(name)).collect();
            format!("did not assert {lacking:?}, and asserted {new:?} beyond what was expected")
        });
        let sum = format!("guest-init: {} passed, 0 failed", expected.len());
        self.ensure(stdout.lines().any(|line| line == sum), || format!("did not print '{sum}'"));
    }

    /// What the guest saw in an assertion that held.
    pub fn seen(&self, name: &str) -> String {
        let stdout = self.process.stdout();
        let seen = stdout.lines().filter_map(assertion).find(|(held, _)| *held == name);
        self.ensure(seen.is_some(), || format!("has no assertion {name} that held"));
        seen.map(|(_, seen)| seen.to_owned()).unwrap_or_default()
    }

    /// Copies a file of this run from the host.
    pub fn get(&self, name: &str, to: &Path) {
        self.guest.host.get(self.guest.file(name), to).unwrap();
    }

    /// A text file of this run.
    pub fn text(&self, name: &str) -> String {
        self.guest.host.read_text(self.guest.file(name)).unwrap()
    }

    /// What holds for the report of every run.
    fn check_report(&self) {
        let Guest { mem, cpus, pools, .. } = &self.guest;
        self.report.assert_machine(*mem, *cpus, pools);
    }
}

/// Name and text of a line `ok NAME: what was seen`.
fn assertion(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("ok ")?.split_once(": ")
}
