// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A KVM virtual machine: interrupt controllers, buses, devices, and the wires between them.

use std::io::Write;
use std::sync::Arc;

use cvmm_arch::native::ioapic::IoApic;
use cvmm_arch::native::irq::Routes;
use cvmm_arch::native::{self, layout};
use cvmm_devices::bus::{Bus, BusDevice};
use cvmm_devices::pool::{Gate, Pool};
use cvmm_devices::power::{Handler, KeyboardReset, PowerControl, PvPanic};
use cvmm_devices::serial::Console;
use cvmm_devices::virtio::mmio::{MmioInterrupt, MmioTransport, QUEUE_NOTIFY};
use cvmm_devices::virtio::{Core, EventFds, Worker};
use cvmm_firmware::{Interrupt, Machine, Range, Transport, VirtioDevice};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Opened, SealedMemory};
use crate::{Error, Result};

/// A virtio device of a running machine.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its registers, and through them its core.
    pub transport: Arc<MmioTransport>,
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
    pub console_drained: EventFd,
    /// Virtio devices, in the order of the machine description.
    pub devices: Vec<Device>,
    /// Keeps private memory mapped.
    _private: SealedMemory,
}

/// Opens KVM and makes an empty VM with its interrupt controllers.
pub fn create(kvm: &Kvm) -> Result<VmFd> {
    let vm = kvm.create_vm().map_err(|error| Error::Host(format!("KVM can't make a VM: {error}")))?;
    for (capability, name) in native::NEEDED {
        if !vm.check_extension(*capability) {
            return Err(Error::Host(format!("its KVM lacks {name}")));
        }
    }
    native::create_irqchip(&vm)
        .map_err(|error| Error::Host(format!("KVM can't make a split interrupt controller: {error}")))?;
    Ok(vm)
}

/// What a machine is made of, beside its description.
#[allow(missing_debug_implementations, reason = "a handler and a writer have nothing to show")]
pub struct Parts {
    /// The host's side of each virtio device, in the order of the machine description.
    pub devices: Vec<Opened>,
    /// Private memory, loaded and sealed.
    pub private: SealedMemory,
    /// The pools, in the order of the machine description.
    pub pools: Vec<Pool>,
    /// Where the console's output goes.
    pub console: Box<dyn Write + Send>,
    /// Told when the guest wants to end, or panics.
    pub on_event: Handler,
}

impl Vm {
    /// Builds the machine around `vm`. Also returns the workers that run its virtio devices.
    pub fn new(vm: Arc<VmFd>, machine: &Machine, parts: Parts) -> Result<(Self, Vec<Worker>)> {
        let Parts { devices, private, pools, console, on_event } = parts;
        let io_apic = Arc::new(IoApic::new(Arc::new(Routes::new(Arc::clone(&vm)))));
        let (mut mmio, mut ports) = (Bus::default(), Bus::default());

        let system = &machine.system;
        let (uart_window, uart_interrupt) = system.uart;
        let console_drained = event()?;
        let drained = console_drained.try_clone().map_err(|error| Error::vmm("console", error))?;
        let console = Arc::new(Console::new(interrupt_line(&vm, uart_interrupt)?, drained, console));
        let keyboard = Range::fixed(layout::KEYBOARD_COMMAND_PORT as u64, 1);
        let insert = |bus: &mut Bus, range, device: Arc<dyn BusDevice>| {
            bus.insert(range, device).map_err(|error| Error::vmm("machine", error))
        };
        insert(&mut mmio, machine.io_apic.window, Arc::new(IoApicWindow(Arc::clone(&io_apic))))?;
        insert(&mut mmio, uart_window, Arc::clone(&console) as _)?;
        insert(&mut mmio, system.power, Arc::new(PowerControl::new(Arc::clone(&on_event))))?;
        insert(&mut mmio, system.pvpanic, Arc::new(PvPanic::new(Arc::clone(&on_event))))?;
        insert(&mut ports, keyboard, Arc::new(KeyboardReset::new(on_event)))?;

        let (mut virtio, mut workers) = (Vec::new(), Vec::new());
        for (description, opened) in machine.virtio.iter().zip(devices) {
            let pool = pools
                .get(usize::from(description.pool.0))
                .ok_or_else(|| Error::vmm(&description.name, "its pool is not mapped"))?;
            let (device, worker, window) = connect(&vm, description, opened, pool)?;
            insert(&mut mmio, window, Arc::clone(&device.transport) as _)?;
            virtio.push(device);
            workers.push(worker);
        }
        let vm = Self {
            fd: vm,
            mmio: Arc::new(mmio),
            ports: Arc::new(ports),
            io_apic,
            console,
            console_drained,
            devices: virtio,
            _private: private,
        };
        Ok((vm, workers))
    }
}

/// Connects a virtio device: interrupt to irqfd, notifications to ioeventfds, so that neither needs an exit.
fn connect(
    vm: &VmFd,
    description: &VirtioDevice,
    opened: Opened,
    pool: &Pool,
) -> Result<(Device, Worker, Range)> {
    let name = &description.name;
    let Transport::Mmio { window, interrupt } = description.transport;
    let interrupt = Arc::new(MmioInterrupt::new(interrupt_line(vm, interrupt)?));
    let core = Core::new(name, opened.device, Gate::new(pool.clone()), Arc::clone(&interrupt) as _);
    let notifications = Arc::new(EventFds::new(core.queue_count()).map_err(|error| Error::vmm(name, error))?);
    let notify = IoEventAddress::Mmio(window.base() + QUEUE_NOTIFY);
    for (queue, fd) in (0u32..).zip(notifications.iter()) {
        vm.register_ioevent(fd, &notify, queue)
            .map_err(|error| Error::Host(format!("KVM refused an ioeventfd of {name}: {error}")))?;
    }
    let worker = Worker::new(Arc::clone(core.handle()), Arc::clone(&notifications));
    let transport = Arc::new(MmioTransport::new(core, interrupt, notifications));
    Ok((Device { name: name.clone(), transport }, worker, window))
}

/// An eventfd that pulses the interrupt line `gsi`.
fn interrupt_line(vm: &VmFd, Interrupt(gsi): Interrupt) -> Result<EventFd> {
    let line = event()?;
    vm.register_irqfd(&line, gsi)
        .map_err(|error| Error::Host(format!("KVM refused an irqfd of line {gsi}: {error}")))?;
    Ok(line)
}

fn event() -> Result<EventFd> {
    EventFd::new(EFD_NONBLOCK).map_err(|error| Error::vmm("eventfd", error))
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
