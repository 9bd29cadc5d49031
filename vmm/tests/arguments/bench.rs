// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! cvmm with options, in a folder of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

pub const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../resources/guest-kernel/bzImage-x86_64");
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `command` to its end; a guest that starts in spite of its options is ended.
pub fn output(command: &mut Command) -> Output {
    let child = command
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    output.recv_timeout(LIMIT).map(Result::unwrap).unwrap_or_else(|_| {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        panic!("cvmm still ran after {LIMIT:?}: {command:?}")
    })
}

/// A folder for the files that options name.
pub struct Bench {
    pub folder: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// The path of a file in the folder, as an option has it.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file that is this long, or a hole of that size.
    pub fn file(&self, name: &str, size: u64) -> String {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    pub fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Names and sizes of all that is in the folder, and the content of what is not large.
    pub fn state(&self) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
        let state = |path: &Path| {
            let len = fs::symlink_metadata(path).unwrap().len();
            let small = path.is_file() && len <= 4 << 20;
            (len, if small { fs::read(path).unwrap_or_default() } else { Vec::new() })
        };
        let entries = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), state(&path))).collect()
    }

    /// `cvmm run` with good options, and these.
    pub fn command(&self, program: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).arg("run");
        let has = |name: &str| options.iter().any(|option| option.split('=').next() == Some(name));
        for (name, value) in [("--kernel", KERNEL), ("--pool", "8M"), ("--mem", "128M")] {
            if !has(name) {
                command.args([name, value]);
            }
        }
        command.args(options);
        command
    }

    /// cvmm refuses the options with a line that begins with `option` and has `reason`.
    pub fn refuse(&self, options: &[&str], option: &str, reason: &str) {
        let before = self.state();
        let output = output(&mut self.command(Path::new(env!("CARGO_BIN_EXE_cvmm")), options));
        assert_refused(&output, option, reason);
        assert!(before == self.state(), "{options:?} left something behind");
    }
}

pub fn assert_refused(output: &Output, option: &str, reason: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{option}: {error}");
    assert!(output.stdout.is_empty(), "{option}: {output:?}");
    assert!(error.ends_with('\n') && error.lines().count() == 1, "{option}: not one line: {error}");
    let rest = error.strip_prefix(&format!("cvmm: {option}: "));
    assert!(
        rest.is_some_and(|rest| rest.contains(reason)),
        "should be '{option}: ...{reason}', but is: {error}"
    );
    assert!(!error.contains("panicked"), "{error}");
}
