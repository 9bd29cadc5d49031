// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine description of a configuration. Everything that comes later reads it.

use cvmm_arch::native::{cpu, layout};
use cvmm_devices::power;
use cvmm_firmware::{Machine, Pool, PoolId, Transport, VirtioDevice};

use crate::config::VmConfig;
use crate::{Error, Result};

/// Lays out the machine that `config` asks for.
///
/// # Errors
/// The pool has no place in memory.
pub fn describe(config: &VmConfig) -> Result<Machine> {
    let memory = layout::memory(config.mem);
    let pool = layout::place_pool(&memory, &[], config.pool.size, config.pool.base)
        .map_err(|error| Error::argument(&config.pool.option, error))?;
    let virtio = config.devices.iter().enumerate().map(|(index, device)| {
        let (window, interrupt) = layout::virtio_mmio(index)
            .ok_or_else(|| Error::argument(&device.option, "the machine has no room for another device"))?;
        Ok(VirtioDevice {
            name: device.name.clone(),
            transport: Transport::Mmio { window, interrupt },
            pool: PoolId(0),
        })
    });
    Ok(Machine {
        virtio: virtio.collect::<Result<_>>()?,
        memory,
        pools: vec![Pool { name: config.pool.name.clone(), range: pool }],
        cpus: cpu::apic_ids(config.cpus),
        local_apic: layout::local_apic(),
        io_apic: layout::io_apic(),
        system: layout::system_devices(power::POWER_OFF, power::RESET),
        bootargs: config.cmdline.clone(),
    })
}
