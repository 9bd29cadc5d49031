// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The description for programs.

use serde_json::{Value, json};

use super::{MIXED, MIXED_NAMES, Place};

fn parse(place: &Place, options: &str) -> Value {
    serde_json::from_slice(&place.describe(&format!("{options} --format json"))).unwrap()
}

/// What devices say of their pools, for programs and to read.
#[test]
fn the_text_that_is_followed() {
    let place = Place::new();
    for (options, name, bit, unaware, named, text) in [
        ("", "upstream", None, None, false, "upstream (--spec upstream): no feature bit"),
        (
            "--spec rfc --unaware allow",
            "rfc",
            Some(27),
            Some("allow"),
            false,
            "rfc (--spec rfc): feature bit 27, a driver that does not accept it is served",
        ),
        (
            "--spec plan --feature-bit 47",
            "plan",
            Some(47),
            Some("refuse"),
            true,
            "plan (--spec plan): feature bit 47, a driver that does not accept it is refused; registers name the pool",
        ),
    ] {
        let options = format!("--pool 4M --rng {options}");
        let expected = json!({"name": name, "feature_bit": bit, "unaware": unaware, "registers_name_pool": named, "access_platform": true});
        assert_eq!(parse(&place, &options)["spec"], expected, "{options}");
        let line = format!("{:<15}{text}", "specification");
        let seen = place.text(&options);
        assert!(seen.lines().any(|other| other == line), "no line '{line}': {seen}");
    }
}

fn extent(value: &Value) -> (u64, u64) {
    (value["base"].as_u64().unwrap(), value["size"].as_u64().unwrap())
}

/// Fields are there for others to read: if this must change, so must the version.
#[test]
fn version_1() {
    let place = Place::new();
    let value = parse(&place, &format!("{MIXED} --mem 5G --cpus 2"));
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "acpi_tables bootargs cpus devices firmware io_apic local_apic memory pci power pvpanic sleep spec uart version";
    assert_eq!(keys.join(" "), expected);
    assert_eq!(value["version"], 1);
    assert_eq!(value["firmware"], "dt");
    assert_eq!(value["acpi_tables"], Value::Null);
    assert_eq!(value["cpus"], json!([{"apic_id": 0}, {"apic_id": 1}]));
    assert_eq!(
        value["memory"],
        json!({
            "total": 5_368_709_120_u64,
            "ram": [{"base": 0, "size": 3_221_225_472_u64}, {"base": 4_294_967_296_u64, "size": 2_147_483_648_u64}],
            "private": [
                {"base": 0, "size": 3_137_339_392_u64},
                {"base": 3_204_448_256_u64, "size": 16_777_216},
                {"base": 4_294_967_296_u64, "size": 2_147_483_648_u64},
            ],
            "pools": [
                {"name": "pool", "base": 3_137_339_392_u64, "size": 67_108_864, "dma_default": false},
            ],
        })
    );
    assert_eq!(value["uart"], json!({"base": 0xd100_0000_u64, "size": 8, "gsi": 4}));
    assert_eq!(value["io_apic"], json!({"base": 0xfec0_0000_u64, "size": 4096, "pins": 64}));
    assert_eq!(
        value["sleep"],
        json!({"base": 0xd100_1010_u64, "size": 3, "power_off_type": 5, "reset_value": 1})
    );
    assert_eq!(
        value["power"],
        json!({"base": 0xd100_1000_u64, "size": 4, "power_off_value": 0x5555, "reset_value": 0x7777})
    );
    assert_eq!(
        value["pci"],
        json!({
            "ecam": {"base": 0xe000_0000_u64, "size": 0x10_0000},
            "config_ports": {"base": 0xcf8, "size": 8},
            "memory": {"base": 0xc000_0000_u64, "size": 0x1000_0000},
            "lines": [60, 61, 62, 63],
        })
    );
    assert_eq!(
        value["devices"],
        json!([
            {
                "name": "blk0", "kind": "blk", "transport": "pci", "pool": "pool", "names_pool": true, "gsi": 61,
                "window": {"base": 0xc000_8000_u64, "size": 0x8000}, "pci_address": "0000:00:01.0", "pci_device": 1,
            },
            {
                "name": "blk1", "kind": "blk", "transport": "mmio", "pool": "pool", "names_pool": true, "gsi": 5,
                "window": {"base": 0xd000_0000_u64, "size": 4096},
            },
            {
                "name": "net0", "kind": "net", "transport": "pci", "pool": "pool", "names_pool": true, "gsi": 62,
                "window": {"base": 0xc001_0000_u64, "size": 0x8000}, "pci_address": "0000:00:02.0", "pci_device": 2,
            },
            {
                "name": "rng0", "kind": "rng", "transport": "mmio", "pool": "pool", "names_pool": true, "gsi": 6,
                "window": {"base": 0xd000_1000_u64, "size": 4096},
            },
        ])
    );
}

