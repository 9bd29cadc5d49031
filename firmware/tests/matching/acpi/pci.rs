// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A PCI root bridge (ACPI 6.5, 6.2.13, 6.5.5, 6.5.6; PCI Firmware Specification 3.3, 4.3).

use super::asl::Term;
use super::devices::coherent;
use super::namespace::Object;
use super::resources::{Resource, resources};
use crate::model::{Line, Polarity, Routes, Trigger, Window};

/// A PCI root bridge.
pub struct Root {
    pub path: String,
    pub buses: (u8, u8),
    pub config_ports: Window,
    pub memory: Vec<Window>,
    /// Every line of every device number.
    pub routes: Routes,
    pub coherent: bool,
}

impl Root {
    /// Segment 0, bus numbers from 0 on.
    pub fn read(object: &mut Object) -> Self {
        assert_eq!(object.identifier("_CID").as_deref(), Some("PNP0A03"), "{}", object.path);
        object.expect("_SEG", 0);
        object.expect("_BBN", 0);
        let coherent = coherent(object);
        let routes = routes(&object.take("_PRT"));
        let (mut buses, mut config_ports, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for resource in resources(&object.take("_CRS")) {
            match resource {
                Resource::Buses(first, last) => buses.push((small(first), small(last))),
                Resource::Ports(ports) => config_ports.push(ports),
                Resource::Passed(window) => memory.push(window),
                other => panic!("{}: a bridge has no {other:x?}", object.path),
            }
        }
        let ([buses], [config_ports]) = (&buses[..], &config_ports[..]) else {
            panic!("{}: one range of buses, one of ports: {buses:?}, {config_ports:?}", object.path)
        };
        let (buses, config_ports) = (*buses, *config_ports);
        Self { path: object.path.clone(), buses, config_ports, memory, routes, coherent }
    }
}

/// Each entry: address with all functions, pin, source, index. Without a source the index is the global system interrupt,
/// which is then level-triggered and active low.
fn routes(table: &Term) -> Routes {
    let mut routes = Routes::new();
    for entry in table.package() {
        let numbers: Vec<_> = entry.package().iter().map(Term::integer).collect();
        let [address, pin @ 0..4, 0, interrupt] = numbers[..] else { panic!("_PRT: {numbers:x?}") };
        assert_eq!(address & 0xffff, 0xffff, "_PRT: all functions: {numbers:x?}");
        let at = (small(address >> 16), small(pin));
        let pin = u32::try_from(interrupt).expect("a global system interrupt has 32 bits");
        let line = Line { pin, trigger: Trigger::Level, polarity: Polarity::Low };
        assert!(routes.insert(at, line).is_none(), "_PRT: {at:?} twice");
    }
    routes
}

fn small(number: u64) -> u8 {
    u8::try_from(number).unwrap_or_else(|_| panic!("too large: {number:#x}"))
}
