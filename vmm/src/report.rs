// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The run report: what the guest's devices did, and what they refused to do.

use cvmm_arch::native::layout;
use cvmm_devices::HostErrors;
use cvmm_devices::bus::{Accesses, Bus};
use cvmm_devices::pool::{self, Audit, Refusal};
use cvmm_devices::virtio::{HostIo, Kind, Summary};
use cvmm_firmware::{Interrupt, Machine, Range, Transport, VirtioDevice};
use serde::Serialize;

use crate::Outcome;
use crate::config::{FirmwareKind, SpecConfig};
use crate::machine::Device;
use crate::sandbox::Sandbox;

/// Format of the report; it changes when a field changes its meaning or goes.
const VERSION: u32 = 1;

/// How private memory is kept from this process. Stronger ways are to come; each says so here.
const ENFORCEMENT: &str =
    "type system: once the guest is loaded, no code of this process can name private memory";

/// The report, as JSON. Addresses are guest-physical, sizes are bytes, both as numbers.
#[derive(Debug, Serialize)]
pub struct Report {
    version: u32,
    outcome: OutcomeReport,
    /// None if the run ended before there was a machine.
    memory: Option<Memory>,
    /// What confined this process. None if the run ended before there was a machine.
    sandbox: Option<Sandbox>,
    cpus: usize,
    /// What told the guest of its machine. None if the run ended before there was one.
    firmware: Option<FirmwareKind>,
    /// What devices said of their pools. None if the run ended before there was a machine.
    spec: Option<SpecConfig>,
    devices: Vec<DeviceReport>,
    /// Refusals of all devices.
    refused: u64,
    /// Exits of the guest that this process answered: accesses to registers.
    exits: Vec<ExitReport>,
    /// What was warned of before the guest started: pools that are too small, and what is wrong with the text that `--spec`
    /// names.
    warnings: Vec<String>,
}

