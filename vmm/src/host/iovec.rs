// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Slices of pool memory as the kernel takes them: transfers without a copy.

#![allow(unsafe_code)]

use std::io;

use vm_memory::VolatileSlice;

/// Slices of one system call: as many as a queue has descriptors, and a frame's beginning and end. On the stack, so a request
/// allocates nothing.
const BATCH: usize = 256 + 2;

/// Runs `transfer` over all of `slices`, in batches, until each is done or `transfer` makes no progress. `transfer`
/// gets a batch and the bytes done so far, and returns how many bytes it moved. Returns the bytes moved.
pub(super) fn transfer_all<'a>(
    slices: &mut dyn Iterator<Item = VolatileSlice<'a>>,
    mut transfer: impl FnMut(&[libc::iovec], u64) -> io::Result<usize>,
) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let batch = Batch::fill(slices);
        let wanted = batch.len();
        if batch.pending().is_empty() {
            return Ok(total);
        }
        let done = transfer_batch(batch, |vectors, done| transfer(vectors, total + done))?;
        total += done;
        if done < wanted {
            return Ok(total);
        }
    }
}

/// The same for one batch.
pub(super) fn transfer_batch(
    mut batch: Batch,
    mut transfer: impl FnMut(&[libc::iovec], u64) -> io::Result<usize>,
) -> io::Result<u64> {
    let mut total = 0;
    while !batch.pending().is_empty() {
        let done = transfer(batch.pending(), total)?;
        if done == 0 {
            break;
        }
        total += done as u64;
        batch.advance(done);
    }
    Ok(total)
}

/// Runs `transfer` once over all of `slices`, as one frame.
pub(super) fn transfer_once<'a>(
    slices: &mut dyn Iterator<Item = VolatileSlice<'a>>,
    transfer: impl FnOnce(&[libc::iovec]) -> io::Result<usize>,
) -> io::Result<usize> {
    transfer(Batch::whole(slices)?.pending())
}

/// Makes a call again for as long as a signal interrupts it.
pub(super) fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(n) => return Ok(n),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// Their number, as system calls take it: at most [`BATCH`].
pub(super) fn count(vectors: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(vectors.len()).unwrap_or(libc::c_int::MAX)
}

/// Slices of one transfer, of which some were moved.
pub(super) struct Batch {
    vectors: [libc::iovec; BATCH],
    start: usize,
    end: usize,
}

impl Batch {
    /// All of `slices`: no more than fit.
    pub(super) fn whole<'a>(slices: &mut dyn Iterator<Item = VolatileSlice<'a>>) -> io::Result<Self> {
        let batch = Self::fill(slices);
        if slices.next().is_some() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(batch)
    }

    /// Bytes that were not moved yet.
    pub(super) fn len(&self) -> u64 {
        self.pending().iter().map(|vector| vector.iov_len as u64).sum()
    }

    fn fill<'a>(slices: &mut dyn Iterator<Item = VolatileSlice<'a>>) -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut batch = Self { vectors: [empty; BATCH], start: 0, end: 0 };
        for (vector, slice) in batch.vectors.iter_mut().zip(slices.take(BATCH)) {
            vector.iov_base = slice.ptr_guard_mut().as_ptr().cast();
            vector.iov_len = slice.len();
            batch.end += 1;
        }
        batch
    }

    /// What was not moved yet.
    pub(super) fn pending(&self) -> &[libc::iovec] {
        &self.vectors[self.start..self.end]
    }

    /// Drops the first `done` bytes.
    fn advance(&mut self, mut done: usize) {
        while done > 0 && self.start < self.end {
            let vector = &mut self.vectors[self.start];
            let step = done.min(vector.iov_len);
            // SAFETY: `step` is at most the length of the memory that `iov_base` points at.
            vector.iov_base = unsafe { vector.iov_base.byte_add(step) };
            vector.iov_len -= step;
            done -= step;
            if vector.iov_len == 0 {
                self.start += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_transfers_go_on_where_they_stopped() {
        let (mut a, mut b) = ([1u8, 2, 3], [4u8, 5]);
        let mut slices = [VolatileSlice::from(&mut a[..]), VolatileSlice::from(&mut b[..])].into_iter();
        let mut seen = Vec::new();
        let done = transfer_all(&mut slices, |vectors, at| {
            assert_eq!(at, seen.len() as u64);
            // Two bytes at a time, across the border of the slices.
            let mut left = 2;
            for vector in vectors {
                let n = vector.iov_len.min(left);
                // SAFETY: the vectors point into `a` and `b`, which live.
                seen.extend(unsafe { std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), n) });
                left -= n;
            }
            Ok(2 - left)
        });
        assert_eq!((done.unwrap(), seen), (5, vec![1, 2, 3, 4, 5]));
    }

    #[test]
    fn no_progress_ends_the_transfer() {
        let mut a = [0u8; 3];
        let mut slices = [VolatileSlice::from(&mut a[..])].into_iter();
        assert_eq!(transfer_all(&mut slices, |_, _| Ok(0)).unwrap(), 0);
    }
}
