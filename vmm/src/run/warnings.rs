// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is told before the guest starts, although nothing is wrong yet.

use cvmm_firmware::Machine;

use crate::config::{DeviceConfig, DeviceKind, MachineConfig};
use crate::machine::Opened;

/// Warnings about `machine`, whose devices have been opened.
pub(super) fn of(config: &MachineConfig, machine: &Machine, devices: &[Opened]) -> Vec<String> {
    let profile = config.spec.profile;
    let defects = profile.defects.iter().map(|defect| format!("--spec {}: {defect}", profile.name));
    let withheld = config.spec.restricted.withholds_access_platform.then(|| {
        "--withhold-access-platform: a driver does not learn that it must use the pool, and may use other memory".into()
    });
    let of_files = small_pools(machine, devices).into_iter().chain(down_taps(&config.devices, devices));
    let devices = &config.devices;
    defects.chain(withheld).chain(of_files).chain(equal_serials(devices)).chain(equal_macs(devices)).collect()
}

/// They lose each frame until somebody sets them up.
fn down_taps(devices: &[DeviceConfig], opened: &[Opened]) -> Vec<String> {
    let down = devices.iter().zip(opened).filter(|(_, opened)| opened.is_down);
    let warning = |(device, _): (&DeviceConfig, _)| match &device.kind {
        DeviceKind::Net { tap, .. } => {
            let name = &device.name;
            Some(format!(
                "the tap '{tap}' of {name} is down, and passes no frames; set it up with: ip link set {tap} up"
            ))
        }
        _ => None,
    };
    down.filter_map(warning).collect()
}

/// That the guest waits for room in a pool can't be seen from here. That it will have to can.
fn small_pools(machine: &Machine, devices: &[Opened]) -> Vec<String> {
    let warning = |(name, size, room): (String, u64, u64)| {
        format!(
            "{name} may be too small: it has {}M, and its devices may need {}M at once (rings, receive buffers of network \
             devices, the largest request of each queue). A guest that finds no room waits, perhaps for ever",
            size >> 20,
            room.div_ceil(1 << 20),
        )
    };
    needs(machine, devices).into_iter().filter(|(_, size, room)| room > size).map(warning).collect()
}

/// What devices reach, each with its size, and with what its devices may need of it at once.
fn needs(machine: &Machine, devices: &[Opened]) -> Vec<(String, u64, u64)> {
    let mut wanted: Vec<_> =
        machine.pools.iter().map(|pool| (format!("pool '{}'", pool.name), pool.range.size(), 0u64)).collect();
    for (device, opened) in machine.virtio.iter().zip(devices) {
        let room = opened.device.room();
        if let Some(own) = device.own_memory() {
            wanted.push((format!("the memory of {}", device.name), own.size(), room));
        } else if let Some((.., sum)) = wanted.get_mut(usize::from(device.pool.0)) {
            *sum = sum.saturating_add(room);
        }
    }
    wanted
}

/// A guest finds one of two disks by what is the serial of both.
fn equal_serials(devices: &[DeviceConfig]) -> Vec<String> {
    // None at all is the same for many.
    let serial = |device: &'_ DeviceKind| match device {
        DeviceKind::Blk { serial, .. } if !serial.is_empty() => Some(serial.clone()),
        _ => None,
    };
    let warning = |(first, second, serial)| {
        format!(
            "{first} and {second} have one serial, '{serial}': a guest that finds disks by it (/dev/disk/by-id) finds \
             one of the two"
        )
    };
    equals(devices, serial).into_iter().map(warning).collect()
}

/// A switch learns where an address is from the last frame that came from it: it sends what is for both to one.
fn equal_macs(devices: &[DeviceConfig]) -> Vec<String> {
    let mac = |device: &DeviceKind| match device {
        DeviceKind::Net { mac, .. } => Some(*mac),
        _ => None,
    };
    let warning = |(first, second, mac)| {
        format!(
            "{first} and {second} have the same MAC address, {mac}: a network with both loses frames. Give each its own \
             with mac="
        )
    };
    equals(devices, mac).into_iter().map(warning).collect()
}

