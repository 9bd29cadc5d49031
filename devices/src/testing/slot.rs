// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A slot of a PCI bus that notes what it is told.

use std::sync::Mutex;

use cvmm_firmware::Range;

use crate::pci::{Message, Slot};

/// What a slot was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Map(Option<Range>),
    Memory(Option<Range>),
    Route(u16, Message),
    Pin(bool),
}

/// Notes what it is told. Nothing that the last call said already may be said again.
#[derive(Debug, Default)]
pub(crate) struct RecordingSlot {
    told: Mutex<Vec<Told>>,
    state: Mutex<(Option<Range>, bool)>,
    memory: Mutex<Option<Range>>,
}

/// Where a function's memory can be.
const BARS: Range = Range::fixed(0xc000_0000, 0x1000_0000);

impl RecordingSlot {
    /// What it was told since the last call.
    pub(crate) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    /// The routes among that.
    pub(crate) fn take_routes(&self) -> Vec<(u16, Message)> {
        let route =
            |told| if let Told::Route(vector, message) = told { Some((vector, message)) } else { None };
        self.take().into_iter().filter_map(route).collect()
    }

    /// Whether the interrupt pin is asserted.
    pub(crate) fn pin(&self) -> bool {
        self.state.lock().unwrap().1
    }

    /// Where the function's BAR is.
    pub(crate) fn window(&self) -> Option<Range> {
        self.state.lock().unwrap().0
    }

    /// Where the function's memory is.
    pub(crate) fn memory(&self) -> Option<Range> {
        *self.memory.lock().unwrap()
    }

    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }
}

impl Slot for RecordingSlot {
    fn map(&self, window: Option<Range>) {
        let old = std::mem::replace(&mut self.state.lock().unwrap().0, window);
        assert_ne!(old, window, "told twice");
        self.note(Told::Map(window));
    }

    fn map_memory(&self, window: Option<Range>) -> bool {
        self.note(Told::Memory(window));
        let mut memory = self.memory.lock().unwrap();
        *memory = window.filter(|window| BARS.contains(window));
        memory.is_some()
    }

    fn route(&self, vector: u16, message: Message) {
        self.note(Told::Route(vector, message));
    }

    fn set_pin(&self, asserted: bool) {
        let old = std::mem::replace(&mut self.state.lock().unwrap().1, asserted);
        assert_ne!(old, asserted, "told twice");
        self.note(Told::Pin(asserted));
    }
}
