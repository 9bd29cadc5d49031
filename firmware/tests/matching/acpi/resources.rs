// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resource descriptors of a `_CRS` (ACPI 6.5, 6.4; as ASL: 19.6).

use super::asl::Term;
use crate::model::{Line, Polarity, Trigger, Window};

/// A resource.
#[derive(Debug, PartialEq)]
pub enum Resource {
    /// Memory that the device takes: registers.
    Registers(Window),
    /// Memory that the device takes: RAM.
    Ram(Window),
    /// Memory that a bridge passes on, not prefetchable, at the same address on both sides.
    Passed(Window),
    /// Bus numbers, first and last.
    Buses(u64, u64),
    /// I/O ports that the device takes.
    Ports(Window),
    /// An interrupt line that is the device's alone.
    Line(Line),
}

/// The resources of a `ResourceTemplate`.
pub fn resources(template: &Term) -> Vec<Resource> {
    let ("ResourceTemplate", [], descriptors) = template.call() else { panic!("no template: {template:?}") };
    descriptors.iter().map(resource).collect()
}

fn resource(descriptor: &Term) -> Resource {
    let (operator, arguments, body) = descriptor.call();
    let words: Vec<_> = arguments.iter().filter_map(keyword).collect();
    let numbers: Vec<_> = arguments.iter().filter_map(number).collect();
    let memory = ["AddressRangeMemory", "TypeStatic"];
    match (operator, &words[..], &numbers[..], body) {
        ("Memory32Fixed", ["ReadWrite"], [base, size], []) => Resource::Registers(Window::new(*base, *size)),
        (
            "DWordMemory" | "QWordMemory",
            [usage, "PosDecode", "MinFixed", "MaxFixed", caching, "ReadWrite", rest @ ..],
            [granularity, first, last, translation, length],
            [],
        ) if rest == memory => {
            let window = whole(*granularity, *first, *last, *translation, *length);
            match (*usage, *caching) {
                ("ResourceProducer", "NonCacheable") => Resource::Passed(window),
                ("ResourceConsumer", "NonCacheable") => Resource::Registers(window),
                ("ResourceConsumer", "Cacheable") => Resource::Ram(window),
                other => panic!("memory that the reader does not know: {other:?} in {descriptor:?}"),
            }
        }
        (
            "WordBusNumber",
            ["ResourceProducer", "MinFixed", "MaxFixed", "PosDecode"],
            [granularity, first, last, translation, length],
            [],
        ) => {
            let window = whole(*granularity, *first, *last, *translation, *length);
            Resource::Buses(window.base, window.last())
        }
        ("IO", ["Decode16"], [first, last, 1, length], []) => {
            assert_eq!(first, last, "ports that can be elsewhere: {descriptor:?}");
            Resource::Ports(Window::new(*first, *length))
        }
        ("Interrupt", ["ResourceConsumer", trigger, polarity, "Exclusive"], [], [pin]) => {
            Resource::Line(line(pin, trigger, polarity))
        }
        _ => panic!("a descriptor that the reader does not know: {descriptor:?}"),
    }
}

/// A window that is where it is, and not translated.
fn whole(granularity: u64, first: u64, last: u64, translation: u64, length: u64) -> Window {
    let window = Window::from_bounds(first, last);
    assert_eq!((granularity, translation, length), (0, 0, window.size), "granularity, translation, length");
    window
}

fn line(pin: &Term, trigger: &str, polarity: &str) -> Line {
    let trigger = match trigger {
        "Edge" => Trigger::Edge,
        "Level" => Trigger::Level,
        other => panic!("no trigger: {other}"),
    };
    let polarity = match polarity {
        "ActiveHigh" => Polarity::High,
        "ActiveLow" => Polarity::Low,
        other => panic!("no polarity: {other}"),
    };
    Line { pin: u32::try_from(pin.integer()).expect("32 bits"), trigger, polarity }
}

fn keyword(argument: &Term) -> Option<&str> {
    match argument {
        Term::Name(word) => Some(word),
        Term::Integer(_) | Term::Absent => None,
        // A source of the resource, or worse.
        other => panic!("an argument that the reader does not know: {other:?}"),
    }
}

fn number(argument: &Term) -> Option<u64> {
    match argument {
        Term::Integer(value) => Some(*value),
        _ => None,
    }
}
