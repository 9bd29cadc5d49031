// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The console: a 16550.

use core::fmt;

use super::Hardware;

/// Line status register: its offset, and the bit that says there is data in the receiver buffer register.
const LINE_STATUS: u8 = 5;
const DATA_READY: u8 = 1;

/// Where a UART's registers are.
#[derive(Clone, Copy, Debug)]
pub enum Registers {
    /// In memory.
    Memory(u64),
    /// From this port on.
    Ports(u16),
}

/// A UART that always has room.
#[derive(Debug)]
pub struct Uart {
    hardware: Hardware,
    registers: Registers,
}

impl Uart {
    /// The UART whose registers are at `registers`.
    #[must_use]
    pub fn new(hardware: Hardware, registers: Registers) -> Self {
        Self { hardware, registers }
    }

    fn read(&self, register: u8) -> u8 {
        match self.registers {
            Registers::Memory(base) => self.hardware.read(base + u64::from(register)),
            Registers::Ports(base) => self.hardware.port_read(base + u16::from(register)),
        }
    }

    /// A line that was typed, without its end.
    pub(super) fn read_line<'b>(&self, buffer: &'b mut [u8; 80]) -> &'b str {
        let mut length = 0;
        loop {
            while self.read(LINE_STATUS) & DATA_READY == 0 {
                core::hint::spin_loop();
            }
            match self.read(0) {
                b'\n' => break,
                byte => {
                    if let Some(place) = buffer.get_mut(length) {
                        *place = byte;
                        length += 1;
                    }
                }
            }
        }
        buffer.get(..length).and_then(|line| core::str::from_utf8(line).ok()).unwrap_or_default()
    }
}

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match self.registers {
                Registers::Memory(base) => self.hardware.write(base, byte),
                Registers::Ports(base) => self.hardware.port_write(base, byte),
            }
        }
        Ok(())
    }
}
