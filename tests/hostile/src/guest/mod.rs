// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest: nothing but a driver, at privilege level 3, polling.

#![allow(unsafe_code)]

mod behaviour;
mod bench;
mod device;
mod hardware;
mod machine;
mod matrix;
mod messages;
mod pci;
mod uart;

pub use behaviour::BEHAVIOURS;
pub use hardware::Hardware;
pub use machine::Machine;
pub use uart::Uart;

/// Runs the scenario that the command line names, tells of it on the console, and powers off.
pub fn run(hardware: Hardware, zero_page: u64) -> ! {
    use core::fmt::Write;
    let Some(machine) = Machine::find(hardware, zero_page) else { hardware.crash() };
    let mut uart = Uart::new(hardware, machine.uart);
    let done = match machine.scenario("matrix") {
        Some("blk,plain") => matrix::run(&machine, &mut uart, crate::table::Kind::Blk, false),
        Some("blk,indirect") => matrix::run(&machine, &mut uart, crate::table::Kind::Blk, true),
        Some("rng,plain") => matrix::run(&machine, &mut uart, crate::table::Kind::Rng, false),
        Some("rng,indirect") => matrix::run(&machine, &mut uart, crate::table::Kind::Rng, true),
        Some("net,plain") => matrix::run(&machine, &mut uart, crate::table::Kind::Net, false),
        Some("net,indirect") => matrix::run(&machine, &mut uart, crate::table::Kind::Net, true),
        Some("behaviour") => behaviour::run(&machine, &mut uart),
        Some("messages") => messages::run(&machine, &mut uart),
        _ => Err("no such scenario"),
    };
    let _ = match done {
        Ok(cases) => writeln!(uart, "done: {cases} cases"),
        Err(why) => writeln!(uart, "FAILED: {why}"),
    };
    let (power, value) = machine.power_off;
    hardware.write(power, value);
    hardware.crash()
}
