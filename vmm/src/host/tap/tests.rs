// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Taps in a network namespace of the test's own, whose sysfs is that of another one.

use std::process;
use std::thread;

use clap::Parser;
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::cli::{Cli, Command};
use crate::config::MachineConfig;
use crate::machine::refuse_shared;
use crate::testing::not_tested;

/// Runs `test` in a network namespace of its own. /sys is as it was.
fn alone(test: impl FnOnce() + Send + 'static) {
    let run = || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => test(),
        Err(error) => not_tested(&format!("a network of its own: {error}")),
    };
    // A thread, because it is in that network for the rest of its life, and so is what it starts.
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// As `alone`, with these devices: each is the rest of `ip tuntap add dev`.
fn with_taps(taps: &'static [&str], test: impl FnOnce() + Send + 'static) {
    alone(move || {
        for tap in taps {
            ip(&format!("tuntap add dev {tap}"));
        }
        // Nobody sees this network in sysfs.
        assert!(!std::path::Path::new("/sys/class/net/t0").exists());
        test();
    });
}

fn ip(arguments: &str) {
    let status = process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Runs `test` in the network of the caller, without the right to change it.
fn without_rights(test: impl FnOnce() + Send + 'static) {
    // Linux, include/uapi/linux/capability.h.
    const VERSION: u32 = 0x2008_0522;
    const NET_ADMIN: u32 = 1 << 12;
    let run = || {
        let header = [VERSION, 0];
        // Effective, permitted, inheritable; twice.
        let mut sets = [0u32; 6];
        let call = |number, sets: *mut u32| {
            // SAFETY: both calls read a header of two numbers, and read or write six numbers. They are for this thread.
            let result = unsafe { libc::syscall(number, header.as_ptr(), sets) };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
        };
        call(libc::SYS_capget, sets.as_mut_ptr());
        sets[..3].iter_mut().for_each(|set| *set &= !NET_ADMIN);
        call(libc::SYS_capset, sets.as_mut_ptr());
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn error(name: &str, queues: u16) -> String {
    HostTap::open(name, queues).unwrap_err()
}

fn exists(name: &str) -> bool {
    Link::find(name).unwrap().is_some()
}

#[test]
fn what_is_no_tap_is_named() {
    assert!(error("cvmm-none0", 1).contains("ip tuntap add dev cvmm-none0 mode tap &&"));
    assert!(error("cvmm-none0", 2).contains("ip tuntap add dev cvmm-none0 mode tap multi_queue &&"));
    assert!(error("lo", 1).contains("is not a tap"));
    for name in ["../lo", "a-name-that-is-too-long", "", ".", "..", "a:1", "a b", &"a".repeat(70_000)] {
        assert!(error(name, 1).contains("can't be the name"), "{name}");
        assert_eq!(HostTap::index(name), None, "{name}");
    }
}

#[test]
fn an_mtu_is_told_or_refused() {
    for of_tap in [68, 9000, 65535] {
        assert_eq!(mtu("t0", of_tap).unwrap(), u16::try_from(of_tap).unwrap());
    }
    for of_tap in [0, 67, 65536] {
        let error = mtu("t0", of_tap).unwrap_err();
        assert!(error.contains(&format!("the tap 't0' has an MTU of {of_tap} bytes")), "{error}");
    }
}

#[test]
fn a_tap_is_found_where_sysfs_does_not_show_it() {
    with_taps(&["t0 mode tap", "t1 mode tun", "t2 mode tap multi_queue"], || {
        for (mtu, queues) in [(1500, 1), (9000, 2), (68, 1), (65521, 3)] {
            ip(&format!("link set t0 mtu {mtu}"));
            ip(&format!("link set t2 mtu {mtu}"));
            for (name, queues) in [("t0", 1), ("t2", queues)] {
                let opened = HostTap::open(name, queues).unwrap();
                assert_eq!((opened.queues.len(), opened.mtu), (queues.into(), mtu), "{name}");
                assert!(!opened.up);
                for queues in [1, 2] {
                    let error = error(name, queues);
                    let expected =
                        if (name, queues) == ("t0", 2) { "one queue only, not 2" } else { "is busy" };
                    assert!(error.contains(expected), "{name}, {queues}: {error}");
                }
            }
        }
        ip("link set t0 up");
        assert!(HostTap::open("t0", 1).unwrap().up);
        assert!(error("t1", 1).contains("'t1' is not a tap"));
        let one_queue = error("t0", 2);
        let again =
            "ip tuntap del dev t0 mode tap && ip tuntap add dev t0 mode tap multi_queue && ip link set t0 up";
        assert!(one_queue.ends_with(again), "{one_queue}");
    });
}

/// An alternative name is as good as the first.
#[test]
fn a_tap_with_two_names_is_one() {
    with_taps(&["t0 mode tap", "t1 mode tap"], || {
        ip("link property add dev t0 altname other");
        HostTap::open("other", 1).unwrap();
        let refuse = |names: [&str; 2]| {
            let nets = names.map(|name| format!("--net=tap={name}"));
            let arguments = ["cvmm", "describe", "--pool=2M"].into_iter().map(String::from).chain(nets);
            let Command::Describe(arguments) = Cli::try_parse_from(arguments).unwrap().command else {
                panic!()
            };
            refuse_shared(&MachineConfig::new(&arguments.machine).unwrap().devices)
        };
        for names in [["t0", "other"], ["other", "t0"], ["none", "none"]] {
            let error = refuse(names).unwrap_err().to_string();
            let [first, second] = names;
            let expected = format!("--net tap={second}: --net tap={first} names the same tap;");
            assert!(error.starts_with(&expected), "{error}");
        }
        for names in [["t0", "t1"], ["t1", "other"], ["none", "never"]] {
            refuse(names).unwrap();
        }
    });
}

/// Another program has a queue that it does not use now.
#[test]
fn a_detached_queue_keeps_a_tap_busy() {
    with_taps(&["t0 mode tap multi_queue"], || {
        let mut others = HostTap::open("t0", 2).unwrap().queues;
        others.remove(0);
        assert!(error("t0", 1).contains("is busy"));
        drop(others);
        HostTap::open("t0", 1).unwrap();
    });
}

#[test]
fn a_tap_that_does_not_exist_is_never_made() {
    alone(|| {
        for queues in [1, 2] {
            assert!(error("t0", queues).starts_with("there is no network device 't0'"));
            assert!(!exists("t0"));
        }
        // The tap goes away after it was found.
        for multi_queue in [false, true] {
            let error = HostTap::open_queue("t0", 1, multi_queue).unwrap_err();
            assert!(error.starts_with("there is no network device 't0'"), "{error}");
            let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
            let flags = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
            assert_eq!(attach(&file, "t0", flags).unwrap_err().raw_os_error(), Some(libc::EBUSY));
            assert!(!exists("t0"));
        }
    });
}

#[test]
fn a_user_without_rights_has_taps_of_their_own() {
    with_taps(&["t0 mode tap user 0", "t1 mode tap user 65533", "t2 mode tap"], || {
        without_rights(|| {
            assert_eq!(HostTap::open("t0", 1).unwrap().mtu, 1500);
            assert!(error("t1", 1).contains("the tap 't1' belongs to another user"));
            HostTap::open("t2", 1).unwrap();
            assert!(error("t3", 1).starts_with("there is no network device 't3'"));
            let gone = HostTap::open_queue("t3", 1, false).unwrap_err();
            assert!(gone.starts_with("there is no network device 't3'"), "{gone}");
        });
    });
}

/// The next frame from `tap`, in parts of these lengths.
fn receive(tap: &mut HostTap, lens: &[usize]) -> io::Result<(usize, Vec<Vec<u8>>)> {
    let mut parts: Vec<_> = lens.iter().map(|len| vec![0xee; *len]).collect();
    let len = tap.receive(&mut parts.iter_mut().map(|part| VolatileSlice::from(&mut part[..])))?;
    Ok((len, parts))
}

/// In their order, and no byte more; one that they have no room for is cut off.
#[test]
fn a_frame_is_received_in_parts() {
    with_taps(&["t0 mode tap"], || {
        let mut tap = HostTap::open("t0", 1).unwrap().queues.remove(0);
        let nothing = receive(&mut tap, &[100]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        std::fs::write("/proc/sys/net/ipv6/conf/t0/disable_ipv6", "1").unwrap();
        ip("addr add 192.168.92.1/24 dev t0");
        ip("link set t0 up");
        // The kernel asks for the address of somebody who is not there: 12 bytes of virtio_net, 14 of Ethernet, 28 of ARP
        // (RFC 826).
        let ask = |host: u8| {
            let socket = std::net::UdpSocket::bind("192.168.92.1:0").unwrap();
            socket.send_to(&[0], (std::net::Ipv4Addr::new(192, 168, 92, host), 9)).unwrap();
        };
        for (host, lens) in [(2, &[12, 6, 6, 2, 28, 10][..]), (3, &[26, 0, 1, 0, 100]), (4, &[30, 12])] {
            ask(host);
            let (len, parts) = receive(&mut tap, lens).unwrap();
            let all = parts.concat();
            assert_eq!(len, all.len().min(54), "{lens:?}");
            assert_eq!(all[12..18], [0xff; 6]);
            assert_eq!(all[24..26], [8, 6]);
            // The address that is asked for comes last.
            assert_eq!(all.get(50..54).unwrap_or(&[192, 168, 92, host]), [192, 168, 92, host]);
            assert!(all[len..].iter().all(|byte| *byte == 0xee));
        }
        // As many parts as a queue has descriptors, and two more.
        ask(5);
        let (len, parts) = receive(&mut tap, &[1; 258]).unwrap();
        assert_eq!((len, &parts.concat()[53..55]), (54, &[5, 0xee][..]));
        assert!(receive(&mut tap, &[1; 259]).is_err());
    });
}
