// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The system calls that each kind of thread needs. The kernel looks at arguments of 32 bits only where they are listed
//! here: requests, flags, signals.

use cvmm_devices::virtio::Kind;
use kvm_bindings::{KVMIO, kvm_ioeventfd, kvm_irq_routing, kvm_msi, kvm_regs, kvm_userspace_memory_region};
use libc::c_long;
use vmm_sys_util::{ioctl_io_nr, ioctl_ior_nr, ioctl_iow_nr};

use super::ThreadKind;
use crate::host::disk;
use crate::run::MADV_COLLAPSE;

// Linux, Documentation/virt/kvm/api.rst.
ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);
ioctl_ior_nr!(KVM_GET_REGS, KVMIO, 0x81, kvm_regs);
ioctl_iow_nr!(KVM_SET_USER_MEMORY_REGION, KVMIO, 0x46, kvm_userspace_memory_region);
ioctl_iow_nr!(KVM_SET_GSI_ROUTING, KVMIO, 0x6a, kvm_irq_routing);
ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);
ioctl_iow_nr!(KVM_SIGNAL_MSI, KVMIO, 0xa5, kvm_msi);

/// A call and the condition under which it is allowed.
pub(super) type Allowed = (c_long, When);

/// A condition on a call's arguments.
#[derive(Clone, Debug)]
pub(super) enum When {
    /// None.
    Always,
    /// The argument with this index has one of these values.
    OneOf { argument: u8, values: Vec<u64> },
    /// The argument with this index has none of these bits.
    Without { argument: u8, bits: u64 },
}

/// Calls that fail with EACCES. malloc looks at the number of CPUs and at the overcommit policy now and then, a
/// backtrace at the program's file: both go on without.
pub(super) const FAILING: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
];

/// All that a thread of this kind may call.
pub(super) fn allowed(kind: ThreadKind) -> Vec<Allowed> {
    let mut calls = common(kind);
    let mut ioctls = Vec::new();
    match kind {
        ThreadKind::Main => {
            let no_wait = u64::from(libc::MSG_DONTWAIT.cast_unsigned());
            let no_wait = When::OneOf { argument: 3, values: vec![no_wait] };
            calls.extend([
                // Console input that nobody can take is not waited for.
                (libc::SYS_epoll_ctl, When::Always),
                // Console input from a socket, without waiting for it.
                (libc::SYS_recvfrom, no_wait),
                // While the vCPUs end.
                (libc::SYS_clock_nanosleep, When::Always),
                // Disks, at the end.
                (libc::SYS_fdatasync, When::Always),
                // A report that goes into a pipe.
                #[cfg(target_arch = "x86_64")]
                (libc::SYS_poll, When::Always),
                (libc::SYS_ppoll, When::Always),
            ]);
            // The terminal is taken when it becomes ours, and restored.
            ioctls.extend([libc::TCGETS, libc::TCSETS, libc::TCGETS2, libc::TCSETS2, libc::TIOCGPGRP]);
            #[cfg(target_arch = "x86_64")]
            calls.push((libc::SYS_getpgrp, When::Always));
            #[cfg(not(target_arch = "x86_64"))]
            calls.push((libc::SYS_getpgid, When::OneOf { argument: 0, values: vec![0] }));
        }
        // What a driver writes to a register happens here: interrupt routes, the place of a PCI function's
        // notifications, reset and start of a tap.
        ThreadKind::Vcpu { moves_memory } => {
            ioctls.extend([
                KVM_RUN(),
                KVM_GET_REGS(),
                KVM_SET_GSI_ROUTING(),
                KVM_IOEVENTFD(),
                KVM_SIGNAL_MSI(),
            ]);
            ioctls.extend([libc::TUNSETOFFLOAD, libc::TUNSETQUEUE]);
            ioctls.extend(moves_memory.then(KVM_SET_USER_MEMORY_REGION));
            // A console that takes nothing now, and says so.
            #[cfg(target_arch = "x86_64")]
            calls.push((libc::SYS_poll, When::Always));
            calls.push((libc::SYS_ppoll, When::Always));
        }
        ThreadKind::Device(device) => {
            // The interrupt pin of a PCI function.
            ioctls.push(KVM_SIGNAL_MSI());
            match device {
                Kind::Blk => {
                    calls.extend(
                        [
                            libc::SYS_preadv,
                            libc::SYS_preadv2,
                            libc::SYS_pwritev,
                            libc::SYS_fdatasync,
                            libc::SYS_fallocate,
                            libc::SYS_lseek,
                        ]
                        .map(|call| (call, When::Always)),
                    );
                    // Hands over, and waits; the ring itself is restricted.
                    let enter = [0, u64::from(IORING_ENTER_GETEVENTS)];
                    calls.push((libc::SYS_io_uring_enter, When::OneOf { argument: 3, values: enter.into() }));
                    let register = vec![disk::REGISTER_BUFFERS];
                    calls.push((libc::SYS_io_uring_register, When::OneOf { argument: 1, values: register }));
                    // Of a block device; its other requests are not for us.
                    ioctls.push(disk::discard_request());
                }
                // readv and writev are common.
                Kind::Net => ioctls.push(libc::TUNSETQUEUE),
                // read is common.
                Kind::Rng => {}
            }
        }
        // Its advice is in the list of all.
        ThreadKind::Prefault => {}
        // Once, and then it ends.
        ThreadKind::RegisterPage => ioctls.push(KVM_SET_USER_MEMORY_REGION()),
    }
    // Of no value at all, the condition would hold for each.
    if !ioctls.is_empty() {
        calls.push((libc::SYS_ioctl, When::OneOf { argument: 1, values: ioctls }));
    }
    calls
}