#[test]
fn private_memory_and_pools_are_all_of_memory() {
    let place = Place::new();
    for options in [
        "--pool 2M --mem 34M",
        "--pool 2M --mem 64M",
        "--pool size=64M,base=256M",
        "--pool size=1G,base=5G,name=p --mem 63G",
        "--pool 4G --mem 16G",
        "--pool 2G --pool 2G --pool 2M --mem 16G",
    ] {
        let memory = &parse(&place, options)["memory"];
        let extents = |name: &str| memory[name].as_array().unwrap().iter().map(extent).collect::<Vec<_>>();
        let mut parts: Vec<_> = extents("private").into_iter().chain(extents("pools")).collect();
        parts.sort_unstable();
        for pair in parts.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{options}: {parts:x?}");
        }
        let sum = |extents: Vec<(u64, u64)>| extents.iter().map(|(_, size)| size).sum::<u64>();
        let total = memory["total"].as_u64().unwrap();
        assert_eq!((sum(parts), sum(extents("ram"))), (total, total), "{options}");
    }
}

/// What has no place below 4 GiB is above, and the device tree and the ACPI tables say so.
#[test]
fn a_pool_of_4_gib_is_above_4_gib() {
    let place = Place::new();
    let options = "--mem 16G --pool 4G,name=large --pool 2M,default --rng --rng pool=large";
    let value = parse(&place, options);
    let pools: Vec<_> = value["memory"]["pools"].as_array().unwrap().iter().map(extent).collect();
    assert_eq!(pools, [((13 << 30) - (16 << 20), 4 << 30), ((3 << 30) - (18 << 20), 2 << 20)]);
    for firmware in ["dt", "acpi"] {
        let text = place.text(&format!("{options} --firmware {firmware}"));
        assert!(text.contains("0x33f000000-0x43effffff"), "{text}");
    }
    let tree = place.describe(&format!("{options} --format dtb"));
    let reg = [3u32, 0x3f00_0000, 1, 0].map(u32::to_be_bytes).concat();
    assert!(tree.windows(16).any(|bytes| bytes == reg), "the pool's reg is in the device tree");
}

#[test]
fn tables_are_listed_where_the_guest_gets_them() {
    let place = Place::new();
    let value = parse(&place, &format!("{MIXED} --firmware acpi"));
    assert_eq!(value["firmware"], "acpi");
    let tables: Vec<_> = value["acpi_tables"].as_array().unwrap().iter().collect();
    assert_eq!((&tables[0]["name"], &tables[0]["base"]), (&json!("RSDP"), &json!(0xe_0000)));
    place.describe(&format!("{MIXED} --format acpi --output tables"));
    for table in &tables {
        let file = format!("tables/{}.aml", table["name"].as_str().unwrap().to_lowercase());
        assert_eq!(extent(table).1, std::fs::metadata(place.path(&file)).unwrap().len(), "{file}");
    }
    assert_eq!(std::fs::read_dir(place.path("tables")).unwrap().count(), tables.len());
    let names = value["devices"].as_array().unwrap().iter().map(|device| &device["name"]);
    assert!(names.eq(MIXED_NAMES.iter()));
    assert!(value["bootargs"].as_str().unwrap().contains("reboot=p"), "{value}");
    let value = parse(&place, "--pool 2M --rng");
    assert_eq!(value["pci"], Value::Null);
}
