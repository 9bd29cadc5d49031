// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! This machine as the KVM host: the agent runs as a thread of the lab.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Result;

use super::client::Client;
use super::console::ConsoleLog;
use super::{Connection, agent};

/// Why this machine's KVM cannot run Linux, if so.
///
/// A KVM that opens is not enough: a software KVM offers the same calls but emulates the guest's kernel, and fails on
/// instructions that each Linux kernel has.
pub fn obstacle() -> Option<String> {
    let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    obstacle_of(kvm.map(drop).map_err(|error| error.to_string()), &cpuinfo)
}

fn obstacle_of(kvm: Result<(), String>, cpuinfo: &str) -> Option<String> {
    if let Err(error) = kvm {
        return Some(format!("/dev/kvm cannot be opened ({error})"));
    }
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let virtualizes = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    (!virtualizes).then(|| "/dev/kvm cannot run Linux here (the CPU has no vmx or svm)".to_owned())
}

/// Starts the agent.
pub fn start() -> Result<Connection> {
    let (ours, theirs) = UnixStream::pair()?;
    let sending = theirs.try_clone()?;
    // It ends with the channel; a failure of the channel shows on our end.
    std::thread::spawn(move || drop(agent::serve(theirs, sending)));
    let (client, greeting) = Client::connect(ours, Duration::from_secs(5))?;
    Ok(Connection { client, greeting, console: ConsoleLog::default(), machine: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_needs_hardware_virtualization() {
        let with = "processor : 0\nflags\t\t: fpu svm nx\n";
        let without = "processor : 0\nflags\t\t: fpu nx hypervisor\n";
        assert_eq!(obstacle_of(Ok(()), with), None);
        assert!(obstacle_of(Ok(()), without).unwrap().contains("no vmx or svm"));
        let denied = obstacle_of(Err("Permission denied".into()), with).unwrap();
        assert!(denied.contains("Permission denied"), "{denied}");
    }
}
