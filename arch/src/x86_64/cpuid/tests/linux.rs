// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What Linux 6.12 makes of the CPUs' tables, in the order in which it asks for the leaves: topology_common.c, topology_ext.c,
//! topology_amd.c, topology.c, cacheinfo.c (arch/x86/kernel/cpu) and smpboot.c.

use std::collections::BTreeSet;

use super::table::{Table, bits};

/// The domains of a topology, which Linux numbers upwards.
const SMT: usize = 0;
const CORE: usize = 1;
const TILE: usize = 3;
const DIE: usize = 4;
const GROUP: usize = 5;
const PACKAGE: usize = 6;
const DOMAINS: usize = 7;
/// More entries than a leaf has: Linux would look for its end for ever.
const MANY: u32 = 16;

/// A CPU as sysfs shows it.
#[derive(Debug)]
pub struct Cpu {
    pub package: u32,
    pub die: u32,
    pub node: u32,
    pub core: u32,
    pub threads_per_core: usize,
    pub cores_per_package: usize,
    pub of_core: Vec<usize>,
    pub of_package: Vec<usize>,
    /// What the scheduler goes by.
    pub of_last_cache: Vec<usize>,
    pub caches: Vec<Cache>,
}

#[derive(Debug)]
pub struct Cache {
    pub level: u32,
    pub cpus: Vec<usize>,
}

/// Reads the tables of CPUs with these APIC IDs, in their order. An error is what Linux would complain about in its log.
pub fn read(tables: &[Table], ids: &[u32]) -> Result<Vec<Cpu>, String> {
    let scans: Vec<Scan> = tables.iter().map(Scan::new).collect::<Result<_, _>>()?;
    let shifts = scans[0].shifts;
    for (&id, (table, scan)) in ids.iter().zip(tables.iter().zip(&scans)) {
        if scan.apic_id != id || table.leaf(1, 0)[1] >> 24 != id {
            return Err(format!("CPU {id}: APIC ID mismatch: {}", scan.apic_id));
        }
        if scan.shifts != shifts {
            return Err(format!("CPU {id}: topology shifts {:?}, not {shifts:?}", scan.shifts));
        }
    }
    let package = |id: u32| id >> shifts[GROUP];
    let die = |id: u32| id >> shifts[DIE - 1];
    let core = |id: u32| (id & ((1 << shifts[PACKAGE]) - 1)) >> shifts[SMT];
    let cores: BTreeSet<_> = ids.iter().map(|&id| (package(id), core(id))).collect();
    let threads_per_core = ids.len().div_ceil(cores.len());
    let cores_per_package = cores.iter().filter(|core| core.0 == package(ids[0])).count();
    let several = threads_per_core > 1 || cores_per_package > 1;
    let extensions = scans[0].extensions;
    let numbers =
        |alike: &dyn Fn(usize) -> bool| (0..ids.len()).filter(|cpu| alike(*cpu)).collect::<Vec<_>>();

    let read = |own: usize| {
        let (id, scan) = (ids[own], &scans[own]);
        let same_last_cache = |other: usize| scans[other].last_cache == scan.last_cache;
        let same_core = |other: usize| {
            let unit = |id| (package(id), die(id), core(id));
            let same_node = scans[other].node == scan.node && same_last_cache(other);
            threads_per_core > 1 && unit(ids[other]) == unit(id) && (same_node || !extensions)
        };
        let of_last_cache = numbers(&|other| other == own || several && same_last_cache(other));
        let caches = scan.caches.iter().enumerate().map(|(index, &(level, sharing))| Cache {
            level,
            cpus: match (scan.amd, extensions) {
                (true, _) if index == 3 => of_last_cache.clone(),
                (true, true) => numbers(&|other| ids[other] / sharing == id / sharing),
                _ => numbers(&|other| ids[other] >> bits(sharing) == id >> bits(sharing)),
            },
        });
        Cpu {
            package: package(id),
            die: die(id),
            node: scan.node,
            core: core(id),
            threads_per_core,
            cores_per_package,
            of_core: numbers(&|other| other == own || same_core(other)),
            of_package: numbers(&|other| package(ids[other]) == package(id)),
            caches: caches.collect(),
            of_last_cache,
        }
    };
    Ok((0..ids.len()).map(read).collect())
}

/// What one CPU says.
#[derive(Debug)]
struct Scan {
    amd: bool,
    extensions: bool,
    apic_id: u32,
    shifts: [u32; DOMAINS],
    node: u32,
    last_cache: Option<u32>,
    /// Level, and how many share it.
    caches: Vec<(u32, u32)>,
}

impl Scan {
    fn new(table: &Table) -> Result<Self, String> {
        let amd = matches!(&table.vendor(), b"Auth" | b"Hygo");
        let mut scan = Self {
            amd,
            extensions: amd && table.leaf(0x8000_0001, 0)[2] >> 22 & 1 == 1,
            apic_id: table.leaf(1, 0)[1] >> 24,
            shifts: [0; DOMAINS],
            node: 0,
            last_cache: None,
            caches: Vec::new(),
        };
        let leaves = extended_leaves(table);
        let mut extended = false;
        for leaf in leaves {
            extended = scan.extended(table, leaf)?;
            if extended {
                break;
            }
        }
        match (amd, extended) {
            (true, false) => scan.amd_cores(table),
            (false, false) => scan.legacy_cores(table)?,
            (_, true) => {}
        }
        if scan.extensions {
            scan.amd_nodes(table, extended);
        }
        if amd {
            scan.amd_caches(table);
            scan.last_cache = scan.last_cache.or(Some(scan.apic_id >> scan.shifts[CORE]));
        } else {
            scan.intel_caches(table);
        }
        Ok(scan)
    }

