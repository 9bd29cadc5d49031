// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device status field as a driver may write it (virtio 1.3, 2.1 and 3.1.1).

/// Bits of the device status field.
pub mod bit {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u8 = 8;
    /// The device has met an error from which it can't recover by itself.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up on the device.
    pub const FAILED: u8 = 128;
}

use bit::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};

/// What a driver's write to the status field means, from the state that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// 0 was written.
    Reset,
    /// A status that means nothing more than itself.
    Note(u8),
    /// The driver asks whether its features are accepted.
    Features,
    /// The driver is ready.
    Start,
    /// Not a step from here: the write has no effect.
    Refused,
}

const READY: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK;

/// The steps of initialisation, in the only order there is (virtio 1.3, 3.1.1): from, to, meaning.
const STEPS: &[(u8, u8, Step)] = &[
    (0, ACKNOWLEDGE, Step::Note(ACKNOWLEDGE)),
    (ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, Step::Note(ACKNOWLEDGE | DRIVER)),
    (ACKNOWLEDGE | DRIVER, READY, Step::Features),
    (READY, READY | DRIVER_OK, Step::Start),
];

/// The names of the driver's bits in `status`, in the order in which a driver sets them.
pub fn names(status: u8) -> Vec<&'static str> {
    let all = [
        (ACKNOWLEDGE, "ACKNOWLEDGE"),
        (DRIVER, "DRIVER"),
        (FEATURES_OK, "FEATURES_OK"),
        (DRIVER_OK, "DRIVER_OK"),
        (FAILED, "FAILED"),
    ];
    all.into_iter().filter(|(bit, _)| status & bit != 0).map(|(_, name)| name).collect()
}

/// The meaning of writing `written` while the driver-owned bits are `status`.
pub fn step(status: u8, written: u8) -> Step {
    if written == 0 {
        return Step::Reset;
    }
    // DEVICE_NEEDS_RESET is ours; a driver that adds a bit to what it read writes it back.
    let written = written & !bit::DEVICE_NEEDS_RESET;
    if written == status {
        return Step::Note(status);
    }
    // A driver may give up at any time (virtio 1.3, 2.1). It may clear nothing.
    if written & FAILED != 0 && written & !FAILED == status & !FAILED {
        return Step::Note(written);
    }
    STEPS
        .iter()
        .find(|(from, to, _)| (*from, *to) == (status, written))
        .map_or(Step::Refused, |(_, _, step)| *step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every write in every state: what is not in the list of virtio 1.3, 3.1.1 has no effect.
    #[test]
    fn only_the_steps_of_the_specification_are_taken() {
        let reachable = [0, 1, 3, 11, 15, 128, 129, 131, 139, 143];
        for from in reachable {
            for written in 0..=u8::MAX {
                let expected = match (from, written & !64) {
                    _ if written == 0 => Step::Reset,
                    (from, to) if from == to => Step::Note(from),
                    (0, 1) => Step::Note(1),
                    (1, 3) => Step::Note(3),
                    (3, 11) => Step::Features,
                    (11, 15) => Step::Start,
                    (from, to) if to == from | 128 => Step::Note(to),
                    _ => Step::Refused,
                };
                assert_eq!(step(from, written), expected, "{from:#x} -> {written:#x}");
            }
        }
    }
}
