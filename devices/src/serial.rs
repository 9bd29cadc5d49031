// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The console: a 16550 UART, by the vm-superio crate.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;

/// Its registers, one byte apart.
pub const REGISTERS: usize = 8;
/// Bytes of its register window.
pub const WINDOW_SIZE: u64 = REGISTERS as u64;

// Registers and bits of a 16550 (National Semiconductor PC16550D, table II).
const DATA: u8 = 0;
const IER: u8 = 1;
const IER_RECEIVED_DATA: u8 = 1;
const IER_ALL: u8 = 0xf;
const LCR: u8 = 3;
const LCR_DIVISOR_LATCH: u8 = 1 << 7;
const MCR: u8 = 4;
const MCR_REQUEST_TO_SEND: u8 = 1 << 1;
const MCR_LOOP: u8 = 1 << 4;
const LSR: u8 = 5;
const LSR_DATA_READY: u8 = 1;

/// Reads of the line status in a row that show a guest without interrupts waiting for input. Linux never makes as many: it
/// reads the line status once for each byte that it sends.
const POLLS: u8 = 16;

/// An irqfd as vm-superio wants it.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Wakes whoever holds back input, when the guest can take some.
struct Ready(EventFd);

impl Ready {
    fn wake(&self) {
        // Fails only if 2^64 - 2 wake-ups are pending.
        let _ = self.0.write(1);
    }
}

impl SerialEvents for Ready {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        self.wake();
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

/// Memory in which the guest reads the registers without an exit, as long as nothing but its own writes changes them.
pub trait RegisterPage: Send {
    /// What it reads from now on.
    fn show(&self, registers: [u8; REGISTERS]);
    /// When this returns, its reads are exits, and they stay so.
    fn close(self: Box<Self>);
}

struct Uart {
    registers: Serial<Line, Ready, Sent>,
    page: Option<Box<dyn RegisterPage>>,
    /// Somebody has had input for the guest.
    input_came: bool,
    /// The guest has said "request to send" (MCR) before, so that it means something when it takes that back.
    uses_rts: bool,
    /// All interrupts were enabled at once, and no other register was used since. So Linux finds out what kind of UART it is
    /// (8250_port.c, `autoconfig`), and empties it afterwards.
    may_probe: bool,
    /// Reads of the line status in a row, without another access.
    polls: u8,
    listens: bool,
}

impl Uart {
    /// Whether the guest would read a byte that it got now. A driver that sets the UART up empties it first, and Linux reads
    /// the data register then without looking whether anything is there; so input waits until the guest has asked for
    /// interrupts, or polls. "Request to send" is what the driver takes back when it has no more room.
    fn would_read(&mut self) -> bool {
        if self.polls >= POLLS {
            return true;
        }
        // Where the divisor is, in place of the interrupt enable register, the driver sets the UART up.
        if self.registers.read(LCR) & LCR_DIVISOR_LATCH != 0 {
            return false;
        }
        let (interrupts, modem) = (self.registers.read(IER), self.registers.read(MCR));
        let ready = modem & MCR_REQUEST_TO_SEND != 0;
        self.uses_rts |= ready;
        let wants = interrupts & IER_RECEIVED_DATA != 0 && !self.may_probe;
        modem & MCR_LOOP == 0 && wants && (ready || !self.uses_rts)
    }

    /// Shows the guest the registers after its write, while reading them means nothing: there are no interrupts and there is
    /// no input. (A guest that polls for input is known by its reads.) Linux's early console waits for the transmitter before
    /// each byte; this makes one exit of two.
    fn show(&mut self) {
        let Some(page) = &self.page else { return };
        let divisor = self.registers.read(LCR) & LCR_DIVISOR_LATCH != 0;
        let interrupts = !divisor && self.registers.read(IER) != 0;
        if interrupts || self.input_came || self.registers.read(LSR) & LSR_DATA_READY != 0 {
            return self.close_page();
        }
        // The data register has nothing, and reading it tells the one who holds back input.
        page.show([0, 1, 2, 3, 4, 5, 6, 7].map(|register| match register {
            DATA if !divisor => 0,
            register => self.registers.read(register),
        }));
    }

    fn close_page(&mut self) {
        if let Some(page) = self.page.take() {
            page.close();
        }
    }

    /// Before an access of `register`.
    fn begin(&mut self, register: u8) {
        if register != IER && std::mem::take(&mut self.may_probe) {
            self.look();
        }
    }

