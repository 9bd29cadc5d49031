// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A range of guest-physical addresses.

use std::fmt;

/// Guest-physical addresses `base..base + size`, never empty, never past the end of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    base: u64,
    size: u64,
}

impl Range {
    /// The range of `size` bytes at guest-physical `base`; `None` if it is empty or its last byte has no address.
    pub fn new(base: u64, size: u64) -> Option<Self> {
        base.checked_add(size.checked_sub(1)?)?;
        Some(Self { base, size })
    }

    /// The range of `base..end`; `None` if it is empty.
    pub fn from_bounds(base: u64, end: u64) -> Option<Self> {
        Self::new(base, end.checked_sub(base)?)
    }

    /// A range known to be well formed, for layout constants. Fails to compile, in a constant, if it is not.
    pub const fn fixed(base: u64, size: u64) -> Self {
        assert!(size > 0 && base <= u64::MAX - (size - 1));
        Self { base, size }
    }

    /// Guest-physical address of the first byte.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Guest-physical address of the last byte.
    pub const fn last(&self) -> u64 {
        self.base + (self.size - 1)
    }

    /// Guest-physical address after the last byte. Saturates for a range that ends with the address space.
    pub const fn end(&self) -> u64 {
        self.last().saturating_add(1)
    }

    /// Whether every byte of `other` is in this range.
    pub const fn contains(&self, other: &Range) -> bool {
        self.base <= other.base && other.last() <= self.last()
    }

    /// Whether the two have a byte in common.
    pub const fn overlaps(&self, other: &Range) -> bool {
        self.base <= other.last() && other.base <= self.last()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.base, self.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_of_the_address_space_can_be_in_a_range() {
        let top = Range::new(u64::MAX, 1).unwrap();
        assert_eq!((top.last(), top.end()), (u64::MAX, u64::MAX));
        assert!(Range::new(u64::MAX, 2).is_none());
        assert!(Range::new(0, 0).is_none());
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let (a, b) = (Range::fixed(0x1000, 0x1000), Range::fixed(0x2000, 0x1000));
        assert!(!a.overlaps(&b) && !b.overlaps(&a));
        assert!(a.overlaps(&Range::fixed(0x1fff, 1)) && !a.contains(&Range::fixed(0x1fff, 2)));
    }
}
