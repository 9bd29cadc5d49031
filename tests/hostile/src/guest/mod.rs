// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest: nothing but a driver, at privilege level 3, polling.

#![allow(unsafe_code)]

mod behaviour;
mod bench;
mod device;
mod flood;
mod hardware;
mod machine;
mod matrix;
mod messages;
mod orders;
mod pci;
mod plain;
mod rfc;
mod second;
mod speed;
mod uart;

use crate::table::Kind;
use second::Second;

pub use behaviour::{Behaviour, behaviours};
pub use flood::FLOODS;
pub use hardware::Hardware;
pub use machine::Machine;
pub use rfc::RFC_CASES;
pub use second::{START, work};
pub use uart::Uart;

/// `blk,plain`, `blk,indirect`, `blk,messages`, `blk,behaviour`, `blk,flood` and so on.
fn cases_of(scenario: &str) -> Option<(Kind, &str)> {
    let (name, cases) = scenario.split_once(',')?;
    let (_, kind) = Kind::ALL.into_iter().find(|(other, _)| *other == name)?;
    Some((kind, cases))
}

/// Runs the scenario that the command line names, tells of it on the console, and powers off.
pub fn run(hardware: Hardware, start: u64, program: (u64, u64), second: &'static [u8]) -> ! {
    use core::fmt::Write;
    let Some(machine) = Machine::find(hardware, start, program) else { hardware.crash() };
    let mut uart = machine.console();
    let done = match machine.scenario("matrix") {
        Some("rfc") => rfc::run(&machine, &mut uart),
        Some("orders") => orders::run(&machine, &mut uart),
        Some("speed") => speed::run(&machine, &mut uart, second),
        Some(scenario) => match cases_of(scenario) {
            Some((kind, "messages")) => messages::run(&machine, &mut uart, kind),
            Some((kind, "behaviour")) => {
                behaviour::run(&machine, &mut uart, Second::new(hardware, second), kind)
            }
            Some((kind, "flood")) => flood::run(&machine, &mut uart, Second::new(hardware, second), kind),
            Some((kind, features)) => matrix::run(&machine, &mut uart, kind, features == "indirect"),
            None => Err("no such scenario"),
        },
        None => Err("no scenario"),
    };
    let _ = match done {
        Ok(cases) => writeln!(uart, "done: {cases} cases"),
        Err(why) => writeln!(uart, "FAILED: {why}"),
    };
    let (power, value) = machine.power_off;
    if power != 0 {
        hardware.write(power, value);
    }
    hardware.crash()
}
