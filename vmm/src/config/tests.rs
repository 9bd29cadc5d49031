// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn config(options: &str) -> Result<VmConfig> {
    let words = ["cvmm", "run", "--kernel", "k"].into_iter().chain(options.split_whitespace());
    match Cli::try_parse_from(words).expect("clap accepts it").command {
        Command::Run(args) => VmConfig::new(&args),
        Command::Describe(_) => unreachable!(),
    }
}

fn machine(options: &str) -> MachineConfig {
    config(options).expect(options).machine
}

fn error(options: &str) -> String {
    config(options).expect_err(options).to_string()
}

#[test]
fn sizes_are_bytes_or_have_a_suffix() {
    for (text, size) in [
        ("4096", 4096),
        ("0x1000", 4096),
        ("512K", 512 << 10),
        ("64M", 64 << 20),
        ("2G", 2 << 30),
        ("1g", 1 << 30),
    ] {
        assert_eq!(size::parse(text), Ok(size));
    }
    for text in
        ["", "M", "-1", "+1", "1.5G", "64MB", "0x", "0x+1", "99999999999999999999", "18446744073709551615G"]
    {
        assert!(size::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_pool_is_a_size_or_a_list() {
    let pool = machine("--pool 64M").pools.remove(0);
    assert_eq!((pool.name.as_str(), pool.size, pool.base), ("pool", 64 << 20, None));
    assert!(!pool.hugepages);
    let pool = machine("--pool size=2M,name=p,base=0x10000000,hugepages").pools.remove(0);
    assert_eq!((pool.name.as_str(), pool.size, pool.base), ("p", 2 << 20, Some(0x1000_0000)));
    assert!(pool.hugepages);
}

#[test]
fn a_device_has_the_pool_that_it_names_or_the_default_one() {
    let bound = |options: &str| {
        let config = machine(options);
        let pool = |device: &DeviceConfig| config.pools[device.pool].name.clone();
        config.devices.iter().map(|device| (pool(device), device.pool_is_named)).collect::<Vec<_>>()
    };
    let of = |name: &str, named| (name.to_owned(), named);
    assert_eq!(bound("--pool 64M --rng --rng pool=pool"), [of("pool", false), of("pool", true)]);
    assert_eq!(
        bound(
            "--pool size=16M,name=disk --pool 64M,default --pool 2M --rng --blk path=a,pool=disk --net tap=t,pool=pool2"
        ),
        [of("disk", true), of("pool2", true), of("pool1", false)]
    );
    // No pool is the default one: that only matters to a device that names none.
    assert_eq!(bound("--pool 2M,name=a --pool 2M,name=b --rng pool=b"), [of("b", true)]);
}

/// A name that the user gives is nobody else's; a pool without one has another.
#[test]
fn a_default_name_gives_way_to_the_users() {
    let names = |options: &str| {
        let pools = machine(options).pools;
        pools.into_iter().map(|pool| pool.name).collect::<Vec<_>>()
    };
    assert_eq!(names("--pool 2M --pool 2M --pool 2M"), ["pool", "pool1", "pool2"]);
    assert_eq!(names("--pool 2M,name=pool1 --pool 2M --pool 2M"), ["pool1", "pool3", "pool2"]);
    assert_eq!(names("--pool 2M --pool 2M --pool 2M,name=pool"), ["pool3", "pool1", "pool"]);
    assert_eq!(names("--pool 2M --pool 2M,name=pool2 --pool 2M,name=x"), ["pool", "pool2", "x"]);
    assert_eq!(
        names("--pool 2M,name=pool1 --pool 2M --pool 2M,name=pool4 --pool 2M,name=pool5"),
        ["pool1", "pool6", "pool4", "pool5"]
    );
}

/// `RestrictedDma` as the numbers of the bits that are offered and required, and whether the pool is named.
#[test]
fn a_text_says_what_the_guest_is_told() {
    let told = |options: &str| {
        let restricted = machine(&format!("--pool 64M {options}")).spec.restricted;
        (restricted.feature_bit, restricted.required, restricted.names_pool)
    };
    assert_eq!(told(""), (None, false, false));
    assert_eq!(told("--spec upstream"), (None, false, false));
    assert_eq!(told("--spec rfc"), (Some(27), true, false));
    assert_eq!(told("--spec rfc --unaware allow"), (Some(27), false, false));
    assert_eq!(told("--spec plan"), (Some(45), true, true));
    assert_eq!(told("--spec plan --feature-bit 44 --unaware refuse"), (Some(44), true, true));
    let withheld =
        |options: &str| machine(&format!("--pool 64M {options}")).spec.restricted.withholds_access_platform;
    assert_eq!(["", "--withhold-access-platform"].map(withheld), [false, true]);
}

/// The guide's table of the texts is that of the profiles.
#[test]
fn the_guide_has_the_profiles() {
    let page = include_str!("../../../resources/guide/specifications.md");
    let row = |what: &str, cell: fn(&Profile) -> String| {
        let cells = PROFILES.each_ref().map(cell).join(" | ");
        // A cell with nothing in it.
        let row = format!("| {what} | {cells} |").replace("|  ", "| ");
        assert!(page.contains(&row), "resources/guide/specifications.md should have the row\n{row}");
    };
    row("default pool", |profile| {
        if profile.dma_default { "carries `linux,dma-default`" } else { "" }.into()
    });
    row("feature bit", |profile| profile.feature_bit.map_or("none".into(), |bit| bit.to_string()));
    row("the device's registers name its pool", |profile| {
        match (profile.names_pool, profile.device_memory) {
            (true, _) => "yes",
            (false, true) => "on PCI, capability 10",
            (false, false) => "no",
        }
        .into()
    });
}

#[test]
fn devices_are_named_in_order() {
    let config =
        machine("--pool 64M --rng --net tap=t0 --blk path=a,,b,ro,serial=x --rng transport=pci --blk path=c");
    let names: Vec<_> = config.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["blk0", "blk1", "net0", "rng0", "rng1"]);
    let options: Vec<_> = config.devices.iter().map(|device| device.option.as_str()).collect();
    assert_eq!(
        options,
        ["--blk path=a,,b,ro,serial=x", "--blk path=c", "--net tap=t0", "--rng", "--rng transport=pci"]
    );
    let first = DeviceKind::Blk {
        path: "a,b".into(),
        read_only: true,
        raw: false,
        direct: false,
        serial: "x".into(),
        queues: 1,
    };
    assert_eq!(config.devices[0].kind, first);
    let net = DeviceKind::Net { tap: "t0".into(), mac: Mac::of_tap("t0"), queues: 1 };
    assert_eq!(config.devices[2].kind, net);
    assert_ne!(Mac::of_tap("t0"), Mac::of_tap("t1"));
}

#[test]
fn the_command_line_is_added_to_the_default() {
    let base = "console=uart8250,mmio,0xd1000000,115200n8r";
    assert_eq!(machine("--pool 64M --cmdline -x").cmdline, format!("{base} reboot=p,panic_warm panic=-1 -x"));
    let acpi = machine("--pool 64M --firmware acpi --cmdline -x");
    assert_eq!(acpi.cmdline, format!("{base} reboot=p,panic_warm panic=-1 -x"));
}

/// Each message names the option, the value and what would be right.
#[test]
fn wrong_options_are_named() {
    for (options, expected) in [
        ("", "--pool: it is missing"),
        (
            "--pool 64M,name=p --pool 2M,name=p",
            "--pool 2M,name=p: name: another pool has the name 'p', too (--pool 64M,name=p)",
        ),
        (
            "--pool 64M,default --pool 2M,default",
            "default: another pool is the default one, too (--pool 64M,default)",
        ),
        ("--pool 64M,default=1", "default takes no value, but has '1'"),
        ("--pool 64M --pool 2M --rng", "--rng: it names no pool, and there is no default pool"),
        ("--pool 64M --rng pool=disk", "--rng pool=disk: pool: there is no pool 'disk'; the pools are: pool"),
        ("--pool 64M --rng pool=", "pool: there is no pool ''"),
        ("--pool 64M --spec rfc2", "--spec rfc2: it must be one of upstream, rfc, plan"),
        ("--pool 64M --feature-bit 49", "--feature-bit 49: --spec upstream has no feature bit"),
        ("--pool 64M --unaware allow", "--unaware allow: --spec upstream has no feature bit"),
        ("--pool 64M --spec plan --unaware maybe", "--unaware maybe: it must be refuse or allow"),
        ("--pool 64M --spec plan --feature-bit 33", "--feature-bit 33: another feature has bit 33"),
        ("--pool 64M --spec plan --feature-bit 5", "bit 5 is reserved for device types"),
        ("--pool 64M --spec plan --feature-bit x", "'x' is not a number"),
        ("--pool 64M --spec plan --feature-bit 300", "'300' is not a number"),
        ("--pool 64X", "--pool 64X: size: '64X' is not a size"),
        ("--pool name=x", "--pool name=x: size=SIZE is missing"),
        ("--pool 64M,foo=1", "--pool 64M,foo=1: unknown key 'foo'; the keys are size, name, base, default"),
        ("--pool 64M,name=", "name: use 1 to 32 letters, digits"),
        ("--pool 64M,name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "name: use 1 to 32 letters, digits"),
        ("--pool 64M,base=x", "base: 'x' is not a size"),
        ("--pool 64M,size=1M", "size is given twice"),
        ("--pool 64M --mem 1M", "--mem 1M: guest memory must be"),
        ("--pool 64M --mem 64G", "--mem 64G: guest memory must be"),
        ("--pool 64M --mem 33000000", "--mem 33000000: guest memory must be"),
        ("--pool 64M --mem big", "--mem big: 'big' is not a size"),
        ("--pool 64M --cpus 0", "--cpus 0: it must be a number from 1 to 254"),
        ("--pool 64M --cpus 255", "--cpus 255: it must be a number from 1 to 254"),
        ("--pool 64M --cpus 256", "--cpus 256: it must be a number from 1 to 254"),
        ("--pool 64M --blk ro", "--blk ro: path=... is missing"),
        ("--pool 64M --blk path=", "path=... is missing"),
        ("--pool 64M --blk disk.img", "path=... is missing; write --blk path=disk.img"),
        ("--pool 64M --blk ro,a,,b.img", "path=... is missing; write --blk path=a,,b.img"),
        (
            "--pool 64M --blk path=a,b.img",
            "serial, queues, transport, pool; a comma in a value is written twice",
        ),
        ("--pool 64M --blk path=a,ro=1", "ro takes no value, but has '1'"),
        (
            "--pool 64M --blk path=a,rw",
            "unknown key 'rw'; the keys are path, ro, format, direct, serial, queues, transport, pool",
        ),
        ("--pool 64M --blk path=a,transport=usb", "transport: 'usb' is unknown; use mmio or pci"),
        ("--pool 64M --blk path=a,transport", "transport: '' is unknown"),
        ("--pool 64M --blk path=a,queues=0", "queues: '0' is not a number from 1 to 8"),
        ("--pool 64M --blk path=a,queues=9", "queues: '9' is not a number"),
        ("--pool 64M --blk path=a,queues=+2", "queues: '+2' is not a number"),
        ("--pool 64M --blk path=a,queues=65537", "queues: '65537' is not a number"),
        ("--pool 64M --net tap=t,queues", "queues: '' is not a number"),
        ("--pool 64M --rng yes", "--rng yes: unknown key 'yes'; the keys are transport, pool"),
        ("--pool 64M --rng queues=2", "unknown key 'queues'"),
        ("--pool 64M --rng --rng transport=", "--rng transport=: transport: '' is unknown"),
        ("--pool 64M --firmware uefi", "--firmware uefi: it must be dt or acpi"),
        (
            "--pool 64M --firmware acpi --dtb t",
            "--dtb t: with --firmware acpi, the guest gets no device tree",
        ),
        ("--pool 64M --firmware acpi --dump-dtb t", "--dump-dtb t: with --firmware acpi"),
        ("--pool 64M --dump-acpi d", "--dump-acpi d: without --firmware acpi, the guest gets no ACPI tables"),
        ("--pool 64M --blk path=a,serial=123456789012345678901", "serial: it must have at most 20"),
        ("--pool 64M --net mac=02:00:00:00:00:01", "tap=... is missing"),
        ("--pool 64M --net tap0", "tap=... is missing; write --net tap=tap0"),
        ("--pool 64M --net tap=t,mac=2:0:0:0:0:1", "mac: '2:0:0:0:0:1' is not six octets"),
        ("--pool 64M --net tap=t,mac=02:00:00:00:00:01:02", "is longer than six octets"),
        ("--pool 64M --net tap=t,mac=01:00:00:00:00:01", "is a group address"),
        ("--pool 64M --net tap=t,mac=00:00:00:00:00:00", "is all zeros"),
        ("--pool 64M --console file=", "--console file=: it must be stdio, file=PATH or off"),
        ("--pool 64M --console tty", "--console tty: it must be"),
    ] {
        let error = error(options);
        assert!(error.contains(expected), "{options}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    // No value of these is a path, or nothing is missing.
    for (options, end) in [
        ("--pool 64M --net tap=t,x", ", transport, pool"),
        ("--pool 64M --blk ro", "path=... is missing"),
        ("--pool 64M --blk path=a,x=1", ", transport, pool"),
    ] {
        assert!(error(options).ends_with(end), "{options}: {}", error(options));
    }
}

#[test]
fn queues_and_transports_go_together_at_will() {
    for transport in ["mmio", "pci"] {
        let options = format!("--pool 64M --net tap=t,queues=8,transport={transport}");
        let machine = machine(&options);
        assert!(matches!(machine.devices[0].kind, DeviceKind::Net { queues: 8, .. }), "{machine:?}");
    }
    let machine = machine("--pool 64M --blk path=a,queues=2 --rng transport=pci");
    assert!(matches!(machine.devices[0].kind, DeviceKind::Blk { queues: 2, .. }));
    let transports: Vec<_> = machine.devices.iter().map(|device| device.transport).collect();
    assert_eq!(transports, [TransportKind::Mmio, TransportKind::Pci]);
}

/// Each transport has room of its own; the device that is named is the first that has none.
#[test]
fn more_devices_than_there_is_room_for_are_refused() {
    let devices = |mmio, pci| {
        let disks: String = (0..mmio).map(|index| format!("--blk path=d{index} ")).collect();
        let rngs = "--rng transport=pci ".repeat(pci);
        format!("--pool 64M {disks} {rngs}")
    };
    let (mmio, pci) = (layout::MAX_VIRTIO_MMIO, layout::MAX_VIRTIO_PCI);
    let machine = machine(&devices(mmio, pci));
    assert!(crate::machine::describe(&machine).is_ok());
    let named = format!("--blk path=d{mmio}: a machine has room for {mmio} devices on mmio");
    assert!(error(&devices(mmio + 2, 0)).starts_with(&named));
    let named = format!("--rng transport=pci: a machine has room for {pci} devices on pci");
    assert!(error(&devices(0, pci + 1)).starts_with(&named));
}