    /// A domain, and those above as long as nothing else is known of them.
    fn set(&mut self, domain: usize, shift: u32) {
        self.shifts[domain..].fill(shift);
    }

    fn extended(&mut self, table: &Table, leaf: u32) -> Result<bool, String> {
        let mut threads = 0;
        for index in 0..MANY {
            let [eax, ebx, ecx, id] = table.leaf(leaf, index);
            let (count, kind) = (ebx & 0xffff, ecx >> 8 & 0xff);
            if count == 0 || kind == 0 {
                if self.shifts[SMT] == 0 && threads > 1 {
                    return Err(format!("leaf {leaf:#x}: a shift of 0 for {threads} threads"));
                }
                return Ok(index > 0);
            }
            let domain = match (leaf, kind) {
                (_, 1) => SMT,
                (_, 2) => CORE,
                (0x8000_0026, 3) => TILE,
                (0x8000_0026, 4) => DIE,
                (0x1f, 3..=6) => kind as usize - 1,
                _ => return Err(format!("leaf {leaf:#x}, index {index}: unknown kind {kind}")),
            };
            if domain == SMT {
                (self.apic_id, threads) = (id, count);
            } else if id != self.apic_id {
                return Err(format!("leaf {leaf:#x}, index {index}: APIC ID {id}, not {}", self.apic_id));
            }
            self.set(domain, eax & 0x1f);
        }
        Err(format!("leaf {leaf:#x} has no end"))
    }

    fn legacy_cores(&mut self, table: &Table) -> Result<(), String> {
        let [eax, ..] = table.leaf(4, 0);
        let cores = if table.leaf(0, 0)[0] < 4 || eax & 0x1f == 0 { 1 } else { (eax >> 26) + 1 };
        let [_, ebx, _, edx] = table.leaf(1, 0);
        let threads = match edx >> 28 & 1 {
            0 => 0,
            _ => bits(ebx >> 16 & 0xff).checked_sub(bits(cores)).ok_or("fewer threads than cores")?,
        };
        self.set(SMT, threads);
        self.set(CORE, bits(cores) + threads);
        Ok(())
    }

    fn amd_cores(&mut self, table: &Table) {
        if table.leaf(0x8000_0000, 0)[0] >= 0x8000_0008 {
            let [_, _, ecx, _] = table.leaf(0x8000_0008, 0);
            let size = ecx >> 12 & 0xf;
            self.set(SMT, 0);
            self.set(CORE, if size == 0 { bits((ecx & 0xff) + 1) } else { size });
        }
    }

    fn amd_nodes(&mut self, table: &Table, extended: bool) {
        let (family, model) = table.family_and_model();
        let [id, ebx, ecx, _] = table.leaf(0x8000_001e, 0);
        if !extended {
            self.apic_id = id;
            if family >= 0x17 {
                self.shifts[SMT] = bits((ebx >> 8 & 0xff) + 1);
            }
        }
        self.node = ecx & 0xff;
        if table.leaf(0x8000_0006, 0)[3] == 0 {
            return;
        }
        let caches = caches(table, 0x8000_001d);
        self.last_cache = match (family, model) {
            (..0x17, _) => Some(self.node),
            (0x17, ..=0x1f) | (0x18, _) => Some(self.apic_id >> 3),
            _ => caches.last().map(|&(_, sharing)| self.apic_id >> bits(sharing)),
        };
    }

    fn amd_caches(&mut self, table: &Table) {
        if self.extensions {
            self.caches = caches(table, 0x8000_001d);
            return;
        }
        let [_, _, l1d, l1i] = table.leaf(0x8000_0005, 0);
        let [_, _, l2, l3] = table.leaf(0x8000_0006, 0);
        let count = if l3 & 0xf000 == 0 { 3 } else { 4 };
        // Without one of them, it shows none.
        if ![l1d, l1i, l2, l3][..count].contains(&0) {
            self.caches = [(1, 1), (1, 1), (2, 1), (3, 1)][..count].to_vec();
        }
    }

    fn intel_caches(&mut self, table: &Table) {
        if table.leaf(0, 0)[0] > 3 {
            self.caches = caches(table, 4);
        }
        let of_level = |level| self.caches.iter().rev().find(|cache| cache.0 == level);
        let last = of_level(3).or(of_level(2));
        let id = last.map(|&(_, sharing)| self.apic_id >> bits(sharing) << bits(sharing));
        self.last_cache = id.or(Some(self.apic_id >> self.shifts[GROUP]));
    }
}

fn extended_leaves(table: &Table) -> impl Iterator<Item = u32> {
    let (basic, amd) = (table.leaf(0, 0)[0], table.leaf(0x8000_0000, 0)[0]);
    let known = [(0x1f, basic), (0x8000_0026, amd), (0xb, basic)];
    known.into_iter().filter(|(leaf, last)| last >= leaf).map(|(leaf, _)| leaf)
}

/// Level and number of sharing threads, of each cache.
fn caches(table: &Table, leaf: u32) -> Vec<(u32, u32)> {
    let all = (0..MANY).map(|index| table.leaf(leaf, index)[0]).take_while(|eax| eax & 0x1f != 0);
    all.map(|eax| (eax >> 5 & 7, (eax >> 14 & 0xfff) + 1)).collect()
}