/// What was told before the guest started.
#[derive(Debug)]
pub struct Told {
    /// What told the guest of its machine.
    pub firmware: FirmwareKind,
    /// What its devices say of their pools.
    pub spec: SpecConfig,
    /// What the user was warned of.
    pub warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OutcomeReport {
    kind: &'static str,
    exit_code: u8,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Memory {
    total: u64,
    private: Vec<Extent>,
    pools: Vec<PoolReport>,
    enforcement: &'static str,
}

#[derive(Debug, Serialize)]
struct Extent {
    base: u64,
    size: u64,
}

#[derive(Debug, Serialize)]
struct PoolReport {
    name: String,
    #[serde(flatten)]
    extent: Extent,
    /// The guest was told that it is the pool of every device that names none.
    dma_default: bool,
}

/// Accesses to the registers of one device.
#[derive(Debug, Serialize)]
struct ExitReport {
    bus: &'static str,
    /// None: PCI functions, whose place the guest chooses, and addresses where nothing is.
    #[serde(flatten)]
    extent: Option<Extent>,
    reads: u64,
    writes: u64,
}

#[derive(Debug, Serialize)]
struct DeviceReport {
    name: String,
    kind: Kind,
    transport: &'static str,
    /// Register window; on PCI the BAR as it was when the guest started.
    window: Extent,
    /// On PCI: segment, bus, device, function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pci_address: Option<String>,
    /// Interrupt line; on PCI the one behind the interrupt pin.
    gsi: Option<u32>,
    /// Name of the only memory that it can reach.
    pool: String,
    /// That memory, if it is on the device: BAR 2 as it was when the guest started.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_memory: Option<Extent>,
    /// Bits of the device status that a driver ever set. None: no driver took the device.
    status: Vec<&'static str>,
    features: Features,
    queues: Vec<QueueReport>,
    dma: Dma,
    refused: u64,
    refusals: Vec<RefusalReport>,
    /// How the host moves the data of a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_io: Option<HostIo>,
    /// What the host could not do for the device.
    host_errors: HostErrors,
}

#[derive(Debug, Serialize)]
struct Features {
    offered: u64,
    accepted: u64,
    accepted_names: Vec<&'static str>,
    /// Number of VIRTIO_F_RESTRICTED_DMA, if it was offered.
    restricted_dma_bit: Option<u8>,
    refused_offer: Option<String>,
}

#[derive(Debug, Serialize)]
struct QueueReport {
    index: u16,
    size: u16,
    descriptor_table: u64,
    available_ring: u64,
    used_ring: u64,
}

/// What a device read or wrote in guest memory, or let the host read or write: a disk or a tap that takes less than it was
/// given does not lower the count.
#[derive(Debug, Serialize)]
struct Dma {
    read: Moved,
    written: Moved,
    rings: Moved,
}

#[derive(Debug, Serialize)]
struct Moved {
    accesses: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct RefusalReport {
    #[serde(flatten)]
    refusal: Refusal,
    count: u64,
}

impl Report {
    /// The report of a run that ended before there was a machine.
    pub fn without_machine(outcome: &Outcome) -> Self {
        let outcome = OutcomeReport {
            kind: outcome.kind(),
            exit_code: outcome.exit_code(),
            detail: outcome.detail().into(),
        };
        Self {
            version: VERSION,
            outcome,
            memory: None,
            sandbox: None,
            cpus: 0,
            firmware: None,
            spec: None,
            devices: Vec::new(),
            refused: 0,
            exits: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds what was told before the guest started: to it, and to whoever ran it.
    pub fn with_told(self, told: Told) -> Self {
        let Told { firmware, spec, warnings } = told;
        Self { firmware: Some(firmware), spec: Some(spec), warnings, ..self }
    }

    /// Adds the exits that `buses`, each with its name, have answered.
    pub fn with_exits(self, buses: [(&'static str, &Bus); 2]) -> Self {
        let exits = buses.into_iter().flat_map(|(bus, devices)| {
            devices.accesses().map(move |Accesses { range, reads, writes }| ExitReport {
                bus,
                extent: range.map(Extent::from),
                reads,
                writes,
            })
        });
        Self { exits: exits.filter(|exits| exits.reads + exits.writes > 0).collect(), ..self }
    }

    /// The report of a run of `machine` with `devices`, during which `sandbox` held.
    pub fn new(outcome: &Outcome, machine: &Machine, devices: &[Device], sandbox: Sandbox) -> Self {
        let devices: Vec<_> = machine
            .virtio
            .iter()
            .zip(devices)
            .map(|(description, device)| {
                device.transport.with_core(|core| DeviceReport::new(machine, description, &core.summary()))
            })
            .collect();
        let pools: Vec<Range> = machine.pools.iter().map(|pool| pool.range).collect();
        let memory = Memory {
            total: machine.memory.iter().map(Range::size).sum(),
            private: layout::private(&machine.memory, &pools).into_iter().map(Extent::from).collect(),
            pools: machine
                .pools
                .iter()
                .map(|pool| PoolReport {
                    name: pool.name.clone(),
                    extent: pool.range.into(),
                    dma_default: pool.dma_default,
                })
                .collect(),
            enforcement: ENFORCEMENT,
        };
        Self {
            memory: Some(memory),
            sandbox: Some(sandbox),
            cpus: machine.cpus.len(),
            refused: devices.iter().map(|device| device.refused).sum(),
            devices,
            ..Self::without_machine(outcome)
        }
    }
}

impl DeviceReport {
    fn new(machine: &Machine, description: &VirtioDevice, summary: &Summary<'_>) -> Self {
        let (transport, window, pci_address, interrupt) = match description.transport {
            Transport::Mmio { window, interrupt } => ("mmio", window, None, Some(interrupt)),
            Transport::Pci { device, bar } => {
                let address = format!("0000:00:{device:02x}.0");
                ("pci", bar, Some(address), machine.pci.map(|host| host.interrupt(device, 0)))
            }
        };
        let audit = summary.gate.audit();
        let refusals = audit.refusals();
        Self {
            name: summary.name.into(),
            kind: summary.kind,
            transport,
            window: window.into(),
            pci_address,
            gsi: interrupt.map(|Interrupt(line)| line),
            pool: summary.gate.pool().name().into(),
            device_memory: description.own_memory().map(Extent::from),
            status: summary.reached.clone(),
            features: Features {
                offered: summary.offered,
                accepted: summary.accepted,
                accepted_names: summary.accepted_names.clone(),
                restricted_dma_bit: summary.restricted.feature_bit,
                refused_offer: summary.refused_offer.map(str::to_owned),
            },
            queues: summary
                .queues
                .iter()
                .map(|(index, layout)| QueueReport {
                    index: *index,
                    size: layout.size,
                    descriptor_table: layout.descriptor_table,
                    available_ring: layout.available_ring,
                    used_ring: layout.used_ring,
                })
                .collect(),
            dma: Dma::new(audit),
            refused: refusals.total,
            refusals: refusals
                .first
                .into_iter()
                .map(|(refusal, count)| RefusalReport { refusal, count })
                .collect(),
            host_io: summary.host_io,
            host_errors: summary.host_errors.clone(),
        }
    }
}

impl Dma {
    fn new(audit: &Audit) -> Self {
        Self { read: audit.read().into(), written: audit.written().into(), rings: audit.rings().into() }
    }
}

impl From<pool::Moved> for Moved {
    fn from(pool::Moved { accesses, bytes }: pool::Moved) -> Self {
        Self { accesses, bytes }
    }
}

impl From<Range> for Extent {
    fn from(range: Range) -> Self {
        Self { base: range.base(), size: range.size() }
    }
}
