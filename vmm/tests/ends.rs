// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every way a run ends, its exit code, its report, and the terminal afterwards. The guests are a few instructions
//! long, so that any /dev/kvm runs them, one without hardware virtualization, too.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::{LOOP, cvmm, elf, kvm, no_more_memory, wait_for_end, wait_until};

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
        Self::with(&[], code)
    }

    fn with(options: &[&str], code: &[u8]) -> Option<Self> {
        if !kvm() {
            return None;
        }
        let dir = TempDir::new().unwrap();
        let (kernel, report) = (dir.path().join("kernel"), dir.path().join("report.json"));
        fs::write(&kernel, elf(code)).unwrap();
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let terminal = || Stdio::from(pty.slave.as_fd().try_clone_to_owned().unwrap());
        let child = cvmm("run")
            .args(options)
            .arg("--kernel")
            .arg(&kernel)
            .arg("--report")
            .arg(&report)
            .stdin(terminal())
            .stdout(terminal())
            .stderr(terminal())
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

/// mov dx, 0xcf9; mov al, 2; out dx, al; mov al, code; out dx, al; with a PCI bus, whose ports are around it, and without.
#[test]
fn a_reset_by_the_reset_control_register_is_5_and_a_warm_one_is_a_panic() {
    for options in [&[][..], &["--rng", "transport=pci"]] {
        for (code, exit, kind) in [(0x0e, 5, "reset"), (0x06, 4, "guest-crashed")] {
            let program = [0x66, 0xba, 0xf9, 0x0c, 0xb0, 2, 0xee, 0xb0, code, 0xee, 0xeb, 0xfe];
            if let Some(run) = Run::with(options, &program) {
                run.ends(exit, kind);
            }
        }
    }
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

    /// Waits until the terminal takes no more output: a vCPU waits there, for longer than any write takes.
    fn wait_until_full(&self) {
        let mut waits = 0;
        wait_until("a full terminal", || {
            waits = if self.writer().is_some() { waits + 1 } else { 0 };
            waits > 100
        });
    }

    /// The name of a vCPU's thread that writes to the console (Linux, proc_pid_syscall(5)).
    fn writer(&self) -> Option<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let name =
            |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap_or_default().trim().to_owned();
        let writes = format!("{} ", nix::libc::SYS_write);
        let mut tasks = tasks.map(|task| task.unwrap().path()).filter(|task| name(task).starts_with("vcpu"));
        let writer = tasks.find(|task| {
            fs::read_to_string(task.join("syscall")).is_ok_and(|call| call.starts_with(&writes))
        });
        writer.as_ref().map(name)
    }

    /// Reads what the guest writes until it has said all of `words`.
    fn read_until(&self, words: &[u8]) {
        let (mut master, mut seen) = (fs::File::from(self.pty.master.try_clone().unwrap()), Vec::new());
        wait_until("a word of each vCPU", || {
            let mut bytes = [0; 256];
            let count = master.read(&mut bytes).unwrap();
            seen.extend(&bytes[..count]);
            words.iter().all(|word| seen.contains(word))
        });
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

/// Code for 16 and 32 bits at 0x90000, where a second vCPU begins, which then writes `y` without end.
const SECOND: &[u8] = &[
    // lgdt cs:[0x28]; mov eax, cr0; or al, 1; mov cr0, eax; jmp far 8:0x90017
    0x2e, 0x0f, 0x01, 0x16, 0x28, 0x00, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0x66, 0xea, 0x17,
    0x00, 0x09, 0x00, 0x08, 0x00, 0x90, //
    // mov ax, 16; mov ds, ax; mov eax, 0xd1000000; again: mov byte [eax], 'y'; jmp again
    0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0xb8, 0x00, 0x00, 0x00, 0xd1, 0xc6, 0x00, b'y', 0xeb, 0xfb, 0x90,
    // 0x28: limit and address of the table: none, code, data.
    0x17, 0x00, 0x30, 0x00, 0x09, 0x00, 0x90, 0x90, //
    0, 0, 0, 0, 0, 0, 0, 0, //
    0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, //
    0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0,
];

/// Two vCPUs write at once: one waits for the terminal and holds the console, which the other waits for. Whichever is
/// which, both are told to stop.
#[test]
fn two_vcpus_that_wait_for_a_full_console_do_not_hold_up_the_end() {
    // mov esi, where SECOND is; mov edi, 0x90000; mov ecx, its length; rep movsb
    // mov eax, 0xfee00300; mov dword [rax], INIT to all others; again: mov eax, 0xfee00300; mov dword [rax], SIPI there, which
    // a CPU that runs ignores; mov eax, 0xd1000000; mov byte [rax], 'x'; jmp again
    let mut code = vec![0xbe];
    let begin = [
        &[0xbf, 0x00, 0x00, 0x09, 0x00, 0xb9, u8::try_from(SECOND.len()).unwrap(), 0, 0, 0, 0xf3, 0xa4][..],
        &[0xb8, 0x00, 0x03, 0xe0, 0xfe, 0xc7, 0x00, 0x00, 0x45, 0x0c, 0x00],
        &[0xb8, 0x00, 0x03, 0xe0, 0xfe, 0xc7, 0x00, 0x90, 0x46, 0x0c, 0x00],
        &[0xb8, 0x00, 0x00, 0x00, 0xd1, 0xc6, 0x00, b'x', 0xeb, 0xeb],
    ]
    .concat();
    code.extend((0x20_0000 + 5 + u32::try_from(begin.len()).unwrap()).to_le_bytes());
    code.extend(begin);
    code.extend(SECOND);
    let mut writers = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let Some(run) = Run::with(&["--cpus", "2"], &code) else { return };
        run.wait_until_raw();
        run.read_until(b"xy");
        run.wait_until_full();
        writers.extend(run.writer());
        run.signal(Signal::SIGTERM);
        run.ends(6, "stopped");
        if writers.len() == 2 {
            return;
        }
    }
    panic!("only {writers:?} ever waited for the terminal");
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

/// The way out needs no memory that is not there.
#[test]
fn the_end_comes_without_more_memory() {
    for end in [|run: &Run| run.signal(Signal::SIGTERM), |run: &Run| run.type_in(b"\x01x")] {
        if let Some(run) = Run::start(CHATTER) {
            // All threads have started.
            run.read_until(b"x");
            no_more_memory(run.child.id());
            end(&run);
            run.ends(6, "stopped");
        }
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
