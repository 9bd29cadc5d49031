// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use io_uring::squeue;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tempfile::NamedTempFile;
use vm_memory::MmapRegion;

use super::*;

const BASE: u64 = 0x1000_0000;
const SIZE: usize = 1 << 20;
/// Bytes of the image.
const IMAGE_SIZE: usize = 1 << 20;

/// A pool, with a second look at its memory.
struct Memory {
    region: MmapRegion,
    pool: Pool,
}

impl Memory {
    fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE as u64).unwrap();
        let map =
            || MmapRegion::from_file(vm_memory::FileOffset::new(file.try_clone().unwrap(), 0), SIZE).unwrap();
        Self { region: map(), pool: Pool::new("pool", BASE, map()).unwrap() }
    }

    /// Bytes of the pool, as a gate would give them out.
    fn slice(&self, skip: usize, len: usize) -> VolatileSlice<'_> {
        let (base, size) = self.pool.mapping();
        assert!((skip + len) as u64 <= size);
        // SAFETY: the pool's mapping lives as long as `self`.
        unsafe { VolatileSlice::new((base as *mut u8).add(skip), len) }
    }

    fn bytes(&self, skip: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // SAFETY: the mapping is `SIZE` bytes, and the test writes to it from this thread only.
        let memory = unsafe { std::slice::from_raw_parts(self.region.as_ptr(), SIZE) };
        bytes.copy_from_slice(&memory[skip..skip + len]);
        bytes
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at ^ at >> 9) % 251).unwrap()).collect()
}

/// An image beside the program: /tmp may be a file system that is its own page cache.
fn image() -> NamedTempFile {
    let program = std::env::current_exe().unwrap();
    let file = NamedTempFile::new_in(program.parent().unwrap()).unwrap();
    fs::write(file.path(), pattern(IMAGE_SIZE)).unwrap();
    file
}

/// `None`, and a word about it, where there is no io_uring.
fn ring(image: &Path, memory: &Memory, read_only: bool, direct: bool) -> Option<DiskRing> {
    let disk = FileDisk::open(image, read_only, true, Instant::now()).unwrap();
    let disk = match direct {
        true => match disk.into_direct() {
            Ok(disk) => disk,
            Err(why) => {
                crate::testing::not_tested(&why);
                return None;
            }
        },
        false => disk,
    };
    match DiskRing::new(&disk, &memory.pool) {
        Ok(ring) => Some(ring),
        Err(error) => {
            crate::testing::not_tested(&format!("io_uring: {error}"));
            None
        }
    }
}