/// What every thread needs: memory, locks, eventfds, the console and the log, and its end, also by a panic.
fn common(kind: ThreadKind) -> Vec<Allowed> {
    let always = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_close,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_sigaltstack,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let one_of = |argument, values: &[libc::c_int]| When::OneOf {
        argument,
        values: values.iter().map(|value| u64::from(value.cast_unsigned())).collect(),
    };
    let no_code = When::Without { argument: 2, bits: u64::from(libc::PROT_EXEC.cast_unsigned()) };
    // Not MADV_DODUMP: guest memory stays out of core dumps.
    let mut advice = vec![
        libc::MADV_DONTNEED,
        libc::MADV_FREE,
        libc::MADV_HUGEPAGE,
        libc::MADV_NOHUGEPAGE,
        MADV_GUARD_INSTALL,
        MADV_GUARD_REMOVE,
    ];
    if kind == ThreadKind::Prefault {
        advice.extend([libc::MADV_POPULATE_WRITE, MADV_COLLAPSE]);
    }
    let mut calls: Vec<Allowed> = always.map(|call| (call, When::Always)).into();
    calls.extend([
        (libc::SYS_mmap, no_code.clone()),
        (libc::SYS_mprotect, no_code),
        (libc::SYS_madvise, one_of(2, &advice)),
        // In debug builds, the standard library makes sure that what it closes is open.
        (libc::SYS_fcntl, one_of(1, &[libc::F_GETFD])),
        // libc's abort, and handlers of faults, which let the next one be fatal.
        (libc::SYS_rt_sigaction, one_of(0, &FAULTS)),
        // To threads of this process.
        (libc::SYS_tgkill, When::OneOf { argument: 0, values: vec![u64::from(std::process::id())] }),
    ]);
    calls
}

