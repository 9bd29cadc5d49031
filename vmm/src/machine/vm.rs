// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A KVM virtual machine: interrupt controllers, buses, devices, and the wires between them.

use std::fmt::Display;
use std::io::Write;
use std::sync::{Arc, Mutex};

use cvmm_arch::native::ioapic::IoApic;
use cvmm_arch::native::irq::Routes;
use cvmm_arch::native::{self, layout};
use cvmm_devices::bus::{Bus, BusDevice};
use cvmm_devices::pci::{ConfigPorts, Ecam, PciBus, Slot};
use cvmm_devices::pool::{Gate, Pool};
use cvmm_devices::power::{Handler, KeyboardReset, PowerControl, PvPanic, ResetControl, SleepRegisters};
use cvmm_devices::serial::Console;
use cvmm_devices::virtio::mmio::{MmioInterrupt, MmioTransport, QUEUE_NOTIFY};
use cvmm_devices::virtio::pci::{PciInterrupt, PciTransport};
use cvmm_devices::virtio::{Core, DeviceType, EventFds, RestrictedDma, Worker};
use cvmm_firmware::{Interrupt, Machine, PciHost, Range, Transport, VirtioDevice};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device_memory::{DeviceMemory, memory_name};
use super::memory::map_pool;
use super::slot::KvmSlot;
use super::{Opened, SealedMemory};
use crate::config::PoolConfig;
use crate::{Error, Result};

/// A virtio device of a running machine.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its registers, and through them its core.
    pub transport: DeviceTransport,
}

/// The registers of a device.
#[derive(Debug)]
pub enum DeviceTransport {
    /// On MMIO.
    Mmio(Arc<MmioTransport>),
    /// On PCI.
    Pci(Arc<PciTransport>),
}

impl DeviceTransport {
    /// Looks at the device's core.
    pub fn with_core<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        match self {
            DeviceTransport::Mmio(transport) => transport.with_core(look),
            DeviceTransport::Pci(transport) => transport.with_core(look),
        }
    }
}

/// A virtual machine without vCPUs.
#[derive(Debug)]
pub struct Vm {
    /// The VM.
    pub fd: Arc<VmFd>,
    /// Memory-mapped devices.
    pub mmio: Arc<Bus>,
    /// Devices on I/O ports.
    pub ports: Arc<Bus>,
    /// The I/O APIC.
    pub io_apic: Arc<IoApic>,
    /// The console.
    pub console: Arc<Console>,
    /// Signalled when the guest has read all console input.
    pub console_ready: EventFd,
    /// Virtio devices, in the order of the machine description.
    pub devices: Vec<Device>,
    /// KVM's memory slots from here on are free.
    pub next_slot: u32,
    /// Keeps private memory mapped.
    _private: SealedMemory,
    /// Keeps the pools mapped, those that no device has, too: KVM goes on with what was mapped there.
    pub pools: Vec<Pool>,
}

/// Opens KVM and makes an empty VM with its interrupt controllers.
pub fn create(kvm: &Kvm) -> Result<VmFd> {
    let vm = kvm.create_vm().map_err(|error| Error::Host(format!("KVM can't make a VM: {error}")))?;
    for (capability, name) in native::NEEDED {
        if !vm.check_extension(*capability) {
            return Err(Error::Host(format!("KVM lacks {name}")));
        }
    }
    native::create_irqchip(&vm)
        .map_err(|error| Error::Host(format!("KVM can't make a split interrupt controller: {error}")))?;
    Ok(vm)
}

/// What a machine is made of, beside its description.
#[allow(missing_debug_implementations, reason = "a handler and a writer have nothing to show")]
pub struct Parts<'a> {
    /// The host's side of each virtio device, in the order of the machine description.
    pub devices: Vec<Opened>,
    /// What each of them says of its pool.
    pub restricted: RestrictedDma,
    /// Private memory, loaded and sealed.
    pub private: SealedMemory,
    /// What the user says of the pools, in the order of the machine description.
    pub pool_options: &'a [PoolConfig],
    /// The pools, in the same order.
    pub pools: Vec<Pool>,
    /// Where the console's output goes.
    pub console: Box<dyn Write + Send>,
    /// Told when the guest wants to end, or panics.
    pub on_event: Handler,
}

