// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The console: a 16550 UART, by the vm-superio crate.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;

/// Bytes of its register window: eight registers, one byte apart.
pub const WINDOW_SIZE: u64 = 8;

/// An irqfd as vm-superio wants it.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Wakes whoever holds back input once the guest has read all of it.
struct Drained(EventFd);

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        // Fails only if 2^64 - 2 wake-ups are pending.
        let _ = self.0.write(1);
    }
}

/// The byte that the guest just sent: it leaves the UART before anybody waits for the other end of the console.
#[derive(Default)]
struct Sent(Option<u8>);

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = bytes.last().copied();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Uart = Serial<Line, Drained, Sent>;

/// A UART whose output goes to a writer and whose input comes from [`Console::input`].
///
/// The writer may block for as long as nobody reads the console. Only the vCPU that sends waits for it: registers and
/// input have a lock of their own.
pub struct Console {
    uart: Mutex<Uart>,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Console {
    /// A UART that pulses `line`, writes what the guest sends to `out`, and signals `drained` when the guest has read
    /// all input.
    pub fn new(line: EventFd, drained: EventFd, out: Box<dyn Write + Send>) -> Self {
        let uart = Serial::with_events(Line(line), Drained(drained), Sent::default());
        Self { uart: Mutex::new(uart), out: Mutex::new(out) }
    }

    /// How many bytes of input it can take now.
    pub fn input_room(&self) -> usize {
        self.lock().fifo_capacity()
    }

    /// Hands `bytes` to the guest; those that do not fit are lost.
    pub fn input(&self, bytes: &[u8]) {
        // A full FIFO, or loop-back mode: the bytes are the guest's loss.
        let _ = self.lock().enqueue_raw_bytes(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BusDevice for Console {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let ([byte], Ok(register)) = (data, u8::try_from(offset)) {
            *byte = self.lock().read(register);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (&[byte], Ok(register)) = (data, u8::try_from(offset)) {
            let mut uart = self.lock();
            // Fails only if 2^64 - 2 interrupts are pending.
            let _ = uart.write(register, byte);
            let sent = uart.writer_mut().0.take();
            drop(uart);
            if let Some(byte) = sent {
                let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
                // The other end of the console is gone or full: the guest is not to blame and must not notice.
                let _ = out.write_all(&[byte]);
            }
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}