/// The names of devices of which a later one has the same `property` as an earlier one, and that property.
fn equals<'d, P: PartialEq + 'd>(
    devices: &'d [DeviceConfig],
    property: impl Fn(&'d DeviceKind) -> Option<P>,
) -> Vec<(&'d str, &'d str, P)> {
    let mut seen: Vec<(&str, P)> = Vec::new();
    let mut pairs = Vec::new();
    for device in devices {
        let Some(property) = property(&device.kind) else { continue };
        match seen.iter().find(|(_, other)| *other == property) {
            Some((first, _)) => pairs.push((*first, device.name.as_str(), property)),
            None => seen.push((&device.name, property)),
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::machine;

    fn configured(options: &[&str]) -> MachineConfig {
        let cli = Cli::try_parse_from(["cvmm", "run", "--kernel=k"].iter().chain(options)).unwrap();
        let Command::Run(args) = cli.command else { panic!() };
        MachineConfig::new(&args.machine).unwrap()
    }

    fn opened(options: &[&str]) -> (MachineConfig, Machine, Vec<Opened>) {
        let config = configured(options);
        let (machine, devices) = (machine::describe(&config).unwrap(), machine::open(&config).unwrap());
        (config, machine, devices)
    }

    fn warnings(options: &[&str]) -> Vec<String> {
        let (config, machine, devices) = opened(options);
        of(&config, &machine, &devices)
    }

    /// A disk without `serial=` has its name for one.
    #[test]
    fn disks_with_one_serial_are_told() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(1 << 20).unwrap();
        let blk = |serial: &str| format!("--blk=path={},ro{serial}", disk.path().display());
        let of = |serials: [&str; 3]| {
            warnings(&["--pool=64M", &blk(serials[0]), &blk(serials[1]), &blk(serials[2])])
        };
        assert_eq!(of(["", "", ""]), [""; 0]);
        assert_eq!(of([",serial=a", ",serial=b", ",serial=A"]), [""; 0]);
        assert_eq!(of([",serial=", ",serial=", ""]), [""; 0]);
        for (serials, first) in [
            ([",serial=a", "", ",serial=a"], "blk0 and blk2 have one serial, 'a': "),
            ([",serial=blk1", "", ""], "blk0 and blk1 have one serial, 'blk1': "),
        ] {
            let [warning] = &of(serials)[..] else { panic!("{serials:?}") };
            assert!(warning.starts_with(first), "{warning}");
        }
        assert_eq!(of([",serial=a"; 3]).len(), 2);
    }

    /// Each queue of 256 descriptors has 2 pages, and a request at most an eighth of the pool, with a slot for its header
    /// and one for its status.
    #[test]
    fn a_pool_is_small_for_the_devices_that_are_bound_to_it() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(1 << 20).unwrap();
        let disk = format!("--blk=path={},ro", disk.path().display());
        let blk = |rest: &str| format!("{disk}{rest}");
        let eight = 8 * (2 * 4096 + (256 << 10) + 4096);
        let rng = 4096 + 2048;
        assert_eq!(warnings(&["--pool=2M", &disk]), [""; 0]);
        for (options, name, wanted) in [
            (&["--pool=2M", &blk(",queues=8")][..], "pool 'pool'", eight),
            (&["--pool=2M", &blk(",queues=4"), &blk(",queues=4"), "--rng"], "pool 'pool'", eight + rng),
            (
                &["--pool=8M,default", "--pool=2M,name=x", &blk(",queues=8,pool=x"), "--rng"],
                "pool 'x'",
                eight,
            ),
        ] {
            let (config, machine, devices) = opened(options);
            assert!(needs(&machine, &devices).contains(&(name.to_owned(), 2 << 20, wanted)), "{options:?}");
            let [warning] = &of(&config, &machine, &devices)[..] else { panic!("{options:?}") };
            let said = format!("{name} may be too small: it has 2M, and its devices may need 3M at once ");
            assert!(warning.starts_with(&said), "{warning}");
        }
        // By the RFC the memory is each function's own.
        let rfc = ["--spec=rfc", "--pool=2M", &blk(",transport=pci,queues=8"), "--rng=transport=pci"];
        let warnings = warnings(&rfc);
        assert!(warnings[..4].iter().all(|warning| warning.starts_with("--spec rfc: ")));
        let [warning] = &warnings[4..] else { panic!("{warnings:?}") };
        let expected = "the memory of blk0 may be too small: it has 2M, and its devices may need 3M at once ";
        assert!(warning.starts_with(expected), "{warning}");
    }

    /// Taps need not exist for this.
    #[test]
    fn each_network_device_has_a_mac_of_its_own() {
        let (one, two) = ("mac=02:00:00:00:00:01", "mac=02:00:00:00:00:02");
        let config = configured(&["--pool=8M", "--net=tap=t0"]);
        let DeviceKind::Net { mac, .. } = config.devices[0].kind else { panic!() };
        let derived = format!("mac={mac}");
        for (macs, expected) in [
            (&["", ""][..], &[][..]),
            (&[one, two], &[]),
            (&[one, two, one], &[("net0 and net2", "02:00:00:00:00:01")]),
            (
                &[one, one, one],
                &[("net0 and net1", "02:00:00:00:00:01"), ("net0 and net2", "02:00:00:00:00:01")],
            ),
            // One says what another one has without a word.
            (&["", &derived], &[("net0 and net1", derived.trim_start_matches("mac="))]),
        ] {
            let nets = (0..).zip(macs).map(|(n, mac)| format!("--net=tap=t{n},{mac}"));
            let nets: Vec<_> = nets.map(|option| option.trim_end_matches(',').to_owned()).collect();
            let options = ["--pool=8M", "--rng"].into_iter().chain(nets.iter().map(|net| &**net));
            let config = configured(&options.collect::<Vec<_>>());
            let warnings = equal_macs(&config.devices);
            assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
            for (warning, (names, mac)) in warnings.iter().zip(expected) {
                assert!(
                    warning.starts_with(&format!("{names} have the same MAC address, {mac}: ")),
                    "{warning}"
                );
            }
        }
    }
}
