// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every way a run ends, its exit code, its report, and the terminal afterwards. The guests are a few instructions
//! long, so that any /dev/kvm runs them, one without hardware virtualization, too.

mod common;

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::{LOOP, elf, kvm, wait_for_end, wait_until};

/// mov eax, address; mov dword [rax], value
fn store(address: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(address.to_le_bytes());
    code.extend([0xc7, 0x00]);
    code.extend(value.to_le_bytes());
    code.extend(LOOP);
    code
}

struct Run {
    child: Child,
    pty: OpenptyResult,
    before: Termios,
    report: PathBuf,
    _dir: TempDir,
}

impl Run {
    /// Starts `code` with a terminal. None, and a word about it, where there is no KVM.
    fn start(code: &[u8]) -> Option<Self> {
        if !kvm() {
            return None;
        }
        let dir = TempDir::new().unwrap();
        let (kernel, report) = (dir.path().join("kernel"), dir.path().join("report.json"));
        fs::write(&kernel, elf(code)).unwrap();
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let terminal = || Stdio::from(pty.slave.as_fd().try_clone_to_owned().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_cvmm"))
            .args(["run", "--pool", "2M", "--mem", "64M", "--kernel"])
            .arg(&kernel)
            .arg("--report")
            .arg(&report)
            .stdin(terminal())
            .stdout(terminal())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { child, pty, before, report, _dir: dir })
    }

    /// Waits until the guest has the terminal.
    fn wait_until_raw(&self) {
        wait_until("a raw terminal", || {
            !tcgetattr(&self.pty.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
        });
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// The run ends with `code`, the report says `kind`, and the terminal is as it was.
    fn ends(mut self, code: i32, kind: &str) {
        assert_eq!(wait_for_end(&mut self.child).code(), Some(code));
        let report: serde_json::Value = serde_json::from_slice(&fs::read(&self.report).unwrap()).unwrap();
        assert_eq!(report["outcome"]["kind"], kind);
        assert_eq!(report["outcome"]["exit_code"], code);
        assert_eq!(tcgetattr(&self.pty.slave).unwrap(), self.before, "the terminal is not as it was");
    }
}

fn guest_ends(code: &[u8], exit: i32, kind: &str) {
    if let Some(run) = Run::start(code) {
        run.ends(exit, kind);
    }
}

#[test]
fn power_off_is_0() {
    guest_ends(&store(0xd100_1000, 0x5555), 0, "powered-off");
}

#[test]
fn reset_is_5() {
    guest_ends(&store(0xd100_1000, 0x7777), 5, "reset");
}

#[test]
fn the_keyboard_controllers_reset_is_5() {
    // mov al, 0xfe; out 0x64, al
    guest_ends(&[0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe], 5, "reset");
}

#[test]
fn a_panic_is_4() {
    // mov eax, 0xd1002000; mov byte [rax], 1
    guest_ends(&[0xb8, 0x00, 0x20, 0x00, 0xd1, 0xc6, 0x00, 0x01, 0xeb, 0xfe], 4, "guest-crashed");
}

#[test]
fn a_triple_fault_is_4() {
    // ud2, without an interrupt descriptor table
    guest_ends(&[0x0f, 0x0b], 4, "guest-crashed");
}

#[test]
fn signals_are_6() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        if let Some(run) = Run::start(LOOP) {
            run.wait_until_raw();
            run.signal(signal);
            run.ends(6, "stopped");
        }
    }
}

#[test]
fn the_quit_key_is_6() {
    if let Some(run) = Run::start(LOOP) {
        run.wait_until_raw();
        fs::File::from(run.pty.master.try_clone().unwrap()).write_all(b"ab\x01x").unwrap();
        run.ends(6, "stopped");
    }
}

/// mov eax, 0xd1000000; again: mov byte [rax], 'x'; jmp again
const CHATTER: &[u8] = &[0xb8, 0x00, 0x00, 0x00, 0xd1, 0xc6, 0x00, b'x', 0xeb, 0xfb];

impl Run {
    fn type_in(&self, bytes: &[u8]) {
        fs::File::from(self.pty.master.try_clone().unwrap()).write_all(bytes).unwrap();
    }

    /// Waits until the terminal takes no more output: a guest that goes on waits in the console.
    fn wait_until_full(&self) {
        // A pty takes some kilobytes; each byte is an exit.
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// A guest that writes to a console that nobody reads is stopped all the same: by a signal, also after a key was
/// pressed that the guest does not read, and by the quit key.
#[test]
fn a_full_console_does_not_hold_up_the_end() {
    for end in [
        |run: &Run| run.signal(Signal::SIGTERM),
        |run: &Run| {
            run.type_in(b"k");
            std::thread::sleep(Duration::from_millis(100));
            run.signal(Signal::SIGTERM);
        },
        |run: &Run| run.type_in(b"\x01x"),
    ] {
        if let Some(run) = Run::start(CHATTER) {
            run.wait_until_raw();
            run.wait_until_full();
            end(&run);
            run.ends(6, "stopped");
        }
    }
}

/// A guest that reads nothing does not take the quit key from the user.
#[test]
fn the_quit_key_works_behind_input_that_nobody_reads() {
    if let Some(run) = Run::start(LOOP) {
        run.wait_until_raw();
        run.type_in(&[b'a'; 1000]);
        std::thread::sleep(Duration::from_millis(100));
        run.type_in(b"\x01x");
        run.ends(6, "stopped");
    }
}

/// The signal that interrupts vCPUs may have been blocked by whoever started us.
#[test]
fn a_blocked_signal_that_was_inherited_does_not_hold_up_the_end() {
    let all = nix::sys::signal::SigSet::all();
    // The mask of this thread is the child's.
    all.thread_block().unwrap();
    let run = Run::start(LOOP);
    all.thread_unblock().unwrap();
    if let Some(run) = run {
        run.wait_until_raw();
        run.signal(Signal::SIGTERM);
        run.ends(6, "stopped");
    }
}

/// The report's file is there once signals are ours, long before the guest runs.
#[test]
fn a_signal_while_the_guest_is_loaded_ends_the_run_too() {
    if let Some(run) = Run::start(LOOP) {
        wait_until("a report", || run.report.exists());
        run.signal(Signal::SIGTERM);
        run.ends(6, "stopped");
    }
}
