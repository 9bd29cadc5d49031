// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device trees that are not what cvmm would give: its own, with a few bytes changed in place (Devicetree Specification
//! 0.4, chapter 5). Nothing becomes longer or shorter.

use std::ops::Range;

use cvmm_tests::host::{Host, Process};

use crate::guest::{Guest, Run};

/// A guest that gets the device tree of `guest`, changed by `edit`.
pub fn edited<'h>(host: &Host, guest: impl Fn(&str) -> Guest<'h>, edit: impl Fn(&mut [u8])) -> Guest<'h> {
    let donor = guest("");
    let dtb = donor.file("machine.dtb");
    let mut run: Run<'_> = donor.option(format!("--dump-dtb={dtb}")).start();
    // It is written before the guest starts.
    run.wait_for("Linux version");
    let mut blob = host.read(&dtb).unwrap();
    let process: Process = run.process;
    drop(process);
    edit(&mut blob);
    let guest = guest("cvmm.end=poweroff");
    let dtb = guest.file("edited.dtb");
    host.write(&dtb, &blob).unwrap();
    guest.option(format!("--dtb={dtb}"))
}

/// Gives the property `memory-region` a name that means nothing: no device names a pool.
pub fn forget_the_pool(blob: &mut [u8]) {
    let strings = block(blob, 12, 32);
    let name = strings.start + find(&blob[strings], b"\0memory-region\0") + 1;
    blob[name..][..7].copy_from_slice(b"nothing");
}

/// Makes the pools something that no kernel knows.
pub fn unknown_pools(blob: &mut [u8]) {
    let structure = block(blob, 8, 36);
    let name = structure.start + find(&blob[structure], b"restricted-dma-pool\0\x00\x00\x00\x03");
    blob[name..][..10].copy_from_slice(b"unheard-of");
}

/// The default pool has a property that a restricted pool must not have, in place of `linux,dma-default`.
pub fn reject_the_default_pool(blob: &mut [u8]) {
    let strings = block(blob, 12, 32);
    let name = strings.start + find(&blob[strings], b"\0linux,dma-default\0") + 1;
    blob[name..][..17].copy_from_slice(b"linux,cma-default");
}

/// Binds each device that names the pool with this phandle to the one with the other.
pub fn bind_elsewhere(blob: &mut [u8], from: u32, to: u32) {
    const FDT_PROP: u32 = 3;
    let strings = block(blob, 12, 32);
    let name = u32::try_from(find(&blob[strings], b"\0memory-region\0") + 1).unwrap();
    let property: Vec<u8> = [FDT_PROP, 4, name, from].iter().flat_map(|cell| cell.to_be_bytes()).collect();
    let structure = block(blob, 8, 36);
    let value = structure.start + find(&blob[structure], &property) + 12;
    blob[value..][..4].copy_from_slice(&to.to_be_bytes());
}

/// Tells of the one pool of `size` bytes at `from` that it is at `to`. Memory itself, and what is reserved of it, stay.
pub fn move_pool(blob: &mut [u8], size: u64, from: u64, to: u64) {
    let structure = block(blob, 8, 36);
    let reg: Vec<u8> = [from, size].iter().flat_map(|number| number.to_be_bytes()).collect();
    let value = structure.start + find(&blob[structure], &reg);
    blob[value..][..8].copy_from_slice(&to.to_be_bytes());
}

/// The block whose offset and size are at these places of the header.
fn block(blob: &[u8], offset: usize, size: usize) -> Range<usize> {
    let number = |at: usize| {
        let bytes: [u8; 4] = blob[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_be_bytes(bytes)).unwrap()
    };
    number(offset)..number(offset) + number(size)
}

/// The one place where `what` is.
fn find(block: &[u8], what: &[u8]) -> usize {
    let places: Vec<_> =
        block.windows(what.len()).enumerate().filter(|(_, text)| *text == what).map(|(at, _)| at).collect();
    let [place] = places[..] else { panic!("{what:x?} is at {} places", places.len()) };
    place
}
