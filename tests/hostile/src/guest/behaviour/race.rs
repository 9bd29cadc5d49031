// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What takes two CPUs.

use super::memory::ROUNDS;
use super::{NOT_PCI, Row, Stage, ensure, registers};
use crate::guest::bench::Result;
use crate::guest::device::NEEDS_RESET;
use crate::guest::flood::{self, feed, flood};
use crate::guest::pci;
use crate::table::Kind;
use crate::table::case::Setup;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "queue-that-feeds-itself",
        clause: flood::CLAUSE,
        run: |stage| feed(stage.machine, stage.bench, &stage.device),
    },
    Row { name: "flood-of-blk", clause: flood::CLAUSE, run: |stage| flooded(stage, Kind::Blk) },
    Row { name: "flood-of-rng", clause: flood::CLAUSE, run: |stage| flooded(stage, Kind::Rng) },
    Row {
        name: "queue-set-up-by-two",
        clause: "virtio 1.3, 4.1.4.3.2 and 4.2.2.2: addresses come before the queue is enabled, and hold from there on",
        run: |stage| {
            let (device, honest, private) = (stage.device, stage.honest(), stage.places().private());
            let elsewhere =
                Setup { descriptors: private, available: private + 0x1000, used: private + 0x2000, ..honest };
            let set_up = || {
                device.enable_queue(&elsewhere);
            };
            stage.second.during(&set_up, || {
                for _ in 0..ROUNDS {
                    ensure(device.reset() && device.negotiate(false), "the device does not start")?;
                    stage.bench.prepare(&device, &honest);
                    let enabled = device.enable_queue(&honest);
                    let refused = device.status() & NEEDS_RESET != 0;
                    ensure(enabled || refused, "neither enabled nor refused")?;
                    device.start();
                    device.notify();
                    // Enabled, each of its areas is in the pool: it is the one that the first CPU wrote.
                    if refused {
                        stage.bench.witness()?;
                        stage.bench.pool_is_unchanged(&stage.device)?;
                    } else {
                        stage.bench.finish(&device, &honest)?;
                    }
                    stage.bench.private_is_unchanged()?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "reset-by-another",
        clause: "virtio 1.3, 2.4.1: at any time, and from then on nothing is used",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            let reset = || {
                device.reset();
            };
            stage.second.during(&reset, || {
                for _ in 0..ROUNDS {
                    // It starts, or is reset on the way.
                    let _ = stage.bench.submit(&device, &honest, false);
                    stage.bench.witness()?;
                    stage.bench.private_is_unchanged()?;
                }
                Ok(())
            })
        },
    },
];

/// On PCI alone.
pub(super) const PCI_ROWS: &[Row] = &[
    Row {
        name: "message-changes",
        clause: "PCI 3.0, 6.8.3.5: no change of a vector that is not masked; Intel SDM 3A, 11.11.1: one place for messages",
        run: |stage| {
            let (device, hardware, honest) = (stage.device, stage.machine.hardware, stage.honest());
            let pci = device.pci_structures().ok_or(NOT_PCI)?;
            let private = u32::try_from(stage.places().private()).unwrap_or(0);
            let change = || {
                hardware.write(pci.table, private);
                hardware.write(pci.table, 0xfee0_0000u32);
            };
            hardware.write(pci.table + 4, 0u32);
            hardware.write(pci.table + 8, 0x41u32);
            hardware.write(pci.table + 12, 0u32);
            let result = stage.second.during(&change, || {
                for _ in 0..ROUNDS {
                    ensure(device.reset() && device.negotiate(false), "the device does not start")?;
                    stage.bench.prepare(&device, &honest);
                    device.use_vector(0);
                    let _ = device.enable_queue(&honest);
                    device.start();
                    pci::enable_msix(hardware, &pci, true);
                    device.notify();
                    let served = || hardware.read::<u16>(honest.used + 2) != 0;
                    let ended = || served() || device.status() & NEEDS_RESET != 0;
                    stage.bench.wait_until(ended).map_err(|_| "neither served nor refused")?;
                    // Whether its message is refused or not, before it or after it: a request that is completed is so whole.
                    if served() {
                        stage.bench.finish(&device, &honest)?;
                    }
                    pci::enable_msix(hardware, &pci, false);
                    stage.bench.private_is_unchanged()?;
                }
                Ok(())
            });
            hardware.write(pci.table + 12, 1u32);
            result
        },
    },
    Row {
        name: "bar-moved-while-used",
        clause: "PCI 3.0, 6.2.5.1: the function answers where its BAR is",
        run: |stage| {
            let device = stage.device;
            let pci = device.pci_structures().ok_or(NOT_PCI)?;
            let use_it = || {
                device.notify();
                device.status();
            };
            let places = [registers::FREE, device.registers];
            ensure(device.reset(), "not reset")?;
            stage.second.during(&use_it, || {
                for place in places.into_iter().cycle().take(40) {
                    pci::move_bar(stage.machine.hardware, &pci, place, true);
                    ensure(device.moved(place).status() == 0, "it does not answer where its BAR is")?;
                    stage.bench.witness()?;
                }
                Ok(())
            })
        },
    },
];

fn flooded(stage: &mut Stage<'_>, kind: Kind) -> Result {
    let (machine, second) = (stage.machine, stage.second);
    let device = stage.bench.victims(machine, kind, stage.device.is_pci()).next().ok_or("no such device")?;
    flood(machine, stage.bench, second, &device, kind)
}
