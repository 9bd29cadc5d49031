// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands on the control queue (virtio 1.3, 5.1.6.5): `struct virtio_net_ctrl` in a chain.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use crate::pool::{Gate, Refusal};
use crate::queue::{Chain, Queue, parts};

/// class, command.
const HEADER_LEN: u64 = 2;
/// The longest command that there is: class, command, `struct virtio_net_ctrl_mq_pairs_set`.
const MAX_COMMAND: usize = 4;

/// What the driver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: use this many pairs of queues.
    SetPairs(u16),
    /// Nothing that this device knows.
    Unknown,
}

/// Reads the command in `chain`.
///
/// # Errors
/// The chain is no command: its header is too short, or there is no place for `ack`. Nothing was moved.
pub(super) fn read(gate: &Gate, queue: u16, chain: &Chain) -> Result<Command, Refusal> {
    let refuse = || Queue::wrong_direction(queue, chain);
    let len = chain.readable_len();
    if len < HEADER_LEN || chain.writable_len() == 0 {
        return Err(refuse());
    }
    let mut command = [0; MAX_COMMAND];
    parts(chain.readable(), 0, len).read(gate, &mut command).map_err(|_| refuse())?;
    let [class, code, p0, p1] = command;
    Ok(match (class.into(), code.into(), len) {
        (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 4) => {
            Command::SetPairs(u16::from_le_bytes([p0, p1]))
        }
        _ => Command::Unknown,
    })
}

/// Writes `ack`, the first byte for the device to write, and returns how many bytes that were.
pub(super) fn acknowledge(gate: &Gate, queue: u16, chain: &Chain, done: bool) -> Result<u32, Refusal> {
    let ack = u8::try_from(if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR }).unwrap_or(u8::MAX);
    parts(chain.writable(), 0, 1).write(gate, &[ack]).map_err(|_| Queue::wrong_direction(queue, chain))?;
    Ok(1)
}
