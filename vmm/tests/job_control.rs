// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! cvmm as a process among others: in the background of a shell, stopped and continued, with signals that are ignored, and
//! with few open files. Whatever happens, the terminal is as it was.

#![allow(unsafe_code)]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, tcgetpgrp};
use tempfile::TempDir;

use common::{LOOP, POWER_OFF, cvmm, elf, kvm, wait_for_end, wait_until};

/// Real-time signals that libc does not leave to programs (signal(7)).
const OF_LIBC: [i32; 2] = [32, 33];

/// A terminal with a session, whose first process is a shell.
struct Session {
    pty: OpenptyResult,
    before: Termios,
    shell: Child,
    dir: TempDir,
}

impl Session {
    /// Runs `script` with bash on a terminal of its own; `$@` in it is a cvmm that runs `code`. None, and a word about it, where
    /// there is no KVM.
    fn start(script: &str, code: &[u8]) -> Option<Self> {
        if !kvm() {
            return None;
        }
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("kernel"), elf(code)).unwrap();
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let run = cvmm("run");
        let mut shell = Command::new("bash");
        shell.args(["-c", script, "bash"]).arg(run.get_program()).args(run.get_args());
        shell.arg("--kernel").arg(dir.path().join("kernel")).arg("--report").arg(dir.path().join("report"));
        let terminal = || Stdio::from(pty.slave.as_fd().try_clone_to_owned().unwrap());
        shell.stdin(terminal()).stdout(terminal()).stderr(terminal()).current_dir(dir.path());
        let lead = || {
            // glibc's posix_spawn, which may have started us, ignores them.
            let default = [libc::SIG_DFL, 0, 0, 0];
            for number in OF_LIBC {
                // SAFETY: the call reads a handler, flags, a restorer and a mask of eight bytes, and writes nothing.
                unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), 0, 8) };
            }
            nix::unistd::setsid()?;
            // SAFETY: TIOCSCTTY takes an integer.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes system calls alone.
        unsafe { shell.pre_exec(lead) };
        Some(Self { shell: shell.spawn().unwrap(), pty, before, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The cvmm that the shell has started, once it runs its guest.
    fn cvmm(&self) -> Pid {
        let children = format!("/proc/{0}/task/{0}/children", self.shell.id());
        let mut found = None;
        wait_until("a guest that runs", || {
            let text = fs::read_to_string(&children).unwrap_or_default();
            found = text.split_whitespace().map(|pid| pid.parse().unwrap()).find(|pid| has_vcpu(*pid));
            found.is_some()
        });
        Pid::from_raw(found.unwrap())
    }

    fn settings(&self) -> Termios {
        tcgetattr(&self.pty.slave).unwrap()
    }

    fn is_raw(&self) -> bool {
        !self.settings().local_flags.contains(LocalFlags::ICANON)
    }

    fn type_in(&self, bytes: &[u8]) {
        fs::File::from(self.pty.master.try_clone().unwrap()).write_all(bytes).unwrap();
    }

    /// What is on the terminal and was not read before.
    fn output(&self) -> String {
        fcntl(&self.pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut output = Vec::new();
        let error =
            fs::File::from(self.pty.master.try_clone().unwrap()).read_to_end(&mut output).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        String::from_utf8(output).unwrap()
    }

    /// The shell ends with `code`, and the terminal is as it was.
    fn ends(mut self, code: i32) {
        assert_eq!(wait_for_end(&mut self.shell).code(), Some(code));
        assert_eq!(self.settings(), self.before, "the terminal is not as it was");
    }
}

/// Whether the process has a vCPU whose guest runs: a thread that has used some time.
fn has_vcpu(process: i32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    tasks.flatten().any(|task| is_thread(&task.path(), "vcpu0") && common::ran(&task.path()))
}

fn is_thread(task: &Path, name: &str) -> bool {
    fs::read_to_string(task.join("comm")).is_ok_and(|text| text.trim() == name)
}

fn state(process: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

fn wait_until_stopped(process: Pid) {
    wait_until("a process that is stopped", || state(process) == 'T');
}

/// `cvmm run ... &` in a shell with job control, and `timeout 20 cvmm run ...`: both are in another process group than the one
/// that has the terminal.
#[test]
fn in_the_background_a_guest_runs_and_the_terminal_is_left_alone() {
    for script in ["set -m; \"$@\" & wait $!", "timeout 20 \"$@\""] {
        if let Some(session) = Session::start(script, POWER_OFF) {
            session.ends(0);
        }
    }
    // As long as it runs, too.
    if let Some(session) = Session::start("set -m; \"$@\" & wait $!", LOOP) {
        let cvmm = session.cvmm();
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(session.settings(), session.before);
        assert_ne!(state(cvmm), 'T');
        kill(cvmm, Signal::SIGTERM).unwrap();
        session.ends(6);
    }
}

/// A terminal may be set such that it stops a background job that writes to it.
#[test]
fn in_the_background_the_console_is_written_all_the_same() {
    // mov eax, 0xd1000000; mov byte [rax], 'x'
    let code = [&[0xb8, 0x00, 0x00, 0x00, 0xd1, 0xc6, 0x00, b'x'], POWER_OFF].concat();
    let script = "stty tostop; set -m; \"$@\" & wait $!; code=$?; stty -tostop; exit $code";
    if let Some(session) = Session::start(script, &code) {
        session.ends(0);
    }
}

/// A shell's `fg` gives the terminal to a job that runs, and signals nothing.
#[test]
fn a_guest_that_comes_to_the_foreground_takes_the_terminal() {
    if let Some(session) = Session::start("set -m; \"$@\" & read line; fg", LOOP) {
        session.cvmm();
        assert!(!session.is_raw());
        session.type_in(b"\n");
        wait_until("a raw terminal", || session.is_raw());
        session.type_in(b"\x01x");
        session.ends(6);
    }
}

/// Ctrl-Z of job control, sent by hand since the guest gets the key. The shell waits for a line, and continues it.
#[test]
fn a_stop_restores_the_terminal_and_continuing_takes_it_back() {
    if let Some(session) = Session::start("set -m; \"$@\"; read line; fg; read line; fg", LOOP) {
        let cvmm = session.cvmm();
        for _ in 0..2 {
            wait_until("a raw terminal", || session.is_raw());
            kill(cvmm, Signal::SIGTSTP).unwrap();
            wait_until_stopped(cvmm);
            assert_eq!(session.settings(), session.before);
            session.type_in(b"\n");
        }
        wait_until("a raw terminal", || session.is_raw());
        session.type_in(b"\x01x");
        session.ends(6);
    }
}

/// SIGSTOP can't be seen; the shell sets the terminal for itself then.
#[test]
fn after_a_stop_that_nobody_sees_the_terminal_is_taken_back() {
    if let Some(session) = Session::start("\"$@\"; exit $?", LOOP) {
        let cvmm = session.cvmm();
        wait_until("a raw terminal", || session.is_raw());
        kill(cvmm, Signal::SIGSTOP).unwrap();
        wait_until_stopped(cvmm);
        tcsetattr(&session.pty.slave, SetArg::TCSANOW, &session.before).unwrap();
        kill(cvmm, Signal::SIGCONT).unwrap();
        wait_until("a raw terminal", || session.is_raw());
        kill(cvmm, Signal::SIGTERM).unwrap();
        session.ends(6);
    }
}

/// A job that is stopped unseen, goes on in the background, and comes back to the foreground, of which nobody tells it.
#[test]
fn a_job_that_comes_back_has_its_keys() {
    if let Some(mut session) = Session::start("set -m; \"$@\"; bg; read line; fg", LOOP) {
        let cvmm = session.cvmm();
        wait_until("a raw terminal", || session.is_raw());
        kill(cvmm, Signal::SIGSTOP).unwrap();
        // bash puts it into the background at once. Longer than cvmm takes to see that it is there:
        std::thread::sleep(Duration::from_millis(600));
        assert_ne!(state(cvmm), 'T');
        session.type_in(b"\n");
        std::thread::sleep(Duration::from_millis(600));
        wait_until("a raw terminal", || session.is_raw());
        session.type_in(b"\x01x");
        // A shell that reads a script gives a job that was stopped its settings back once more, after it has ended.
        assert_eq!(wait_for_end(&mut session.shell).code(), Some(6));
    }
}

/// Both signals wait for cvmm when it begins. The kernel gives the one with the lower number first, the stop.
#[test]
fn a_stop_does_not_delay_an_end_that_came_with_it() {
    let both = "kill -TSTP $$; kill -PWR $$; exec \"$@\"";
    let script = format!("set -m; env --block-signal=TSTP,PWR sh -c '{both}' sh \"$@\"; exit $?");
    if let Some(session) = Session::start(&script, LOOP) {
        let report = session.path("report");
        session.ends_with_report(6, &report);
    }
}

/// cvmm's word on the end is a line of its own, and no empty one comes before it.
#[test]
fn the_last_message_begins_on_a_new_line() {
    const LAST: &str = "cvmm: stopped by the quit key\r\n";
    // mov eax, 0xd1000000; mov byte [rax], ...
    let say = |byte| [0xc6, 0x00, byte];
    let console: &[u8] = &[0xb8, 0x00, 0x00, 0x00, 0xd1];
    for (text, redirect, expected) in [
        (&b"x"[..], "", format!("x\r\n{LAST}")),
        (b"x\r", "", format!("x\r\r\n{LAST}")),
        (b"x\n", "", format!("x\r\n{LAST}")),
        (b"", "", LAST.to_owned()),
        (b"x", "2>message", "x".to_owned()),
    ] {
        let said: Vec<u8> = text.iter().flat_map(|byte| say(*byte)).collect();
        let code = [console, &said, LOOP].concat();
        let Some(mut session) = Session::start(&format!("\"$@\" {redirect}; exit $?"), &code) else { return };
        session.cvmm();
        wait_until("a raw terminal", || session.is_raw());
        session.type_in(b"\x01x");
        assert_eq!(wait_for_end(&mut session.shell).code(), Some(6));
        assert_eq!(session.output(), expected);
        if !redirect.is_empty() {
            assert_eq!(fs::read_to_string(session.path("message")).unwrap(), LAST.replace('\r', ""));
        }
    }
}

/// Every signal that would end a process ends the run in order.
#[test]
fn signals_that_end_a_process_end_the_run() {
    let named = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGXCPU,
        Signal::SIGPWR,
        Signal::SIGIO,
        Signal::SIGSTKFLT,
    ];
    // The first real-time signal that libc leaves to programs interrupts vCPUs.
    let real_time = [libc::SIGRTMIN() + 1, libc::SIGRTMAX()];
    for number in named.into_iter().map(|signal| signal as i32).chain(real_time) {
        if let Some(session) = Session::start("\"$@\"; exit $?", LOOP) {
            let cvmm = session.cvmm();
            wait_until("a raw terminal", || session.is_raw());
            // SAFETY: it sends a signal.
            assert_eq!(unsafe { libc::kill(cvmm.as_raw(), number) }, 0);
            let report = session.path("report");
            session.ends_with_report(6, &report);
        }
    }
}

impl Session {
    fn ends_with_report(self, code: i32, path: &Path) {
        let mut shell = self;
        assert_eq!(wait_for_end(&mut shell.shell).code(), Some(code));
        let report: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(report["outcome"]["kind"], "stopped");
        assert_eq!(shell.settings(), shell.before, "the terminal is not as it was");
    }
}

/// A fault can't wait for the control loop, and kills; the terminal is restored first.
#[test]
fn a_crash_restores_the_terminal() {
    use std::os::unix::process::ExitStatusExt;
    let faults =
        [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGTRAP];
    let by_main = faults.map(|fault| (fault, None));
    for (fault, thread) in by_main.into_iter().chain([(Signal::SIGSEGV, Some("vcpu0"))]) {
        if let Some(mut session) = Session::start("ulimit -c 0; exec \"$@\"", LOOP) {
            wait_until("a guest that runs", || has_vcpu(session.shell.id().cast_signed()));
            // In whichever thread it is.
            let process = session.shell.id();
            let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
            let task = tasks.flatten().find(|task| thread.is_none_or(|name| is_thread(&task.path(), name)));
            let task: i32 = task.unwrap().file_name().into_string().unwrap().parse().unwrap();
            // SAFETY: it sends a signal.
            assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, process, task, fault as i32) }, 0);
            let status: ExitStatus = wait_for_end(&mut session.shell);
            assert_eq!(status.signal(), Some(fault as i32));
            assert_eq!(session.settings(), session.before, "{fault}");
        }
    }
}

