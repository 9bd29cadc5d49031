// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How wide an access of a guest is: mostly as registers are, but any width must do.

use arbitrary::Arbitrary;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Width {
    Byte,
    Half,
    Word,
    Double,
    Any(u8),
}

impl Width {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
            Self::Any(bytes) => usize::from(bytes % 17),
        }
    }
}