/// Takes the image out of the page cache.
fn forget(ring: &DiskRing) {
    let file = &ring.image().file;
    file.sync_all().unwrap();
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

/// All that is under way, completed: by token.
fn settle(ring: &mut DiskRing) -> Vec<(u16, u64)> {
    let mut done = Vec::new();
    while ring.submitted + ring.begun.len() + ring.untaken.len() > 0 {
        ring.wait();
        done.extend(std::iter::from_fn(|| ring.completed()).map(|(token, moved)| (token, moved.unwrap())));
    }
    done.sort_unstable();
    done
}

/// What is not cached is under way, what is cached comes at once, and both are the image's bytes.
#[test]
fn reads_are_the_bytes_of_the_image() {
    let (image, memory) = (image(), Memory::new());
    let Some(mut ring) = ring(image.path(), &memory, false, false) else { return };
    forget(&ring);
    let expected = pattern(IMAGE_SIZE);
    let mut begun = Vec::new();
    for token in 0..MAX_UNDER_WAY {
        let (at, len) = (usize::from(token) * 8192, 4096);
        // In one piece, or in three.
        let parts: &[usize] = if token % 2 == 0 { &[len] } else { &[512, 1024, 2560] };
        let starts = parts.iter().scan(at, |next, len| Some(std::mem::replace(next, *next + len)));
        let mut to = starts.zip(parts).map(|(start, len)| memory.slice(start, *len));
        match ring.read(token, at as u64, &mut to).unwrap() {
            Some(moved) => assert_eq!(moved, 4096),
            None => begun.push((token, 4096)),
        }
    }
    assert_eq!(settle(&mut ring), begun);
    if ring.has_pool == Some(false) {
        crate::testing::not_tested("a fixed buffer: this user may not lock so much memory");
    }
    for token in 0..MAX_UNDER_WAY {
        let at = usize::from(token) * 8192;
        assert!(memory.bytes(at, 4096) == expected[at..at + 4096], "{token}");
    }
    if begun.is_empty() {
        crate::testing::not_tested("reads under way: this file system keeps all in memory");
    }
    let cached = ring.read(0, 0, &mut [memory.slice(0, 512)].into_iter()).unwrap();
    assert!(cached == Some(512) || !ring.has_nowait, "{cached:?}");
    settle(&mut ring);
    // The end of the image, which is shorter than it was.
    image.as_file().set_len(4096).unwrap();
    match ring.read(1, 8192, &mut [memory.slice(0, 512)].into_iter()).unwrap() {
        Some(moved) => assert_eq!(moved, 0),
        None => assert_eq!(settle(&mut ring), [(1, 0)]),
    }
}

/// Whole blocks go past the cache, and others through it; both are seen by both.
#[test]
fn a_direct_disk_takes_requests_of_any_sector() {
    let (image, memory) = (image(), Memory::new());
    let Some(mut ring) = ring(image.path(), &memory, false, true) else { return };
    let mut expected = pattern(IMAGE_SIZE);
    memory.slice(0, SIZE).copy_from(&vec![9u8; SIZE]);
    // Aligned, a sector that is no block perhaps, memory that is not aligned.
    for (token, place, skip, len) in [(0, 8192, 4096, 8192), (1, 512, 0, 512), (2, 65536, 4097, 4096)] {
        let done = ring.write(token, place, &mut [memory.slice(skip, len)].into_iter()).unwrap();
        assert!(token != 0 || done.is_none(), "it went through the cache");
        let moved = done.unwrap_or_else(|| settle(&mut ring)[0].1);
        assert_eq!(moved, len as u64);
        let place = usize::try_from(place).unwrap();
        expected[place..place + len].fill(9);
    }
    let mut bytes = vec![0; IMAGE_SIZE];
    image.as_file().read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == expected);
    for (place, skip, len) in [(0, 0, 8192), (512, 1, 1024), (8192, 12288, 65536)] {
        let done = ring.read(3, place, &mut [memory.slice(skip, len)].into_iter()).unwrap();
        let moved = done.unwrap_or_else(|| settle(&mut ring)[0].1);
        assert_eq!(moved, len as u64);
        let place = usize::try_from(place).unwrap();
        assert!(memory.bytes(skip, len) == expected[place..place + len], "{place}");
    }
    // A write never makes a truncated image longer.
    image.as_file().set_len(4096).unwrap();
    let gone = ring.write(4, 8192, &mut [memory.slice(4096, 4096)].into_iter());
    assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(image.as_file().metadata().unwrap().len(), 4096);
}

