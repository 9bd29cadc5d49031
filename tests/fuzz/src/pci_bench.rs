// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A PCI bus with virtio functions, and the model of both. After each access everything is compared: pools, registers of
//! configuration space that were read, messages, pins, windows.

use std::sync::{Arc, Mutex};

use cvmm_devices::bus::{Bus, BusDevice};
use cvmm_devices::pci::{ConfigPorts, Ecam, Message, PciBus, Slot};
use cvmm_devices::virtio::pci::{PciInterrupt, PciTransport};
use cvmm_devices::virtio::{Core, EventFds, Handle};
use cvmm_firmware::Range;

use crate::driver::{Driver, Setup};
use crate::echo::{Echo, Log};
use crate::memory::{BASE, Memory, SIZE, usize_of};
use crate::profile::Profile;
use crate::spec::core::half;
use crate::spec::pci::{BAR_SIZE, FIELDS, Function, QUEUES};
use crate::spec::queue::Layout;

/// Where configuration space is.
pub const ECAM: u64 = 0xe000_0000;
const ECAM_SIZE: u64 = 1 << 20;
/// Where BARs are at first.
const BARS: u64 = 0xc000_0000;
/// Where CPUs reach a function's memory.
const MEMORY: Range = Range::fixed(BASE, 16 * SIZE);

/// What the machine was told by a function.
#[derive(Debug, Default)]
struct Told {
    window: Option<Range>,
    memory: Option<Range>,
    routes: [Option<Message>; QUEUES + 1],
    pin: bool,
}

#[derive(Debug, Default)]
struct Notes(Mutex<Told>);

impl Slot for Notes {
    fn map(&self, window: Option<Range>) {
        self.0.lock().unwrap().window = window;
    }
    fn map_memory(&self, window: Option<Range>) -> bool {
        let window = window.filter(|window| MEMORY.contains(window));
        self.0.lock().unwrap().memory = window;
        window.is_some()
    }
    fn route(&self, vector: u16, message: Message) {
        self.0.lock().unwrap().routes[usize::from(vector)] = Some(message);
    }
    fn set_pin(&self, asserted: bool) {
        self.0.lock().unwrap().pin = asserted;
    }
}

/// A function, and what the machine has of it.
#[derive(Debug)]
struct Plugged {
    transport: Arc<PciTransport>,
    interrupt: Arc<PciInterrupt>,
    notifications: Arc<EventFds>,
    handle: Arc<Handle>,
    slot: Arc<Notes>,
    log: Log,
    model: Function,
    /// Where its BAR was before.
    was: u64,
}

/// See above. Functions are devices 1 and on.
#[derive(Debug)]
pub struct Bench {
    memory: Bus,
    ports: Bus,
    functions: Vec<Plugged>,
    bridge: Vec<u8>,
    /// The configuration address port.
    address: u32,
    /// The pool that all functions have.
    pub pool: Memory,
    /// The driver of one of them.
    pub driver: Driver,
}

impl Bench {
    /// A bus with that many functions; a pool in a BAR is for one.
    pub fn new(count: u8, profile: Profile) -> Self {
        assert!(count == 1 || !profile.on_device(), "each would move the pool of all");
        let mut pool = Memory::new();
        let (mut bus, mut functions) = (PciBus::default(), Vec::new());
        for number in 1..=count {
            let (slot, log) = (Arc::<Notes>::default(), Log::default());
            let queues = u16::try_from(QUEUES).expect("few");
            let interrupt = Arc::new(PciInterrupt::new(queues, slot.clone()).expect("eventfds"));
            let device = Box::new(Echo::new(QUEUES, &log));
            let core = Core::new("device", device, pool.gate().clone(), interrupt.clone())
                .with_restricted_dma(profile.restricted());
            let handle = Arc::clone(core.handle());
            let notifications = Arc::new(EventFds::new(QUEUES).expect("eventfds"));
            let bar = Range::fixed(BARS + BAR_SIZE * u64::from(number), BAR_SIZE);
            let transport =
                PciTransport::new(core, interrupt.clone(), notifications.clone(), slot.clone(), bar);
            let mut transport = transport.expect("it fits");
            if profile.on_device() {
                let memory = Range::fixed(MEMORY.base(), SIZE);
                transport = transport.with_device_memory(memory).expect("it is as large as the pool");
            }
            let transport = Arc::new(transport);
            bus.insert(number, transport.clone()).expect("it is free");
            let (model, was) = (Function::new(config_space(&*transport), profile), bar.base());
            functions.push(Plugged { transport, interrupt, notifications, handle, slot, log, model, was });
        }
        if profile.on_device() {
            pool.move_to(None);
        }
        let bus = Arc::new(bus);
        let (mut memory, mut ports) = (Bus::default(), Bus::default());
        memory.insert(Range::fixed(ECAM, ECAM_SIZE), Arc::new(Ecam(bus.clone()))).expect("room");
        memory.set_movable(bus.clone());
        ports.insert(Range::fixed(0xcf8, 8), Arc::new(ConfigPorts::new(bus))).expect("room");
        let mut bridge = vec![0; 256];
        (0..).zip(bridge.chunks_mut(4)).for_each(|(word, bytes)| memory.read(ECAM + 4 * word, bytes));
        let layouts = (0..QUEUES).map(|index| Setup::Good(4).layout(index)).collect();
        Self { memory, ports, functions, bridge, address: 0, pool, driver: Driver::new(layouts) }
    }

