// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The console of an emulated KVM host, kept in a file and shown when something fails.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace;

/// How many of the last lines an error shows.
const TAIL: usize = 15;

/// Where the KVM host's console goes; a host that is this machine has none.
#[derive(Debug, Clone, Default)]
pub struct ConsoleLog(Option<PathBuf>);

impl ConsoleLog {
    /// A new log file. Those of labs that have ended are removed first.
    pub fn create(serial: u32) -> Result<Self> {
        let folder = workspace::lab_dir().join("log");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if !owner_lives(&entry.path()) {
                // Another lab may be removing it, too.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(Self(Some(folder.join(format!("host-{}-{serial}.log", std::process::id())))))
    }

    /// The log file.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Adds the console's last lines to an error's text.
    pub fn explain(&self, text: String) -> String {
        let Some(path) = &self.0 else { return text };
        let log = std::fs::read(path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        if tail.is_empty() {
            return format!("{text}\nThe KVM host's console ({}) is empty.", path.display());
        }
        let tail = tail.join("\n  | ");
        format!("{text}\nThe end of the KVM host's console ({}):\n  | {tail}", path.display())
    }
}

/// Whether the lab that wrote host-PID-N.log still runs.
fn owner_lives(log: &Path) -> bool {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let pid = name.strip_prefix("host-").and_then(|rest| rest.split('-').next());
    pid.is_some_and(|pid| Path::new("/proc").join(pid).exists())
}