/// The kernel writes wherever it is told to: memory that is not the pool's is refused before.
#[test]
fn nothing_but_the_pool_is_handed_to_the_kernel() {
    let (image, memory, other) = (image(), Memory::new(), Memory::new());
    let Some(mut ring) = ring(image.path(), &memory, false, false) else { return };
    for vector in [other.slice(0, 512), other.slice(SIZE - 512, 512)] {
        let mut vector = [vector].into_iter();
        let batch = Batch::whole(&mut vector).unwrap();
        let refused = ring.begin(0, 0, &batch, false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
    let inside = Batch::whole(&mut [memory.slice(SIZE - 512, 512)].into_iter()).unwrap();
    ring.begin(0, 0, &inside, false).unwrap();
    assert_eq!(settle(&mut ring), [(0, 512)]);
    assert!(memory.bytes(SIZE - 512, 512) == pattern(512));
}

/// As a guest that has taken over this process would ask: for other operations, other files, and another set of rules.
#[test]
fn a_ring_reads_and_writes_its_image_and_nothing_else() {
    let (image, memory) = (image(), Memory::new());
    let path = c"/etc/passwd";
    let mut bytes = [0u8; 512];
    for read_only in [false, true] {
        let Some(mut ring) = ring(image.path(), &memory, read_only, false) else { return };
        let file = types::Fd(ring.image().file.as_raw_fd());
        let (to, from) = (bytes.as_mut_ptr(), bytes.as_ptr());
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
        let forbidden: Vec<(&str, squeue::Entry)> = vec![
            ("nothing", opcode::Nop::new().build()),
            ("open", open),
            ("read of a file that is not registered", opcode::Read::new(file, to, 512).build()),
            ("write to one", opcode::Write::new(file, from, 512).build()),
            ("socket", opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build()),
            ("flush", opcode::Fsync::new(IMAGE).build()),
            (
                "other flags",
                opcode::Read::new(IMAGE, to, 512).build().flags(Flags::FIXED_FILE | Flags::ASYNC),
            ),
        ];
        for (what, entry) in forbidden {
            assert_eq!(ask(&mut ring, &entry), -libc::EACCES, "{what}");
        }
        assert_eq!(ask(&mut ring, &opcode::Read::new(IMAGE, to, 512).build()), 512);
        let write = ask(&mut ring, &opcode::Write::new(IMAGE, from, 512).build());
        assert_eq!(write, if read_only { -libc::EACCES } else { 512 });
        let outside = opcode::ReadFixed::new(IMAGE, to, 512, POOL).build();
        assert_eq!(ask(&mut ring, &outside), -libc::EFAULT, "before the pool is registered");
        if ring.has_pool() {
            assert_eq!(ask(&mut ring, &outside), -libc::EFAULT, "memory that is not the pool's");
            let pool = memory.slice(4096, 512).ptr_guard_mut().as_ptr();
            assert_eq!(ask(&mut ring, &opcode::ReadFixed::new(IMAGE, pool, 512, POOL).build()), 512);
            assert!(memory.bytes(4096, 512) == pattern(512));
            let buffer = [libc::iovec { iov_base: to.cast(), iov_len: 512 }];
            // SAFETY: the kernel does not take it.
            let again = unsafe { ring.ring.submitter().register_buffers(&buffer) };
            assert_eq!(again.unwrap_err().raw_os_error(), Some(libc::EBUSY), "another buffer");
        }
        let denied = |result: io::Result<()>| result.unwrap_err().raw_os_error() == Some(libc::EACCES);
        let submitter = ring.ring.submitter();
        assert!(denied(submitter.register_files_update(0, &[0]).map(|_| ())), "another file");
        assert!(denied(submitter.unregister_files()), "no file");
        assert!(denied(submitter.register_eventfd(0)), "an eventfd");
        // EBADFD: only a ring that is disabled has rules to be written.
        let rules = submitter.register_restrictions(&mut [Restriction::sqe_op(opcode::Nop::CODE)]);
        let rules = rules.unwrap_err().raw_os_error();
        assert!(matches!(rules, Some(libc::EACCES | libc::EBADFD | libc::EBUSY)), "{rules:?}");
    }
}

/// What comes of this entry.
fn ask(ring: &mut DiskRing, entry: &squeue::Entry) -> i32 {
    // SAFETY: what the entry points at lives until the wait is over.
    unsafe { ring.ring.submission().push(entry).unwrap() };
    ring.ring.submit_and_wait(1).unwrap();
    ring.ring.completion().next().unwrap().result()
}

/// Requests that the kernel does not take come back as not done.
#[test]
fn a_ring_that_is_given_up_gives_its_transfers_back() {
    let (image, memory) = (image(), Memory::new());
    let Some(mut ring) = ring(image.path(), &memory, false, false) else { return };
    let batch = Batch::whole(&mut [memory.slice(0, 512)].into_iter()).unwrap();
    ring.begin(5, 0, &batch, false).unwrap();
    ring.give_up(&io::ErrorKind::Other.into());
    ring.begin(6, 0, &batch, false).unwrap();
    ring.submit();
    assert_eq!(settle(&mut ring), [(5, 0), (6, 0)]);
    assert_eq!(memory.bytes(0, 512), [0; 512]);
}

/// What is in memory is read at once, and needs no thread of the kernel's for that.
#[test]
fn an_image_in_memory_has_no_ring() {
    let there = |folder: &str| {
        let image = NamedTempFile::new_in(folder).unwrap();
        image.as_file().set_len(4096).unwrap();
        let disk = FileDisk::open(image.path(), false, true, Instant::now()).unwrap();
        (is_in_memory(&disk.image().file), open(&disk, &Memory::new().pool).is_some())
    };
    assert_eq!(there("/dev/shm"), (true, false));
    let temporary = std::env::temp_dir();
    if !is_in_memory(&fs::File::open(&temporary).unwrap()) {
        assert_eq!(there(temporary.to_str().unwrap()), (false, IoUring::new(1).is_ok()));
    }
}
