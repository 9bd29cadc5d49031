// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The agent and its client on this machine, with a shell as the program: no KVM is needed.

use std::time::{Duration, Instant};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn host() -> Host {
    let folder = tempfile::tempdir().unwrap();
    let tools = Tools {
        cvmm: "/bin/true".into(),
        kernel: "none".into(),
        patched_kernel: "none".into(),
        initrd: "none".into(),
    };
    let path = folder.path().to_owned();
    Host::new(Kind::Kvm, local::start().unwrap(), tools, path, Some(folder))
}

fn shell(host: &Host, script: &str) -> Process {
    host.run("/bin/sh", &["-c", script]).unwrap()
}

fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// For a process that is nobody's to wait for: a killed one ends soon, but not at once.
fn await_end(pid: i32) {
    let deadline = Instant::now() + LIMIT;
    while is_running(pid) {
        assert!(Instant::now() < deadline, "{pid} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn output_comes_in_lines_with_times_and_the_exit_code() {
    let host = host();
    let mut process = shell(&host, "echo one; sleep 1; echo two; printf rest; echo wrong >&2; exit 7");
    assert_eq!(process.wait(LIMIT).unwrap(), Exit::Code(7));
    assert_eq!(process.stdout(), "one\ntwo\nrest\n");
    assert_eq!(process.stderr(), "wrong\n");
    // Lines have the time at which they were read, which a busy machine may do late.
    assert!(process.lines()[1].at >= Duration::from_secs(1), "{:?}", process.lines());
    assert!(process.elapsed().unwrap() >= Duration::from_secs(1));
}

#[test]
fn input_goes_in_until_it_ends() {
    let host = host();
    let mut process = shell(&host, "read line; echo got $line; cat; echo end");
    process.control().input(b"a line\n").unwrap();
    assert_eq!(process.wait_for("got", LIMIT).unwrap().text, "got a line");
    process.control().input(b"more\n").unwrap();
    process.control().end_input().unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Exit::Code(0));
    assert_eq!(process.stdout(), "got a line\nmore\nend\n");
}

#[test]
fn a_program_can_have_a_terminal() {
    let host = host();
    let command = CommandLine {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), "test -t 0 && test -t 1 && echo terminal >/dev/tty".into()],
        terminal: true,
        ..CommandLine::default()
    };
    let mut process = host.spawn(command).unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Exit::Code(0));
    assert_eq!(process.stdout(), "terminal\n");
}

#[test]
fn signals_arrive_and_what_is_dropped_is_killed() {
    let host = host();
    let mut process =
        shell(&host, "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    process.wait_for("ready", LIMIT).unwrap();
    process.signal(libc::SIGTERM).unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Exit::Code(3));
    assert_eq!(process.stdout(), "ready\nstopped\n");
    // The program is gone: a late signal meets nobody.
    process.signal(libc::SIGTERM).unwrap();

    let mut process = shell(&host, "sleep 1000 & echo $!; sleep 1000");
    let child: i32 = process.wait_for("", LIMIT).unwrap().text.parse().unwrap();
    let pid = process.pid();
    assert!(is_running(pid) && is_running(child));
    drop(process);
    assert!(!is_running(pid));
    await_end(child);
}

#[test]
fn programs_die_with_the_agent() {
    let host = host();
    let process = host.run("/bin/sleep", &["1000"]).unwrap();
    let pid = process.pid();
    drop(host);
    await_end(pid);
}

#[test]
fn a_wait_in_vain_shows_the_last_lines() {
    let host = host();
    let mut process = shell(&host, "echo last words; sleep 1000");
    process.wait_for("words", LIMIT).unwrap();
    let error = process.wait(Duration::from_millis(10)).unwrap_err().to_string();
    assert!(error.contains("sh did not end") && error.contains("| last words"), "{error}");
    let error = process.wait_for("never", Duration::from_millis(10)).unwrap_err().to_string();
    assert!(error.contains("no line with 'never'") && error.contains("| last words"), "{error}");

    let error = shell(&host, "echo only this").wait_for("never", LIMIT).unwrap_err().to_string();
    assert!(error.contains("ended (Code(0)) without a line with 'never'"), "{error}");
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let error = host().run("/no/such/program", &[]).unwrap_err().to_string();
    assert!(error.contains("cannot start /no/such/program"), "{error}");
}

#[test]
fn sparse_files_go_there_and_back() {
    let (host, here) = (host(), tempfile::tempdir().unwrap());
    let folder = host.folder().unwrap();
    let (from, to, there) = (here.path().join("from"), here.path().join("to"), folder.file("disk"));
    std::fs::write(&from, [5; 4096]).unwrap();
    std::fs::File::options().write(true).open(&from).unwrap().set_len(1 << 30).unwrap();

    host.put(&from, &there).unwrap();
    let layout = host.layout(&there).unwrap();
    assert_eq!((layout.size, layout.extents.as_slice()), (1 << 30, [(0, 4096)].as_slice()));
    assert!(layout.allocated < 1 << 20);
    host.write_at(&there, 1 << 20, b"new").unwrap();
    host.get(&there, &to).unwrap();

    assert_eq!(std::fs::metadata(&to).unwrap().len(), 1 << 30);
    assert_eq!(host.read_at(&to, 0, 4097).unwrap(), [[5].repeat(4096), vec![0]].concat());
    assert_eq!(host.read_at(&to, 1 << 20, 4).unwrap(), b"new\0");
    assert!(host.layout(&to).unwrap().allocated < 1 << 20);
}

#[test]
fn folders_and_files_go_away() {
    let host = host();
    let folder = host.folder().unwrap();
    let file = folder.file("file");
    host.write(&file, b"a longer text").unwrap();
    host.write(&file, b"text").unwrap();
    assert_eq!(host.read_text(&file).unwrap(), "text");
    assert!(host.exists(&file));
    drop(folder);
    assert!(!host.exists(&file));
    assert!(host.read(&file).unwrap_err().to_string().contains("cannot open"));
    assert!(host.read_text("/proc/self/status").unwrap().contains("VmRSS"));
}

#[test]
fn a_peer_takes_part_in_a_transfer() {
    let host = host();
    let peer = host.peer(0).unwrap();
    let plan = crate::peer::Plan { seed_up: 1, bytes_up: 100_000, seed_down: 2, bytes_down: 1000 };
    let stream = std::net::TcpStream::connect(("127.0.0.1", peer.port())).unwrap();
    let transfer = crate::peer::transfer(stream, &plan, || ()).unwrap();
    let received = peer.received(LIMIT).unwrap();
    assert_eq!(received.bytes, 100_000);
    assert_eq!(received.sha256, crate::pattern::hex(&transfer.sent.sha256));
    assert_eq!(transfer.received, transfer.expected);
}
