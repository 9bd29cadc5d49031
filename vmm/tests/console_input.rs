// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Console input arrives whole, whatever it comes from, however much it is, and however early. The guests are a few
//! instructions long.

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::{cvmm, elf, kvm, wait_for_end, wait_until};

/// Echoes what it reads by polling the line status, and powers off after a zero byte.
const ECHO: &[u8] = &[
    // again: mov al, [rbx + 5]; test al, 1; jz again
    0x8a, 0x43, 0x05, 0xa8, 0x01, 0x74, 0xf9, //
    // mov al, [rbx]; test al, al; jz end; mov [rbx], al; jmp again
    0x8a, 0x03, 0x84, 0xc0, 0x74, 0x04, 0x88, 0x03, 0xeb, 0xef, //
    // end: mov eax, 0xd1001000; mov dword [rax], 0x5555; jmp to itself
    0xb8, 0x00, 0x10, 0x00, 0xd1, 0xc7, 0x00, 0x55, 0x55, 0x00, 0x00, 0xeb, 0xfe,
];

/// mov ebx, 0xd1000000
const UART: &[u8] = &[0xbb, 0x00, 0x00, 0x00, 0xd1];

/// As Linux opens the port: for some time it looks elsewhere, empties the data register three times without looking whether
/// there is anything, asks for interrupts, and is ready.
const OPEN: &[u8] = &[
    // mov ecx, 200000; wait: dec ecx; jnz wait
    0xb9, 0x40, 0x0d, 0x03, 0x00, 0xff, 0xc9, 0x75, 0xfc, //
    // mov al, [rbx]; three times
    0x8a, 0x03, 0x8a, 0x03, 0x8a, 0x03, //
    // mov byte [rbx + 1], 1; mov byte [rbx + 4], 0xb
    0xc6, 0x43, 0x01, 0x01, 0xc6, 0x43, 0x04, 0x0b,
];

fn kernel(dir: &Path, parts: &[&[u8]]) {
    fs::write(dir.join("kernel"), elf(&parts.concat())).unwrap();
}

/// Starts a guest of `parts` whose standard input is `stdin`.
fn start(dir: &Path, parts: &[&[u8]], stdin: Stdio) -> Child {
    kernel(dir, parts);
    let mut run = cvmm("run");
    run.arg("--kernel").arg(dir.join("kernel")).stdin(stdin).stdout(Stdio::piped()).spawn().unwrap()
}

/// Bytes of which no two neighbours of any distance below 250 are alike, and none is zero; and a zero byte.
fn input(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251 + 1).unwrap()).chain([0]).collect()
}

fn echoes(mut child: Child, input: &[u8]) {
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut echoed = Vec::new();
        stdout.read_to_end(&mut echoed).map(|_| echoed)
    });
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    let (echoed, expected) = (reader.join().unwrap().unwrap(), &input[..input.len() - 1]);
    let differs = echoed.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((echoed.len(), differs), (expected.len(), None));
}

/// All there is to read is there before the guest is, and more than the UART and our buffers hold.
#[test]
fn input_of_each_kind_arrives_whole() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let input = input(10_000);
    let file = || {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&input).unwrap();
        file.rewind().unwrap();
        OwnedFd::from(file)
    };
    let pipe = || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let bytes = input.clone();
        thread::spawn(move || writer.write_all(&bytes).unwrap());
        OwnedFd::from(reader)
    };
    let socket = || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let bytes = input.clone();
        thread::spawn(move || theirs.write_all(&bytes).unwrap());
        OwnedFd::from(ours)
    };
    // The guest has polled for long before, and was not seen to: that is no exit until there is input.
    let late = || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let bytes = input.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            writer.write_all(&bytes).unwrap();
        });
        OwnedFd::from(reader)
    };
    let sources: [&dyn Fn() -> OwnedFd; 4] = [&file, &pipe, &socket, &late];
    for source in sources {
        echoes(start(dir.path(), &[UART, OPEN, ECHO], Stdio::from(source())), &input);
        // A guest without interrupts polls.
        echoes(start(dir.path(), &[UART, ECHO], Stdio::from(source())), &input);
    }
}