    /// The guest reads memory.
    pub fn read(&mut self, address: u64, len: usize) {
        let mut data = vec![0xa5; len];
        self.memory.read(address, &mut data);
        let expected = match self.target(address, len) {
            Target::Config(offset) => self.read_config(offset, 12, len),
            Target::Bar(function, offset) => self.functions[function].model.read_bar(offset, len),
            Target::Nothing => vec![0xff; len],
        };
        assert_eq!(data, expected, "{len} bytes at {address:#x}");
        self.check();
    }

    /// The guest writes memory.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        let target = self.target(address, data.len());
        self.memory.write(address, data);
        match target {
            Target::Config(offset) => self.write_config(offset, 12, data),
            Target::Bar(function, offset) => {
                self.functions[function].model.write_bar(offset, data, self.pool.shadow());
            }
            Target::Nothing => {}
        }
        self.work();
    }

    /// The guest reads a port from 0xcf8 on (PCI 3.0, 3.2.2.3.2).
    pub fn read_port(&mut self, port: u64, len: usize) {
        let mut data = vec![0xa5; len];
        self.ports.read(0xcf8 + port, &mut data);
        let expected = match self.port(port, len) {
            _ if (port, len) == (0, 4) => self.address.to_le_bytes().to_vec(),
            Some(offset) => self.read_config(offset, 8, len),
            None => vec![0xff; len],
        };
        assert_eq!(data, expected, "{len} bytes at port {:#x}", 0xcf8 + port);
        self.check();
    }

    /// The guest writes a port from 0xcf8 on.
    pub fn write_port(&mut self, port: u64, data: &[u8]) {
        self.ports.write(0xcf8 + port, data);
        match (self.port(port, data.len()), <[u8; 4]>::try_from(data)) {
            (_, Ok(address)) if port == 0 => self.address = u32::from_le_bytes(address) & 0x80ff_fffc,
            (Some(offset), _) => self.write_config(offset, 8, data),
            _ => {}
        }
        self.work();
    }

    /// Where the BAR of a function is, or would be.
    pub fn bar(&self, function: usize) -> u64 {
        self.functions[function].model.bar()
    }

    /// The configuration address that the data ports reach, if the access is to them.
    fn port(&self, port: u64, len: usize) -> Option<u64> {
        let whole = port + len as u64 <= 8 && len > 0;
        let enabled = self.address >> 31 == 1;
        (whole && enabled && port >= 4).then(|| u64::from(self.address & 0xff_fffc) + port - 4)
    }

    /// What answers an access to memory: configuration space before functions, and of these the first.
    fn target(&self, address: u64, len: usize) -> Target {
        let within = |base: u64, size: u64| {
            let end = u128::from(address) + len as u128;
            len > 0 && address >= base && end <= u128::from(base) + u128::from(size)
        };
        if within(ECAM, ECAM_SIZE) {
            return Target::Config(address - ECAM);
        }
        let mut functions = self.functions.iter().enumerate();
        let found = functions.find_map(|(number, function)| {
            let base = function.model.window().filter(|base| within(*base, BAR_SIZE))?;
            Some(Target::Bar(number, address - base))
        });
        found.unwrap_or(Target::Nothing)
    }

    /// Device number and register of a configuration address whose offset has that many bits.
    fn register(address: u64, bits: u32, len: usize) -> Option<(usize, usize)> {
        let offset = usize_of(address & ((1 << bits) - 1));
        let (bus, device, function) =
            (address >> (bits + 8), address >> (bits + 3) & 31, address >> bits & 7);
        let whole = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
        ((bus, function) == (0, 0) && whole).then(|| (usize_of(device), offset))
    }

    fn read_config(&mut self, address: u64, bits: u32, len: usize) -> Vec<u8> {
        let nothing = vec![0xff; len];
        let Some((device, offset)) = Self::register(address, bits, len) else { return nothing };
        if device == 0 {
            return (offset..offset + len).map(|at| self.bridge.get(at).copied().unwrap_or(0)).collect();
        }
        self.functions.get_mut(device - 1).map_or(nothing, |found| found.model.read_config(offset, len))
    }

    fn write_config(&mut self, address: u64, bits: u32, data: &[u8]) {
        if let Some((device, offset)) = Self::register(address, bits, data.len())
            && let Some(function) = device.checked_sub(1).and_then(|index| self.functions.get_mut(index))
        {
            let before = function.model.bar();
            function.model.write_config(offset, data, self.pool.shadow());
            if function.model.bar() != before {
                function.was = before;
            }
            if function.model.has_memory() {
                let reached = function.model.memory().and_then(|base| Range::new(base, SIZE));
                self.pool.move_to(reached.filter(|at| MEMORY.contains(at)).map(|at| at.base()));
            }
        }
    }

    /// The event loop: queues that were notified are served; no others.
    fn work(&mut self) {
        for Plugged { notifications, handle, log, model, .. } in &mut self.functions {
            let notified = std::mem::take(&mut model.notified);
            let real: Vec<_> = notifications.iter().map(|fd| fd.read().is_ok()).collect();
            assert_eq!(real, notified, "queues that were notified");
            for queue in (0..QUEUES).filter(|queue| notified[*queue]) {
                let more = handle.serve(u16::try_from(queue).expect("few"));
                let mut read = Vec::new();
                assert_eq!(model.serve(queue, self.pool.shadow(), &mut read), more, "more to do");
                assert_eq!(std::mem::take(&mut *log.lock().unwrap()), read, "what the device read");
            }
        }
        self.pool.check();
        self.check();
        self.probe();
    }

    /// Who answers where the BARs are, and where they were: the last bytes belong to no structure, so nothing happens.
    fn probe(&self) {
        for base in self.functions.iter().flat_map(|function| [function.model.bar(), function.was]) {
            let at = base + (BAR_SIZE - 1);
            let mut byte = [0xa5];
            self.memory.read(at, &mut byte);
            let expected = match self.target(at, 1) {
                // Which register of configuration space that is does not matter here.
                Target::Config(_) => continue,
                Target::Bar(..) => 0,
                Target::Nothing => 0xff,
            };
            assert_eq!(byte, [expected], "who answers at {at:#x}");
        }
    }

    fn check(&mut self) {
        let mut refusals = 0;
        for Plugged { transport, interrupt, slot, model, .. } in &mut self.functions {
            let told = slot.0.lock().unwrap();
            assert_eq!(told.window.map(|window| window.base()), model.window(), "where the BAR is");
            assert_eq!(
                told.memory.map(|at| at.base()),
                self.pool.base().filter(|_| model.has_memory()),
                "where BAR 2 is"
            );
            assert_eq!(told.pin, model.pin(), "the interrupt pin");
            for (offset, len) in FIELDS {
                let mut data = [0xa5; 4];
                transport.read(offset, &mut data[..len]);
                assert_eq!(
                    data[..len],
                    model.read_bar(offset, len),
                    "the common configuration at {offset:#x}"
                );
            }
            let mut number = 0;
            let look = |vector: u16, fd: &vmm_sys_util::eventfd::EventFd| {
                let entry = &mut model.msix.vectors[usize::from(vector)];
                let told = told.routes[usize::from(vector)].map(|route| (route.address, route.data));
                assert_eq!(told, entry.route, "the message of vector {vector}");
                let sent = std::mem::take(&mut entry.sent);
                assert_eq!(fd.read().unwrap_or(0), sent, "messages of vector {vector}");
                number += 1;
                Ok::<_, ()>(())
            };
            interrupt.for_each_vector(look).expect("it does not fail");
            assert_eq!(number, QUEUES + 1, "vectors");
            transport.with_core(|core| model.core.check_registers(core));
            refusals += model.core.refusals;
        }
        // The functions share a pool, and thereby its account.
        assert_eq!(self.pool.gate().audit().refusals().total, refusals, "refusals");
    }

    /// The steps of an initialisation of the first function, without the one that has this number.
    pub fn initialise(&mut self, without: u16, setup: Setup) {
        let chosen = |step: u16| without % 16 != step;
        let device = ECAM + (1 << 15);
        let feature = if chosen(10) { self.functions[0].model.core.feature() } else { 0 };
        if chosen(0) {
            self.write(device + 4, &6u16.to_le_bytes());
        }
        if chosen(9) {
            self.write(self.msix_control(0) + 1, &[0x80]);
        }
        let (bar, moved) = (self.bar(0), self.pool.now(0));
        let mut write = |step, field: u64, len: usize, value: u32| {
            if chosen(step) {
                self.write(bar + field, &value.to_le_bytes()[..len]);
            }
        };
        write(1, 0x14, 1, 0);
        write(2, 0x14, 1, 1);
        write(2, 0x14, 1, 3);
        write(3, 0x08, 4, 0);
        write(3, 0x0c, 4, half(feature, 0) | if chosen(8) { 0x3000_0021 } else { 1 });
        write(3, 0x08, 4, 1);
        write(3, 0x0c, 4, half(feature, 1) | 3);
        write(4, 0x14, 1, 11);
        for queue in [0, 1] {
            let mut layout = setup.layout(usize::from(queue == 1));
            layout.areas = layout.areas.map(|area| area.wrapping_add(moved));
            write(5, 0x16, 2, queue);
            write(5, 0x18, 2, layout.size.into());
            for (field, area) in [0x20, 0x28, 0x30].into_iter().zip(layout.areas) {
                write(5, field, 4, half(area, 0));
                write(5, field + 4, 4, half(area, 1));
            }
            write(6, 0x1a, 2, queue);
            write(6, 0x4000 + 16 * u64::from(queue), 4, 0xfee0_0000);
            write(6, 0x4008 + 16 * u64::from(queue), 4, 0x20 + queue);
            write(6, 0x400c + 16 * u64::from(queue), 4, 0);
            write(5, 0x1c, 2, 1);
        }
        write(6, 0x10, 2, 2);
        write(7, 0x14, 1, 15);
        let home =
            |layout: Layout| Layout { areas: layout.areas.map(|area| area.wrapping_sub(moved)), ..layout };
        let layouts = self.functions[0].model.core.queues.iter().map(|queue| home(queue.layout)).collect();
        self.driver = Driver::new(layouts);
    }

    /// The guest writes BAR 2 of the first function: so many times its size past where CPUs begin to reach it.
    pub fn move_memory(&mut self, slots: i64) {
        let base = MEMORY.base().wrapping_add_signed(slots * i64::try_from(SIZE).expect("small"));
        for (register, select) in [(0x18, 0), (0x1c, 1)] {
            self.write(ECAM + (1 << 15) + register, &half(base, select).to_le_bytes());
        }
    }

    /// Where message control of MSI-X is, in memory.
    pub fn msix_control(&self, function: u8) -> u64 {
        self.capabilities(function)[0]
    }

    /// Where the access capability is, in memory.
    pub fn access_capability(&self, function: u8) -> u64 {
        self.capabilities(function)[1]
    }

    fn capabilities(&self, function: u8) -> [u64; 2] {
        let device = ECAM + (u64::from(function + 1) << 15);
        let (control, access) = self.functions[usize::from(function)].model.capabilities();
        [device + control as u64, device + access as u64]
    }
}

enum Target {
    Config(u64),
    Bar(usize, u64),
    Nothing,
}

/// Configuration space after power-on, when a read of pci_cfg_data does nothing yet.
fn config_space(function: &dyn cvmm_devices::pci::Function) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    for (word, bytes) in bytes.chunks_mut(4).enumerate() {
        function.read_config(4 * word, bytes);
    }
    bytes
}
