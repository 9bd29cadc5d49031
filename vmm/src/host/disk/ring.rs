// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transfers by io_uring: a ring for each request queue. What can be done at once is: data that are cached, and writes to the
//! page cache, take one system call, as without a ring, and no wait. The rest is under way, many at a time.
//!
//! A ring is made disabled, restricted, and then enabled. From then on it reads and writes one file, and nothing else can be
//! asked of it, not even by a guest that has taken over this process.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use cvmm_devices::blk::{Disk, MAX_UNDER_WAY, Ring};
use cvmm_devices::pool::Pool;
use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::{EnterFlags, IoUring, opcode, types};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use vm_memory::VolatileSlice;

use super::{FileDisk, Image, position};
use crate::host::iovec::{Batch, count, retry};

/// The image among the files that are registered with a ring: it is the only one.
const IMAGE: types::Fixed = types::Fixed(0);
/// Vectors of transfers that were not submitted yet: those of one, at least.
const VECTORS: usize = 512;
/// The pool among the buffers.
const POOL: u16 = 0;
/// Linux, include/uapi/linux/io_uring.h: IORING_REGISTER_BUFFERS.
pub(super) const REGISTER_BUFFERS: u8 = 0;
/// How often the kernel may have no memory for a transfer before the ring is given up.
const PATIENCE: usize = 1000;

/// A ring, for one queue of a disk.
pub(super) struct DiskRing {
    ring: IoUring,
    disk: FileDisk,
    /// Keeps the memory mapped that transfers go to.
    pool: Pool,
    /// Whether the ring has the pool as a fixed buffer, once that was asked for.
    has_pool: Option<bool>,
    /// The file system can be asked for what is cached.
    has_nowait: bool,
    /// What the kernel reads when a transfer is submitted. It does not grow, so no vector moves.
    vectors: Vec<libc::iovec>,
    /// Tokens of transfers that were not submitted yet.
    begun: VecDeque<u16>,
    /// How many the kernel has.
    submitted: usize,
    /// The kernel takes no more.
    given_up: bool,
    /// Tokens of transfers that it did not take.
    untaken: VecDeque<u16>,
}

// SAFETY: the vectors point into the pool, which any thread may use; nothing else in here is bound to a thread.
unsafe impl Send for DiskRing {}

impl fmt::Debug for DiskRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskRing({} under way)", self.submitted)
    }
}

impl DiskRing {
    /// A ring between `disk` and `pool`.
    pub(super) fn new(disk: &FileDisk, pool: &Pool) -> io::Result<Self> {
        let ring = IoUring::builder().dontfork().setup_r_disabled().build(MAX_UNDER_WAY.into())?;
        // Vectors are read once, and completions are not lost.
        if !ring.params().is_feature_submit_stable() || !ring.params().is_feature_nodrop() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let submitter = ring.submitter();
        match disk.opened_again() {
            Ok(file) => submitter.register_files(&[file.as_raw_fd()])?,
            Err(_) => submitter.register_files(&[disk.transfers().as_raw_fd()])?,
        }
        submitter.register_restrictions(&mut restrictions(disk.read_only()))?;
        submitter.register_enable_rings()?;
        Ok(Self {
            ring,
            disk: disk.clone(),
            pool: pool.clone(),
            has_pool: None,
            has_nowait: true,
            vectors: Vec::with_capacity(VECTORS),
            begun: VecDeque::with_capacity(MAX_UNDER_WAY.into()),
            submitted: 0,
            given_up: false,
            untaken: VecDeque::with_capacity(MAX_UNDER_WAY.into()),
        })
    }

    fn image(&self) -> &Image {
        self.disk.image()
    }

    /// The transfer with this token is under way.
    fn begin(&mut self, token: u16, offset: u64, batch: &Batch, write: bool) -> io::Result<()> {
        let vectors = batch.pending();
        if !vectors.iter().all(|vector| self.is_in_pool(vector)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        position(offset)?;
        if self.given_up {
            self.untaken.push_back(token);
            return Ok(());
        }
        if self.vectors.len() + vectors.len() > self.vectors.capacity() {
            self.submit();
        }
        let fixed = self.has_pool();
        let start = self.vectors.len();
        self.vectors.extend(vectors);
        let entry = transfer(&self.vectors[start..], offset, (write, fixed)).user_data(token.into());
        // SAFETY: the memory is the pool's, which `self.pool` keeps mapped for as long as the kernel has the transfer (see
        // `drop`); a guest that changes it meanwhile changes bytes that nobody in this process interprets. The vectors stay
        // where they are until the transfer is submitted.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        match pushed {
            Ok(()) => self.begun.push_back(token),
            // Does not happen: there is a place for each token.
            Err(_) => self.untaken.push_back(token),
        }
        Ok(())
    }

