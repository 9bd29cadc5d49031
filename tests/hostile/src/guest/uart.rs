// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The console.

use core::fmt;

use super::Hardware;

/// A UART that always has room.
#[derive(Debug)]
pub struct Uart {
    hardware: Hardware,
    transmit: u64,
}

impl Uart {
    /// The UART whose registers are at `registers`.
    #[must_use]
    pub fn new(hardware: Hardware, registers: u64) -> Self {
        Self { hardware, transmit: registers }
    }
}

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.hardware.write(self.transmit, byte);
        }
        Ok(())
    }
}