/// Those that libc keeps for itself: nobody can block them by it, and by default each ends the process.
#[test]
fn signals_of_the_c_library_do_nothing() {
    for number in OF_LIBC {
        let Some(session) = Session::start("\"$@\"; exit $?", LOOP) else { return };
        let cvmm = session.cvmm();
        wait_until("a raw terminal", || session.is_raw());
        // SAFETY: it sends a signal.
        assert_eq!(unsafe { libc::kill(cvmm.as_raw(), number) }, 0);
        std::thread::sleep(Duration::from_millis(100));
        kill(cvmm, Signal::SIGTERM).unwrap();
        session.ends(6);
    }
}

/// An end in the background leaves the terminal to whoever has it; if nobody has set it since, it is given back.
#[test]
fn an_end_in_the_background_leaves_the_settings_of_others() {
    let crash = (Signal::SIGSEGV, 128 + libc::SIGSEGV);
    let end = (Signal::SIGTERM, 6);
    for (theirs, (signal, code)) in [(true, crash), (false, crash), (true, end), (false, end)] {
        let script = "ulimit -c 0; set -m; \"$@\"; bg; wait %1; exit $?";
        let Some(mut session) = Session::start(script, LOOP) else { return };
        let cvmm = session.cvmm();
        wait_until("a raw terminal", || session.is_raw());
        kill(cvmm, Signal::SIGSTOP).unwrap();
        let shell = Pid::from_raw(session.shell.id().cast_signed());
        let in_background = || tcgetpgrp(&session.pty.master) == Ok(shell) && state(cvmm) != 'T';
        wait_until("a job in the background", in_background);
        let mut expected = session.before.clone();
        if theirs {
            expected.local_flags.remove(LocalFlags::ECHO);
            tcsetattr(&session.pty.slave, SetArg::TCSANOW, &expected).unwrap();
        }
        kill(cvmm, signal).unwrap();
        assert_eq!(wait_for_end(&mut session.shell).code(), Some(code));
        assert_eq!(session.settings(), expected, "{signal}, {theirs}");
    }
}