    /// Gives the pool to the ring as a fixed buffer, so that the kernel need not look up its pages for each transfer. At the
    /// first one and not before: pages that are pinned can't become large ones, and the guest has touched them by then.
    fn has_pool(&mut self) -> bool {
        let (base, size) = self.pool.mapping();
        let Self { ring, has_pool, .. } = self;
        *has_pool.get_or_insert_with(|| {
            let Ok(iov_len) = usize::try_from(size) else { return false };
            let whole = [libc::iovec { iov_base: base as *mut libc::c_void, iov_len }];
            // SAFETY: it is the mapping that `self.pool` keeps.
            let registered = unsafe { ring.submitter().register_buffers(&whole) };
            // More than this user may lock, or more than 1 GiB: transfers work without, too.
            registered.inspect_err(|error| log::debug!("io_uring has no fixed buffer: {error}")).is_ok()
        })
    }

    fn is_in_pool(&self, vector: &libc::iovec) -> bool {
        let (base, size) = self.pool.mapping();
        let skip = (vector.iov_base as u64).checked_sub(base);
        skip.is_some_and(|skip| skip <= size && vector.iov_len as u64 <= size - skip)
    }

    /// From now on, transfers are done without the ring.
    fn give_up(&mut self, error: &io::Error) {
        log::warn!("{}: io_uring takes no more requests: {error}", self.image().path().display());
        self.given_up = true;
        self.untaken.append(&mut self.begun);
    }
}

/// What the ring may be asked for.
fn restrictions(read_only: bool) -> Vec<Restriction> {
    let reads = [opcode::Read::CODE, opcode::Readv::CODE, opcode::ReadFixed::CODE];
    let writes = [opcode::Write::CODE, opcode::Writev::CODE, opcode::WriteFixed::CODE];
    let codes = reads.into_iter().chain(writes.into_iter().filter(|_| !read_only));
    let fixed = Flags::FIXED_FILE.bits();
    // A file that is not registered would be one of the process.
    let flags = [Restriction::sqe_flags_allowed(fixed), Restriction::sqe_flags_required(fixed)];
    let pool = Restriction::register_op(REGISTER_BUFFERS);
    codes.map(Restriction::sqe_op).chain(flags).chain([pool]).collect()
}

/// A transfer of these vectors. One alone may be a part of the fixed buffer.
fn transfer(vectors: &[libc::iovec], offset: u64, (write, fixed): (bool, bool)) -> Entry {
    let number = u32::try_from(vectors.len()).unwrap_or(u32::MAX);
    match (vectors, write) {
        (&[libc::iovec { iov_base, iov_len }], _) if u32::try_from(iov_len).is_ok() => {
            let (to, len) = (iov_base.cast::<u8>(), u32::try_from(iov_len).unwrap_or(u32::MAX));
            let from = to.cast_const();
            match (write, fixed) {
                (true, true) => opcode::WriteFixed::new(IMAGE, from, len, POOL).offset(offset).build(),
                (true, false) => opcode::Write::new(IMAGE, from, len).offset(offset).build(),
                (false, true) => opcode::ReadFixed::new(IMAGE, to, len, POOL).offset(offset).build(),
                (false, false) => opcode::Read::new(IMAGE, to, len).offset(offset).build(),
            }
        }
        (_, true) => opcode::Writev::new(IMAGE, vectors.as_ptr(), number).offset(offset).build(),
        (_, false) => opcode::Readv::new(IMAGE, vectors.as_ptr(), number).offset(offset).build(),
    }
}