impl Vm {
    /// Builds the machine around `vm`. Also returns the workers that run its virtio devices.
    pub fn new(vm: Arc<VmFd>, machine: &Machine, parts: Parts<'_>) -> Result<(Self, Vec<Worker>)> {
        let Parts { devices, restricted, private, pool_options, pools, console, on_event } = parts;
        let routes = Arc::new(Routes::new(Arc::clone(&vm)));
        let io_apic = Arc::new(IoApic::new(Arc::clone(&routes)));
        let (mut mmio, mut ports) = (Bus::default(), Bus::default());

        let system = &machine.system;
        let (uart_window, uart_interrupt) = system.uart;
        let console_ready = event()?;
        let ready = console_ready.try_clone().map_err(|error| Error::vmm("console", error))?;
        let console = Arc::new(Console::new(interrupt_line(&vm, uart_interrupt)?, ready, console));
        let keyboard = Range::fixed(layout::KEYBOARD_COMMAND_PORT as u64, 1);
        let insert = |bus: &mut Bus, range, device: Arc<dyn BusDevice>| {
            bus.insert(range, device).map_err(|error| Error::vmm("machine", error))
        };
        insert(&mut mmio, machine.io_apic.window, Arc::new(IoApicWindow(Arc::clone(&io_apic))))?;
        insert(&mut mmio, uart_window, Arc::clone(&console) as _)?;
        insert(&mut mmio, system.power, Arc::new(PowerControl::new(Arc::clone(&on_event))))?;
        insert(&mut mmio, system.sleep.window, Arc::new(SleepRegisters::new(Arc::clone(&on_event))))?;
        insert(&mut mmio, system.pvpanic, Arc::new(PvPanic::new(Arc::clone(&on_event))))?;
        insert(&mut ports, keyboard, Arc::new(KeyboardReset::new(Arc::clone(&on_event))))?;
        let reset: Arc<dyn BusDevice> = Arc::new(ResetControl::new(on_event));

        let (mut virtio, mut workers) = (Vec::new(), Vec::new());
        let mut pci = PciBus::default();
        let mut wires = Wires {
            vm: &vm,
            routes: &routes,
            io_apic: &io_apic,
            restricted,
            next_gsi: machine.io_apic.pins,
            next_slot: private.next_slot(),
        };
        for (description, opened) in machine.virtio.iter().zip(devices) {
            let VirtioDevice { name, transport, pool, .. } = description;
            let wrong = |error: &dyn Display| Error::vmm(name, error);
            let memory = description.own_memory();
            let pool_option =
                pool_options.get(usize::from(pool.0)).ok_or_else(|| wrong(&"it has no pool"))?;
            let pool = match memory {
                Some(bar) => Some(map_pool(&memory_name(description), bar, pool_option)?),
                None => pools.get(usize::from(pool.0)).cloned(),
            };
            let gate = Gate::new(pool.ok_or_else(|| wrong(&"its pool is not mapped"))?);
            let (transport, worker) = match *transport {
                Transport::Mmio { window, interrupt } => {
                    let (registers, worker) = wires.mmio(name, opened.device, gate, (window, interrupt))?;
                    insert(&mut mmio, window, Arc::clone(&registers) as _)?;
                    (DeviceTransport::Mmio(registers), worker)
                }
                Transport::Pci { device, bar } => {
                    let host = machine.pci.as_ref().ok_or_else(|| wrong(&"there is no PCI host bridge"))?;
                    let place = PciPlace { host, number: device, bar, memory };
                    let (registers, worker) = wires.pci(name, opened.device, gate, place)?;
                    pci.insert(device, Arc::clone(&registers) as _).map_err(|error| wrong(&error))?;
                    (DeviceTransport::Pci(registers), worker)
                }
            };
            virtio.push(Device { name: name.clone(), transport });
            workers.push(worker);
        }
        if let Some(host) = &machine.pci {
            let pci = Arc::new(pci);
            insert(&mut mmio, host.ecam, Arc::new(Ecam(Arc::clone(&pci))))?;
            let config = ConfigPorts::new(Arc::clone(&pci)).with_reset(reset);
            insert(&mut ports, host.config_ports, Arc::new(config))?;
            mmio.set_movable(pci);
        } else {
            insert(&mut ports, Range::fixed(layout::RESET_CONTROL_PORT as u64, 1), reset)?;
        }
        let next_slot = wires.next_slot;
        let vm = Self {
            fd: vm,
            mmio: Arc::new(mmio),
            ports: Arc::new(ports),
            io_apic,
            console,
            console_ready,
            devices: virtio,
            next_slot,
            _private: private,
            pools,
        };
        Ok((vm, workers))
    }
}

/// What connecting a device takes, beside the device itself.
struct Wires<'a> {
    vm: &'a Arc<VmFd>,
    routes: &'a Arc<Routes>,
    io_apic: &'a Arc<IoApic>,
    restricted: RestrictedDma,
    /// KVM lines from here on are free for vectors.
    next_gsi: u32,
    /// KVM's memory slots from here on are free.
    next_slot: u32,
}

