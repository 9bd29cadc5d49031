// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device says of its pool: one of the texts of `--spec`, with `--feature-bit` and `--unaware`.

use arbitrary::Arbitrary;
use cvmm_devices::virtio::RestrictedDma;

/// Numbers of VIRTIO_F_RESTRICTED_DMA: in both halves of the features, and at an end of one.
const BITS: [u8; 4] = [27, 45, 31, 49];

/// See above.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub enum Profile {
    /// Nothing.
    #[default]
    Upstream,
    /// A feature bit, and on PCI the pool is the function's own memory (RFC of April 2025, 3/3).
    Rfc {
        /// Which of `BITS`.
        bit: u8,
        /// Who does not accept it is refused.
        required: bool,
    },
    /// A feature bit, and registers that name the pool (resources/review/step4.md).
    Plan {
        /// Which of `BITS`.
        bit: u8,
        /// Who does not accept it is refused.
        required: bool,
    },
}

impl Profile {
    /// As the device is told.
    pub fn restricted(self) -> RestrictedDma {
        let (feature_bit, required) = match self {
            Self::Upstream => (None, false),
            Self::Rfc { bit, required } | Self::Plan { bit, required } => {
                (Some(BITS[usize::from(bit) % BITS.len()]), required)
            }
        };
        RestrictedDma { feature_bit, required, names_pool: self.names_pool(), ..RestrictedDma::default() }
    }

    /// The feature that is offered beyond the standard's.
    pub fn feature(self) -> u64 {
        self.restricted().feature_bit.map_or(0, |bit| 1 << bit)
    }

    /// ... and what a driver must accept of it.
    pub fn required(self) -> u64 {
        if self.restricted().required { self.feature() } else { 0 }
    }

    /// Registers name the pool.
    pub fn names_pool(self) -> bool {
        matches!(self, Self::Plan { .. })
    }

    /// A PCI function has its pool in BAR 2.
    pub fn on_device(self) -> bool {
        matches!(self, Self::Rfc { .. })
    }
}