/// nohup ignores SIGHUP, and a shell without job control SIGINT and SIGQUIT for a command in the background.
#[test]
fn signals_that_were_ignored_stay_ignored() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let kernel = dir.path().join("kernel");
    fs::write(&kernel, elf(LOOP)).unwrap();
    // Two that would restore a terminal and kill, if there is one.
    let ignored =
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGABRT, Signal::SIGTRAP];
    let pty = openpty(None, None).unwrap();
    let terminal = Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = cvmm("run");
    command.arg("--kernel").arg(&kernel).stdin(terminal).stdout(Stdio::null()).stderr(Stdio::null());
    let ignore = move || {
        for number in ignored {
            // SAFETY: no handler is installed.
            unsafe { signal(number, SigHandler::SigIgn) }?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls alone.
    unsafe { command.pre_exec(ignore) };
    let mut child = command.spawn().unwrap();
    let process = Pid::from_raw(child.id().cast_signed());
    wait_until("a guest that runs", || has_vcpu(process.as_raw()));
    for number in ignored {
        kill(process, number).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "it ended");
    assert_ne!(state(process), 'T', "it was stopped");
    kill(process, Signal::SIGTERM).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(6));
}

/// One cause, one exit code, whichever file is the one too many; and the limit that is enough is enough.
#[test]
fn too_few_open_files_are_3() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("kernel"), elf(POWER_OFF)).unwrap();
    fs::write(path("disk"), [0; 4096]).unwrap();
    let run = cvmm("run");
    let mut codes = Vec::new();
    for limit in 3..120 {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]).arg(run.get_program());
        shell.args(run.get_args()).args(["--kernel", &path("kernel"), "--rng", "transport=pci"]);
        shell.args(["--blk", &format!("path={},queues=8,transport=pci", path("disk")), "--cpus", "3"]);
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().unwrap();
        match code {
            // The program was not even loaded; other tests' terminals may be inherited.
            127 => continue,
            3 => {
                assert!(said.contains("Too many open files") && said.contains("ulimit -n"), "{limit}: {said}")
            }
            _ => assert_eq!(code, 0, "{limit}: {said}"),
        }
        codes.push(code);
    }
    assert!(codes.is_sorted_by(|a, b| a >= b), "{codes:?}");
    assert_eq!((codes[0], codes[codes.len() - 1]), (3, 0));
}
