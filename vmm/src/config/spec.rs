// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is told of the pool beyond what kernels know today: `--spec`, `--feature-bit`, `--unaware`.

use cvmm_devices::virtio::RestrictedDma;
use serde::Serialize;

use crate::cli::MachineArgs;
use crate::{Error, Result};

/// What one text of the proposal changes, in the description of the machine and on the wire. A device reaches its pool alone
/// with each; on PCI, `rfc` makes that memory of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// As `--spec` has it.
    pub name: &'static str,
    /// VIRTIO_F_RESTRICTED_DMA: its number, unless `--feature-bit` says another. None: there is no such bit.
    pub feature_bit: Option<u8>,
    /// The default pool carries `linux,dma-default`, and devices that use it name none. Otherwise each device names its pool.
    pub dma_default: bool,
    /// The transport's registers name the device's pool by address and length.
    pub names_pool: bool,
    /// A PCI device has a pool of its own, in its BAR 2, as large as the one of `--pool`.
    pub device_memory: bool,
    /// What is wrong with the text, a line each: told when a guest starts.
    pub defects: &'static [&'static str],
}

/// The number that the `plan` takes: of those that virtio 1.3 reserves "for future extensions" (2.2: 42 to 49) one that
/// nobody uses. 42 and 43 (SUSPEND) are given away and 44 is next in line; 46 to 49 were offloads of net in a draft, and
/// Linux still counts them so (VIRTIO_OFFLOAD_MAP_MIN).
pub const PLAN_BIT: u8 = 45;

/// The number of VIRTIO_F_SWIOTLB in the RFC of April 2025. It is VIRTIO_F_ANY_LAYOUT's of transitional devices (virtio
/// 1.3, 6.3), which cvmm's never are.
pub const RFC_BIT: u8 = 27;

/// The texts. The guide has this table, too (resources/guide/specifications.md).
pub const PROFILES: [Profile; 3] = [
    Profile {
        name: "upstream",
        feature_bit: None,
        dma_default: false,
        names_pool: false,
        device_memory: false,
        defects: &[],
    },
    Profile {
        name: "rfc",
        feature_bit: Some(RFC_BIT),
        dma_default: false,
        names_pool: false,
        device_memory: true,
        defects: &RFC_DEFECTS,
    },
    Profile {
        name: "plan",
        feature_bit: Some(PLAN_BIT),
        dma_default: true,
        names_pool: true,
        device_memory: false,
        defects: &[],
    },
];

/// Of the RFC of April 2025; resources/review/rfc.md has more of each.
const RFC_DEFECTS: [&str; 4] = [
    "its feature bit 27 is VIRTIO_F_ANY_LAYOUT, which transitional devices must offer (virtio 1.3, 6.3); cvmm's never are",
    "1/3 exempts its buffer from ACCESS_PLATFORM, 2/3 and 3/3 from ORDER_PLATFORM; cvmm assumes that the first is meant, \
     and still offers ACCESS_PLATFORM",
    "the addresses in a PCI device's memory change when its BAR moves, even while rings are in use; and PCI has no way for a \
     function to reach its own BAR",
    "no operating system accepts bit 27 or knows capability 10: with --unaware refuse, no driver gets past FEATURES_OK",
];

/// What a guest is told.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(into = "Told")]
pub struct SpecConfig {
    /// By which text.
    pub profile: &'static Profile,
    /// What each device says of its pool.
    pub restricted: RestrictedDma,
}

/// The same for programs: in `cvmm describe --format json`, and in the report.
#[derive(Serialize)]
struct Told {
    /// By which text: `upstream`, `rfc` or `plan`.
    name: &'static str,
    /// Number of VIRTIO_F_RESTRICTED_DMA, if it is offered.
    feature_bit: Option<u8>,
    /// What becomes of a driver that does not accept it: `refuse` or `allow`.
    unaware: Option<&'static str>,
    /// Whether registers of each device name its pool (four-step plan, 4). Memory of a device's own is not told here.
    registers_name_pool: bool,
    /// Whether VIRTIO_F_ACCESS_PLATFORM is offered, and asked for.
    access_platform: bool,
}

impl From<SpecConfig> for Told {
    fn from(spec: SpecConfig) -> Self {
        let RestrictedDma { feature_bit, required, names_pool, withholds_access_platform } = spec.restricted;
        Self {
            name: spec.profile.name,
            feature_bit,
            unaware: feature_bit.map(|_| if required { "refuse" } else { "allow" }),
            registers_name_pool: names_pool && feature_bit.is_some(),
            access_platform: !withholds_access_platform,
        }
    }
}

/// Reads the options.
pub(super) fn parse(args: &MachineArgs) -> Result<SpecConfig> {
    let profile = PROFILES.iter().find(|profile| profile.name == args.spec).ok_or_else(|| {
        let names = PROFILES.map(|profile| profile.name).join(", ");
        Error::argument(format!("--spec {}", args.spec), format!("it must be one of {names}"))
    })?;
    let no_bit = |option: String| {
        let reason = format!("--spec {} has no feature bit; use --spec plan or --spec rfc", profile.name);
        Err(Error::argument(option, reason))
    };
    let mut restricted = RestrictedDma {
        feature_bit: profile.feature_bit,
        required: profile.feature_bit.is_some(),
        names_pool: profile.names_pool,
        withholds_access_platform: args.withhold_access_platform,
    };
    if let Some(text) = &args.feature_bit {
        let option = format!("--feature-bit {text}");
        if profile.feature_bit.is_none() {
            return no_bit(option);
        }
        restricted.feature_bit = Some(feature_bit(text).map_err(|reason| Error::argument(option, reason))?);
    }
    if let Some(text) = &args.unaware {
        let option = format!("--unaware {text}");
        if profile.feature_bit.is_none() {
            return no_bit(option);
        }
        restricted.required = match text.as_str() {
            "refuse" => true,
            "allow" => false,
            _ => return Err(Error::argument(option, "it must be refuse or allow")),
        };
    }
    Ok(SpecConfig { profile, restricted })
}

/// A number that no feature of the standard has: 24 to 49 are those of the queues and of the negotiation (virtio 1.3, 2.2).
fn feature_bit(text: &str) -> std::result::Result<u8, String> {
    let number: u8 = text.parse().map_err(|_| format!("'{text}' is not a number from 0 to 255"))?;
    match number {
        25..=27 | 31 | 44..=49 => Ok(number),
        24 | 28..=30 | 32..=43 => Err(format!(
            "another feature has bit {number} (virtio 1.3, 6; 42 and 43 were assigned later); free are 25, 26, 31, 44 to \
             49, and 27, which only transitional devices use"
        )),
        _ => Err(format!(
            "bit {number} is reserved for device types, or for other uses; free are 25, 26, 27, 31 and 44 to 49 (virtio \
             1.3, 2.2)"
        )),
    }
}
