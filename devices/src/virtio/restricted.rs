// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device tells its driver of the pool: the feature bit and the reference (four-step plan, 3 and 4).
//!
//! None of it is what confines the device: its gate does, whatever was offered or accepted.

/// Name of the feature bit in reports. No standard has assigned its number yet.
pub const RESTRICTED_DMA: &str = "RESTRICTED_DMA";

/// What a device says of its limitation. The default is nothing, as in the standard so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestrictedDma {
    /// Number of the feature bit VIRTIO_F_RESTRICTED_DMA, below 64: "do not drive me if you do not know that I reach only
    /// a pool".
    pub feature_bit: Option<u8>,
    /// Without that bit a driver does not get FEATURES_OK.
    pub required: bool,
    /// The transport's registers name the pool, by address and length. Not without the feature bit.
    pub names_pool: bool,
    /// VIRTIO_F_ACCESS_PLATFORM is neither offered nor asked for, so that one can see what a driver does then.
    pub withholds_access_platform: bool,
}

impl RestrictedDma {
    /// The offered feature.
    pub fn feature(&self) -> u64 {
        self.feature_bit.and_then(|bit| 1u64.checked_shl(u32::from(bit))).unwrap_or(0)
    }

    /// What a driver has to accept of it.
    pub fn required_feature(&self) -> u64 {
        if self.required { self.feature() } else { 0 }
    }
}
