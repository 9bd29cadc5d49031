// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What tests of running guests share.

#![allow(dead_code)] // Each test uses some of it.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

/// For whatever should happen at once, on a machine that has much else to do.
pub const LIMIT: Duration = Duration::from_secs(60);

/// jmp to itself.
pub const LOOP: &[u8] = &[0xeb, 0xfe];

/// mov eax, 0xd1001000; mov dword [rax], 0x5555; and around.
pub const POWER_OFF: &[u8] = &[0xb8, 0x00, 0x10, 0x00, 0xd1, 0xc7, 0x00, 0x55, 0x55, 0x00, 0x00, 0xeb, 0xfe];

/// `cvmm COMMAND` for a small machine.
pub fn cvmm(command: &str) -> Command {
    let mut cvmm = Command::new(env!("CARGO_BIN_EXE_cvmm"));
    cvmm.args([command, "--pool", "2M", "--mem", "64M"]);
    // SAFETY: it makes system calls alone.
    unsafe { cvmm.pre_exec(ignore_nothing) };
    cvmm
}

/// Signals are as a shell leaves them for a command in the foreground: whoever runs the tests may ignore some, as nohup does,
/// and what is ignored stays so.
fn ignore_nothing() -> std::io::Result<()> {
    for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is installed.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// Says what this machine does not let a test do, past the capture of tests that pass. `cargo lab test` counts such lines.
pub fn not_tested(why: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("NOT TESTED: {why}\n").as_bytes());
}

/// `false`, and a word about it, where there is no KVM.
pub fn kvm() -> bool {
    let there = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !there {
        not_tested("there is no /dev/kvm here");
    }
    there
}

/// A block device on a file. Dropped, it is gone.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// By losetup, with these options. `None`, and a word about it, where that is not allowed.
    pub fn new(options: &[&str], file: &Path) -> Option<Self> {
        let losetup = Command::new("losetup").args(["--find", "--show"]).args(options).arg(file).output();
        match losetup {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).unwrap();
                Some(Self(path.trim().into()))
            }
            Ok(output) => {
                not_tested(&format!("block devices: {}", String::from_utf8_lossy(&output.stderr).trim()));
                None
            }
            Err(error) => {
                not_tested(&format!("block devices: losetup: {error}"));
                None
            }
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// Comes back when `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a thread has run for some ticks: that of a vCPU has used them in its guest, since nothing before takes so long.
pub fn ran(task: &Path) -> bool {
    let stat = std::fs::read_to_string(task.join("stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum::<u64>() > 2
}

/// From now on, this process gets no more memory: neither address space nor data.
pub fn no_more_memory(process: u32) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    for resource in [libc::RLIMIT_AS, libc::RLIMIT_DATA] {
        // SAFETY: the call reads the limits and writes none.
        let result = unsafe { libc::prlimit(process.cast_signed(), resource, &none, std::ptr::null_mut()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

/// How a run ended. One that does not is killed, and the test fails.
pub fn wait_for_end(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An ELF kernel that is `code`.
pub fn elf(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x200];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86_64
    put(24, &0x20_0000u64.to_le_bytes()); // entry
    put(32, &64u64.to_le_bytes()); // program headers
    put(52, &[64, 0, 56, 0, 1, 0]);
    put(64, &[1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD
    let len = code.len() as u64;
    for (at, value) in [(72, 0x200), (80, 0x20_0000), (88, 0x20_0000), (96, len), (104, len), (112, 0x1000)] {
        put(at, &value.to_le_bytes());
    }
    image.extend(code);
    image
}
