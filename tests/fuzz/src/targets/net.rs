// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames in both directions, and commands: pool, wire and used lengths are those of the model.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use arbitrary::{Arbitrary, Unstructured};
use cvmm_devices::net::{ReceiveOffloads, Tap};
use vm_memory::VolatileSlice;

use crate::driver::{Act, MAX_ACTS, Start};
use crate::session::Session;
use crate::spec::net::{CTRL_VQ, F_MTU, GUEST_CSUM, MQ, MRG_RXBUF, MTU, Net, PAIRS, Wire};

/// What is up for choice.
const OPTIONAL: [u64; 5] = [GUEST_CSUM, MRG_RXBUF, CTRL_VQ, MQ, F_MTU];
/// NONE and TCPV4, each with ECN, and one that there is not (virtio 1.3, 5.1.6).
const GSO_TYPES: [u8; 5] = [0, 1, 0x80, 0x81, 2];
/// IPv4, and two of a VLAN tag.
const ETHERNET_TYPES: [[u8; 2]; 3] = [[8, 0], [0x81, 0], [0x88, 0xa8]];
/// Frames that wait at most.
const MAX_FRAMES: usize = 200;

#[derive(Arbitrary, Debug)]
struct Input {
    start: Start,
    acts: Vec<Act<Packet>>,
}

/// What is read by the device.
#[derive(Arbitrary, Clone, Debug)]
enum Packet {
    /// A frame with so many bytes more than the header.
    Frame(u8),
    /// A command that sets the number of pairs.
    Pairs(u8),
    /// Anything.
    Bytes(Vec<u8>),
}

impl From<Packet> for Vec<u8> {
    fn from(packet: Packet) -> Self {
        match packet {
            Packet::Frame(more) => (0..12 + more % 200).collect(),
            Packet::Pairs(pairs) => vec![4, 0, pairs % 4, 0],
            Packet::Bytes(bytes) => bytes,
        }
    }
}

/// A queue of a wire.
#[derive(Clone, Debug)]
struct MemoryTap(Arc<Mutex<Wire>>);

impl Tap for MemoryTap {
    fn attach(&mut self, attached: bool) -> io::Result<()> {
        self.0.lock().unwrap().attached = attached;
        Ok(())
    }
    fn set_offloads(&mut self, _offloads: ReceiveOffloads) -> io::Result<()> {
        Ok(())
    }
    fn receive(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<usize> {
        let next = self.0.lock().unwrap().arriving.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let mut rest = &next[..];
        for slice in frame {
            let (now, later) = rest.split_at(slice.len().min(rest.len()));
            slice.copy_from(now);
            rest = later;
        }
        assert!(rest.is_empty(), "there is room for any frame");
        Ok(next.len())
    }
    fn send(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for slice in frame {
            let at = bytes.len();
            bytes.resize(at + slice.len(), 0);
            slice.copy_to(&mut bytes[at..]);
        }
        self.0.lock().unwrap().sent.push(bytes);
        Ok(())
    }
    fn fd(&self) -> RawFd {
        -1
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let wires = [true, false].map(|attached| Wire { attached, ..Wire::default() });
    let taps = wires.clone().map(|wire| MemoryTap(Arc::new(Mutex::new(wire))));
    let mut model = Net::new(wires);
    let boxed = taps.iter().map(|tap| Box::new(tap.clone()) as Box<dyn Tap>).collect();
    let mut session = Session::new(|_| Box::new(cvmm_devices::net::Net::new(boxed, [2, 0, 0, 0, 0, 1], MTU)));
    let features = session.start(&input.start, &OPTIONAL);
    model.restart(features, session.runs());
    for act in input.acts.iter().take(MAX_ACTS) {
        session.driver.act(&mut session.memory, act);
        match act {
            Act::Serve(queue) => {
                session.serve(*queue, |index, queue, memory| model.serve(index, queue, memory.shadow()));
                for (tap, wire) in taps.iter().zip(&model.wires) {
                    assert!(*tap.0.lock().unwrap() == *wire, "what is on the wire");
                }
            }
            // A frame arrives: its length, what the length says of its kind, and how often.
            Act::Other(pair, len) => {
                let pair = usize::from(*pair) % PAIRS;
                let mut frame: Vec<u8> = (1..=u8::MAX).cycle().take(12 + usize::from(*len) % 2000).collect();
                frame[1] = GSO_TYPES[usize::from(*len) % GSO_TYPES.len()];
                if let Some(kind) = frame.get_mut(24..26) {
                    kind.copy_from_slice(&ETHERNET_TYPES[usize::from(*len) % ETHERNET_TYPES.len()]);
                }
                for _ in 0..=len / 0x4000 {
                    let wires = [&mut *taps[pair].0.lock().unwrap(), &mut model.wires[pair]];
                    for wire in
                        wires.into_iter().filter(|wire| wire.attached && wire.arriving.len() < MAX_FRAMES)
                    {
                        wire.arriving.push_back(frame.clone());
                    }
                }
            }
            Act::Restart(start) => {
                let features = session.start(start, &OPTIONAL);
                model.restart(features, session.runs());
            }
            _ => {}
        }
    }
}