/// Where a function is when the guest starts.
struct PciPlace<'a> {
    host: &'a PciHost,
    /// Device number.
    number: u8,
    /// BAR 0.
    bar: Range,
    /// BAR 2, if the device has its pool there.
    memory: Option<Range>,
}

impl Wires<'_> {
    /// Connects a device on MMIO: its interrupt to an irqfd, notifications to ioeventfds, so that neither needs an exit.
    fn mmio(
        &self,
        name: &str,
        device: Box<dyn DeviceType>,
        gate: Gate,
        (window, interrupt): (Range, Interrupt),
    ) -> Result<(Arc<MmioTransport>, Worker)> {
        let interrupt = Arc::new(MmioInterrupt::new(interrupt_line(self.vm, interrupt)?));
        let core =
            Core::new(name, device, gate, Arc::clone(&interrupt) as _).with_restricted_dma(self.restricted);
        let notifications = event_fds(name, core.queue_count())?;
        let notify = IoEventAddress::Mmio(window.base() + QUEUE_NOTIFY);
        for (queue, fd) in (0u32..).zip(notifications.iter()) {
            self.vm
                .register_ioevent(fd, &notify, queue)
                .map_err(|error| Error::Host(format!("KVM refused an ioeventfd of {name}: {error}")))?;
        }
        let worker = Worker::new(Arc::clone(core.handle()), Arc::clone(&notifications));
        Ok((Arc::new(MmioTransport::new(core, interrupt, notifications)), worker))
    }

    /// Connects a device on PCI: its vectors to irqfds, its pin to its line. Notifications follow its BAR.
    fn pci(
        &mut self,
        name: &str,
        device: Box<dyn DeviceType>,
        gate: Gate,
        PciPlace { host, number, bar, memory }: PciPlace<'_>,
    ) -> Result<(Arc<PciTransport>, Worker)> {
        let wrong = |error: &dyn Display| Error::vmm(name, error);
        let count = device.max_queue_sizes().len();
        let queues = u16::try_from(count).map_err(|error| wrong(&error))?;
        let notifications = event_fds(name, count)?;
        let device_memory = memory.map(|_| DeviceMemory {
            name: name.into(),
            vm: Arc::clone(self.vm),
            slot: self.next_slot,
            pool: gate.pool().clone(),
            bars: host.memory,
            mapped: Mutex::new(None),
        });
        self.next_slot += u32::from(memory.is_some());
        let slot: Arc<dyn Slot> = Arc::new(KvmSlot {
            name: name.into(),
            vm: Arc::clone(self.vm),
            routes: Arc::clone(self.routes),
            io_apic: Arc::clone(self.io_apic),
            line: host.interrupt(number, 0),
            bars: host.memory,
            first_gsi: self.next_gsi,
            notifications: Arc::clone(&notifications),
            window: Mutex::new(None),
            memory: device_memory,
        });
        let interrupt =
            Arc::new(PciInterrupt::new(queues, Arc::clone(&slot)).map_err(|error| wrong(&error))?);
        interrupt.for_each_vector(|vector, fd| {
            self.vm
                .register_irqfd(fd, self.next_gsi + u32::from(vector))
                .map_err(|error| Error::Host(format!("KVM refused an irqfd of {name}: {error}")))
        })?;
        self.next_gsi += u32::from(queues) + 1;
        let core =
            Core::new(name, device, gate, Arc::clone(&interrupt) as _).with_restricted_dma(self.restricted);
        let worker = Worker::new(Arc::clone(core.handle()), Arc::clone(&notifications));
        let transport = PciTransport::new(core, interrupt, notifications, slot, bar);
        let transport = match memory {
            Some(memory) => transport.and_then(|transport| transport.with_device_memory(memory)),
            None => transport,
        };
        Ok((Arc::new(transport.map_err(|error| wrong(&error))?), worker))
    }
}

fn event_fds(name: &str, count: usize) -> Result<Arc<EventFds>> {
    EventFds::new(count).map(Arc::new).map_err(|error| Error::Host(format!("{name}: {error}")))
}

/// An eventfd that pulses the interrupt line `gsi`.
fn interrupt_line(vm: &VmFd, Interrupt(gsi): Interrupt) -> Result<EventFd> {
    let line = event()?;
    vm.register_irqfd(&line, gsi)
        .map_err(|error| Error::Host(format!("KVM refused an irqfd of line {gsi}: {error}")))?;
    Ok(line)
}

fn event() -> Result<EventFd> {
    EventFd::new(EFD_NONBLOCK).map_err(|error| Error::Host(format!("an eventfd can't be made: {error}")))
}

/// The I/O APIC on the bus: the arch crate does not know buses.
#[derive(Debug)]
struct IoApicWindow(Arc<IoApic>);

impl BusDevice for IoApicWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}