const FAULTS: [libc::c_int; 6] =
    [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// Linux, include/uapi/linux/io_uring.h.
const IORING_ENTER_GETEVENTS: u32 = 1;

/// Stacks of recent glibc have guard pages of this kind (Linux 6.13, include/uapi/asm-generic/mman-common.h).
const MADV_GUARD_INSTALL: libc::c_int = 102;
const MADV_GUARD_REMOVE: libc::c_int = 103;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::KINDS;

    /// The ioctls that this kind of thread may ask for.
    fn requests(kind: ThreadKind) -> Vec<u64> {
        let ioctl = |(call, when)| (call == libc::SYS_ioctl).then_some(when);
        match &allowed(kind).into_iter().filter_map(ioctl).collect::<Vec<_>>()[..] {
            [] => Vec::new(),
            [When::OneOf { argument: 1, values }] => values.clone(),
            other => panic!("requests are not listed once: {other:?}"),
        }
    }

    /// With it a thread gives the guest any memory of this process.
    #[test]
    fn memory_slots_change_only_where_memory_moves() {
        let moves = [ThreadKind::Vcpu { moves_memory: true }, ThreadKind::RegisterPage];
        for kind in KINDS {
            let allows = requests(kind).contains(&KVM_SET_USER_MEMORY_REGION());
            assert_eq!(allows, moves.contains(&kind), "{kind:?}");
        }
    }

    /// Calls that lead out of this process, or give it more than it has: no thread has use for them.
    const NEVER: &[c_long] = &[
        libc::SYS_execve,
        libc::SYS_execveat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_vfork,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_open_by_handle_at,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink,
        libc::SYS_unlinkat,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_renameat2,
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_chdir,
        libc::SYS_chroot,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_pivot_root,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_capset,
        libc::SYS_prctl,
        libc::SYS_prlimit64,
        libc::SYS_seccomp,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_memfd_create,
        libc::SYS_io_uring_setup,
        libc::SYS_add_key,
        libc::SYS_keyctl,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_sendfile,
        libc::SYS_splice,
        libc::SYS_pipe2,
        libc::SYS_dup3,
    ];

    /// The other calls that read and write a file are for the one kind of thread that has a disk.
    const DISK: &[c_long] = &[
        libc::SYS_preadv,
        libc::SYS_preadv2,
        libc::SYS_pwritev,
        libc::SYS_fallocate,
        libc::SYS_lseek,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];

    #[test]
    fn no_thread_may_call_what_leads_out() {
        for kind in KINDS {
            for (call, _) in allowed(kind) {
                assert!(!NEVER.contains(&call), "{call} by {kind:?}");
                assert!(!DISK.contains(&call) || kind == ThreadKind::Device(Kind::Blk), "{call} by {kind:?}");
            }
        }
    }

    /// A thread that has a disk may discard; it asks a block device for nothing else, such as its partitions.
    #[test]
    fn only_disks_discard() {
        // Linux, include/uapi/linux/fs.h: they are of type 0x12, and BLKDISCARD is number 119.
        for kind in KINDS {
            let block: Vec<_> =
                requests(kind).into_iter().filter(|request| request >> 8 & 0xff == 0x12).collect();
            let expected: &[u64] = if kind == ThreadKind::Device(Kind::Blk) { &[0x1277] } else { &[] };
            assert_eq!(block, expected, "{kind:?}");
        }
    }

    /// Of two conditions on one call, one would be forgotten; and one of no values is none.
    #[test]
    fn each_call_has_one_condition() {
        for kind in KINDS {
            let mut calls: Vec<_> = allowed(kind).iter().map(|(call, _)| *call).collect();
            calls.sort_unstable();
            assert!(calls.windows(2).all(|pair| pair[0] != pair[1]), "{kind:?}: {calls:?}");
            let empty = |(_, when): &Allowed| matches!(when, When::OneOf { values, .. } if values.is_empty());
            assert!(!allowed(kind).iter().any(empty), "{kind:?}");
        }
    }

    /// TUNSETIFF attaches to any tap; TIOCSTI types for the user.
    #[test]
    fn no_thread_may_ask_for_another_tap() {
        const TUNSETIFF: u64 = 0x4004_54ca;
        for kind in KINDS {
            for request in [TUNSETIFF, libc::TIOCSTI] {
                assert!(!requests(kind).contains(&request), "{request:#x} by {kind:?}");
            }
        }
    }
}