    fn look(&mut self) {
        let before = std::mem::replace(&mut self.listens, false);
        self.listens = self.would_read();
        if self.listens && !before {
            self.registers.events().wake();
        }
    }
}

/// A UART whose output goes to a writer and whose input comes from [`Console::input`].
///
/// The writer may block for as long as nobody reads the console. Only the vCPU that sends waits for it: registers and
/// input have a lock of their own.
pub struct Console {
    uart: Mutex<Uart>,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Console {
    /// A UART that pulses `line`, writes what the guest sends to `out`, and signals `ready` when the guest can take input.
    pub fn new(line: EventFd, ready: EventFd, out: Box<dyn Write + Send>) -> Self {
        let registers = Serial::with_events(Line(line), Ready(ready), Sent::default());
        let uart = Uart {
            registers,
            page: None,
            input_came: false,
            uses_rts: false,
            may_probe: false,
            polls: 0,
            listens: false,
        };
        Self { uart: Mutex::new(uart), out: Mutex::new(out) }
    }

    /// Lets the guest read registers in `page` until it wants input or interrupts.
    pub fn read_in(&self, page: Box<dyn RegisterPage>) {
        let mut uart = self.lock();
        uart.page = Some(page);
        uart.show();
    }

    /// Closes the page, if it is still open.
    pub fn close_page(&self) {
        self.lock().close_page();
    }

    /// How many bytes of input it can take now: none while the guest does not listen.
    pub fn input_room(&self) -> usize {
        let uart = self.lock();
        if uart.listens { uart.registers.fifo_capacity() } else { 0 }
    }

    /// Whether there is input that the guest has not read. When it has read the last of it, it signals `ready`.
    pub fn has_input(&self) -> bool {
        self.lock().registers.read(LSR) & LSR_DATA_READY != 0
    }

    /// Hands `bytes` to the guest, and returns how many of them it took.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut uart = self.lock();
        uart.input_came = true;
        uart.show();
        if !uart.listens {
            return 0;
        }
        // An error is a full FIFO.
        uart.registers.enqueue_raw_bytes(bytes).unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BusDevice for Console {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut uart = self.lock();
        // A wider access is one of several registers, as it is in a page.
        for (byte, register) in data.iter_mut().zip(offset..) {
            let Ok(register) = u8::try_from(register) else { return };
            uart.begin(register);
            *byte = uart.registers.read(register);
            uart.polls = if register == LSR { uart.polls.saturating_add(1) } else { 0 };
            if uart.polls == POLLS {
                uart.look();
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (&[byte], Ok(register)) = (data, u8::try_from(offset)) {
            let mut uart = self.lock();
            uart.polls = 0;
            uart.begin(register);
            let interrupts = uart.registers.read(IER);
            // Fails only if 2^64 - 2 interrupts are pending.
            let _ = uart.registers.write(register, byte);
            // With the divisor in its place, it is not listened to in any case.
            if register == IER {
                uart.may_probe = interrupts == 0 && byte & IER_ALL == IER_ALL;
            }
            if matches!(register, IER | LCR | MCR) {
                uart.look();
            }
            let sent = uart.registers.writer_mut().0.take();
            // A byte that leaves at once changes no register.
            if register != DATA || sent.is_none() {
                uart.show();
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    struct Bench {
        console: Console,
        ready: EventFd,
    }

    impl Bench {
        fn new() -> Self {
            let event = || EventFd::new(EFD_NONBLOCK).unwrap();
            let ready = event();
            let console = Console::new(event(), ready.try_clone().unwrap(), Box::new(io::sink()));
            Self { console, ready }
        }

        fn write(&self, register: u8, byte: u8) {
            self.console.write(register.into(), &[byte]);
        }

        fn read(&self, register: u8) -> u8 {
            let mut byte = [0];
            self.console.read(register.into(), &mut byte);
            byte[0]
        }

        /// Whether somebody was woken since the last look.
        fn woken(&self) -> bool {
            self.ready.read().is_ok()
        }
    }

    /// What is in the data register when a driver empties it is not what was typed.
    #[test]
    fn input_waits_until_the_driver_asks_for_interrupts() {
        let bench = Bench::new();
        assert_eq!((bench.console.input_room(), bench.console.input(b"early")), (0, 0));
        bench.read(0);
        let _ = bench.woken();
        bench.write(IER, IER_RECEIVED_DATA);
        assert!(bench.woken());
        assert_eq!(bench.console.input(b"ab"), 2);
        assert_eq!((bench.read(0), bench.read(0)), (b'a', b'b'));
        // A driver looks what kind of UART it is, and did not want input.
        bench.write(IER, 0);
        bench.write(MCR, MCR_REQUEST_TO_SEND);
        bench.write(IER, IER_ALL);
        assert_eq!((bench.read(IER), bench.console.input(b"p")), (IER_ALL, 0));
        bench.write(IER, 0);
        assert_eq!((bench.read(0), bench.console.input(b"p")), (0, 0));
        // One that goes on with it does.
        bench.write(IER, IER_ALL);
        let _ = bench.woken();
        bench.read(2);
        assert!(bench.woken());
        assert_eq!((bench.console.input(b"p"), bench.read(0)), (1, b'p'));
        // The port is closed, and what is typed meanwhile waits for the next one who opens it.
        bench.write(IER, 0);
        assert_eq!(bench.console.input(b"c"), 0);
    }

    #[test]
    fn input_waits_while_the_divisor_is_set_or_the_uart_talks_to_itself() {
        let bench = Bench::new();
        bench.write(IER, IER_RECEIVED_DATA);
        for (register, on, off) in [(LCR, LCR_DIVISOR_LATCH | 3, 3), (MCR, MCR_LOOP, 0)] {
            bench.write(register, on);
            assert_eq!(bench.console.input_room(), 0);
            let _ = bench.woken();
            bench.write(register, off);
            assert!(bench.woken() && bench.console.input_room() > 0);
        }
    }

    /// A driver that uses "request to send" takes it back when its own buffers are full.
    #[test]
    fn input_waits_while_there_is_no_request_to_send() {
        let bench = Bench::new();
        bench.write(IER, IER_RECEIVED_DATA);
        bench.write(MCR, MCR_REQUEST_TO_SEND);
        assert!(bench.console.input_room() > 0);
        bench.write(MCR, 0);
        assert_eq!((bench.console.input_room(), bench.console.input(b"x")), (0, 0));
        let _ = bench.woken();
        bench.write(MCR, MCR_REQUEST_TO_SEND);
        assert!(bench.woken());
        assert_eq!(bench.console.input(b"x"), 1);
    }

    #[test]
    fn a_guest_that_polls_listens() {
        let bench = Bench::new();
        for poll in 1..=POLLS {
            assert!(!bench.woken(), "{poll}");
            bench.read(LSR);
        }
        assert!(bench.woken());
        assert_eq!(bench.console.input(b"p"), 1);
        // What it reads then is the input, and it goes on polling.
        assert_eq!(bench.read(0), b'p');
    }

    /// More than there is room for is not taken.
    #[test]
    fn nothing_is_lost_in_a_full_fifo() {
        let bench = Bench::new();
        bench.write(IER, IER_RECEIVED_DATA);
        let room = bench.console.input_room();
        let bytes = vec![7; room + 9];
        assert_eq!(bench.console.input(&bytes), room);
        assert_eq!((bench.console.input(&bytes), bench.console.input_room()), (0, 0));
    }

    /// The registers, and how often they were changed.
    type Contents = ([u8; REGISTERS], u32);

    /// What a page shows; `None`: it is closed.
    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Option<Contents>>>);

    impl Shown {
        fn get(&self) -> Option<Contents> {
            *self.0.lock().unwrap()
        }
    }

    impl RegisterPage for Shown {
        fn show(&self, registers: [u8; REGISTERS]) {
            let mut shown = self.0.lock().unwrap();
            let changes = shown.map_or(0, |(_, changes)| changes);
            *shown = Some((registers, changes + 1));
        }

        fn close(self: Box<Self>) {
            *self.0.lock().unwrap() = None;
        }
    }

    fn with_page() -> (Bench, Shown) {
        let (bench, shown) = (Bench::new(), Shown::default());
        bench.console.read_in(Box::new(shown.clone()));
        (bench, shown)
    }

    /// A driver finds in the page what it would read by exits, whatever it has written.
    #[test]
    fn a_page_shows_the_registers() {
        const SCRATCH: u8 = 7;
        let (bench, shown) = with_page();
        let all = || [0, 1, 2, 3, 4, 5, 6, 7].map(|register| bench.read(register));
        let dlab = LCR_DIVISOR_LATCH | 3;
        for (register, byte) in [
            (LCR, 3),
            (SCRATCH, 0x5a),
            (LCR, dlab),
            (DATA, 0x12),
            (IER, 0xff),
            (LCR, 3),
            (MCR, MCR_LOOP | MCR_REQUEST_TO_SEND),
            (MCR, MCR_REQUEST_TO_SEND),
            (2, 7),
            (IER, 0),
        ] {
            bench.write(register, byte);
            let before = shown.get().unwrap().0;
            assert_eq!((before, shown.get().unwrap().0), (all(), before), "{register}, {byte:#x}");
        }
        assert_eq!(shown.get().unwrap().0[usize::from(LSR)], 0x60, "the transmitter is empty");
        // Wider accesses, too, find the same in it.
        let mut wide = [0; 4];
        bench.console.read(u64::from(MCR), &mut wide);
        assert_eq!(wide, shown.get().unwrap().0[usize::from(MCR)..]);
        // Nothing is done for each byte of output.
        let (_, changes) = shown.get().unwrap();
        b"output".iter().for_each(|byte| bench.write(DATA, *byte));
        assert_eq!(shown.get().unwrap().1, changes);
    }

    /// Reading changes registers as soon as there are interrupts or input.
    #[test]
    fn a_page_is_closed_before_reading_changes_registers() {
        for interrupts in [IER_RECEIVED_DATA, 2, 0xf] {
            let (bench, shown) = with_page();
            bench.write(IER, interrupts);
            assert_eq!(shown.get(), None, "interrupts {interrupts}");
        }
        let (bench, shown) = with_page();
        bench.write(MCR, MCR_LOOP);
        bench.write(DATA, 7);
        assert_eq!((shown.get(), bench.read(DATA)), (None, 7), "the UART talks to itself");
        let (bench, shown) = with_page();
        assert_eq!((bench.console.input(b"x"), shown.get()), (0, None));
        // There was input before there was a page.
        bench.console.read_in(Box::new(shown.clone()));
        assert_eq!(shown.get(), None);
        // It stays closed.
        bench.write(IER, 0);
        assert_eq!(shown.get(), None);
    }
}