/// What is typed or pasted, more than the terminal's own buffer holds.
#[test]
fn input_of_a_terminal_arrives_whole() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let pty = openpty(None, None).unwrap();
    let stdin = Stdio::from(pty.slave.try_clone().unwrap());
    let child = start(dir.path(), &[UART, OPEN, ECHO], stdin);
    let raw = || !tcgetattr(&pty.slave).unwrap().local_flags.contains(LocalFlags::ICANON);
    wait_until("a raw terminal", raw);
    // Without the byte that begins the quit key.
    let input: Vec<u8> = input(10_000).into_iter().map(|byte| if byte == 1 { b'A' } else { byte }).collect();
    let (mut master, typed) = (File::from(pty.master.as_fd().try_clone_to_owned().unwrap()), input.clone());
    let typist = thread::spawn(move || master.write_all(&typed).unwrap());
    echoes(child, &input);
    typist.join().unwrap();
}

/// A key is there at once, however long nobody typed: the guest is left alone only for as long as it took to read the last.
#[test]
fn a_key_after_a_pause_is_not_late() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut child = start(dir.path(), &[UART, ECHO], Stdio::from(reader));
    let mut console = child.stdout.take().unwrap();
    let mut took = Vec::new();
    for key in *b"123456" {
        let typed = Instant::now();
        writer.write_all(&[key]).unwrap();
        let mut echo = [0];
        console.read_exact(&mut echo).unwrap();
        took.push(typed.elapsed());
        assert_eq!(echo, [key]);
        thread::sleep(Duration::from_millis(150));
    }
    writer.write_all(&[0]).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    // The quickest after a pause, on a machine that may have much else to do.
    let quickest = took[1..].iter().min().unwrap();
    assert!(*quickest < Duration::from_millis(30), "{took:?}");
}

/// Of several who read one socket, the one that comes too late does not wait; and a message is read whole.
#[test]
fn a_socket_that_others_read_makes_nobody_wait() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let input = input(9_000);
    theirs.send(&input).unwrap();
    let stdin = || Stdio::from(OwnedFd::from(ours.try_clone().unwrap()));
    echoes(start(dir.path(), &[UART, ECHO], stdin()), &input);
    // A folder for each: it has the kernel.
    let dirs: Vec<_> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let mut readers: Vec<_> = dirs.iter().map(|dir| start(dir.path(), &[UART, ECHO], stdin())).collect();
    for _ in 0..60 {
        theirs.send(b"x").unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    for reader in &mut readers {
        kill(Pid::from_raw(reader.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(wait_for_end(reader).code(), Some(6));
    }
}

/// What is typed waits in cvmm's memory, so that the quit key is found, but not without end: more waits in the terminal.
#[test]
fn a_guest_that_does_not_read_has_no_more_typed_for_it_than_there_is_room() {
    /// Bytes that wait in cvmm, and more than a terminal's own buffers hold.
    const ROOM: usize = 16 << 20;
    const IN_TERMINAL: usize = 1 << 20;
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let pty = openpty(None, None).unwrap();
    let mut child = start(dir.path(), &[common::LOOP], Stdio::from(pty.slave.try_clone().unwrap()));
    let raw = || !tcgetattr(&pty.slave).unwrap().local_flags.contains(LocalFlags::ICANON);
    wait_until("a raw terminal", raw);
    fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut master = File::from(pty.master.as_fd().try_clone_to_owned().unwrap());
    let (mut typed, begin) = (0, Instant::now());
    let mut type_some = || {
        match master.write(&[b'a'; 1 << 16]) {
            Ok(len) => typed += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        typed
    };
    wait_until("a full buffer", || type_some() >= ROOM);
    // Four times as long as that much took before.
    let end = Instant::now() + (begin.elapsed() / 4).max(Duration::from_millis(500));
    while Instant::now() < end && type_some() < ROOM + IN_TERMINAL {
        thread::sleep(Duration::from_micros(100));
    }
    assert!(type_some() < ROOM + IN_TERMINAL, "it takes more and more");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(6));
}

/// The end of input is not the end of the guest, and a device that never ends is no busy loop: cvmm sleeps while the guest
/// does not read.
#[test]
fn input_without_end_waits_for_the_guest() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    for source in ["/dev/zero", "/dev/null"] {
        let mut child = start(dir.path(), &[common::LOOP], Stdio::from(File::open(source).unwrap()));
        let main = format!("/proc/{0}/task/{0}", child.id());
        let tasks = format!("/proc/{}/task", child.id());
        wait_until("a guest that runs", || {
            fs::read_dir(&tasks).unwrap().flatten().any(|task| common::ran(&task.path()))
        });
        thread::sleep(std::time::Duration::from_millis(300));
        assert!(!common::ran(Path::new(&main)), "the main thread is busy with {source}");
        child.kill().unwrap();
        wait_for_end(&mut child);
    }
}