impl Ring for DiskRing {
    fn read(
        &mut self,
        token: u16,
        offset: u64,
        to: &mut dyn Iterator<Item = VolatileSlice<'_>>,
    ) -> io::Result<Option<u64>> {
        let batch = Batch::whole(to)?;
        if self.disk.is_direct() {
            if !self.disk.bypasses_cache(batch.pending(), offset) {
                return self.disk.read_batch(batch, offset).map(Some);
            }
        } else if self.has_nowait {
            match read_cached(self.image().file.as_raw_fd(), &batch, offset) {
                Ok(done) if done as u64 == batch.len() => return Ok(Some(batch.len())),
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {}
                    Some(libc::EOPNOTSUPP) => self.has_nowait = false,
                    _ => return Err(error),
                },
            }
        }
        self.begin(token, offset, &batch, false).map(|()| None)
    }

    fn write(
        &mut self,
        token: u16,
        offset: u64,
        from: &mut dyn Iterator<Item = VolatileSlice<'_>>,
    ) -> io::Result<Option<u64>> {
        let batch = Batch::whole(from)?;
        if !self.disk.bypasses_cache(batch.pending(), offset) {
            return self.disk.write_batch(batch, offset).map(Some);
        }
        self.disk.ensure_long(offset + batch.len())?;
        self.begin(token, offset, &batch, true).map(|()| None)
    }

    fn submit(&mut self) {
        let mut refused = 0;
        while !self.begun.is_empty() && !self.given_up {
            match self.ring.submit() {
                Ok(0) => refused += 1,
                Ok(taken) => {
                    let taken = taken.min(self.begun.len());
                    self.begun.drain(..taken);
                    self.submitted += taken;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) if refused < PATIENCE => {
                        refused += 1;
                        std::thread::yield_now();
                    }
                    _ => self.give_up(&error),
                },
            }
            if refused >= PATIENCE {
                self.give_up(&io::ErrorKind::WouldBlock.into());
            }
        }
        self.vectors.clear();
    }

    fn completed(&mut self) -> Option<(u16, io::Result<u64>)> {
        // Nothing was moved: it is done once more, without the ring.
        if let Some(token) = self.untaken.pop_front() {
            return Some((token, Ok(0)));
        }
        let entry = self.ring.completion().next()?;
        self.submitted = self.submitted.saturating_sub(1);
        let token = u16::try_from(entry.user_data()).ok()?;
        let moved = match u64::try_from(entry.result()) {
            Ok(moved) => Ok(moved),
            Err(_) => match -entry.result() {
                libc::EAGAIN | libc::EINTR => Ok(0),
                error => Err(io::Error::from_raw_os_error(error)),
            },
        };
        Some((token, moved))
    }

    fn wait(&mut self) {
        self.submit();
        while self.untaken.is_empty() && self.submitted > 0 {
            // SAFETY: there is no argument.
            let waited =
                unsafe { self.ring.submitter().enter::<()>(0, 1, EnterFlags::GETEVENTS.bits(), None) };
            match waited {
                Ok(_) => return,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // It completes without us, too.
                Err(_) if self.ring.completion().is_empty() => std::thread::yield_now(),
                Err(_) => return,
            }
        }
    }

    fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Drop for DiskRing {
    fn drop(&mut self) {
        // A thread that ended in order has waited. After a panic, the memory stays mapped.
        if self.submitted > 0 {
            std::mem::forget(self.pool.clone());
        }
    }
}

/// Whether the file system is memory. A ring would only add a change of threads there: before Linux 6.6, such a file system
/// can't say what is there at once.
fn is_in_memory(file: &File) -> bool {
    /// Linux, include/uapi/linux/magic.h.
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    fstatfs(file).is_ok_and(|fs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&fs.filesystem_type()))
}

/// Reads what is there at once: all of it if it is cached.
fn read_cached(file: RawFd, batch: &Batch, offset: u64) -> io::Result<usize> {
    let (vectors, at) = (batch.pending(), position(offset)?);
    // SAFETY: as in `FileDisk::read_vectors`.
    retry(|| unsafe { libc::preadv2(file, vectors.as_ptr(), count(vectors), at, libc::RWF_NOWAIT) })
}

/// The ring of one queue, if this host has io_uring for us, and there is something to wait for.
pub(super) fn open(disk: &FileDisk, pool: &Pool) -> Option<Box<dyn Ring>> {
    if is_in_memory(&disk.image().file) {
        return None;
    }
    match DiskRing::new(disk, pool) {
        Ok(ring) => Some(Box::new(ring)),
        Err(error) => {
            log::info!("{}: without io_uring: {error}", disk.image().path().display());
            None
        }
    }
}

#[cfg(test)]
mod tests;
