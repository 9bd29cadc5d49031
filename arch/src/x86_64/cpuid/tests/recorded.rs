// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Machines on which Linux was asked what it makes of them.

use super::hosts;
use super::linux::Cpu;
use super::table::Table;

pub struct Machine {
    pub name: &'static str,
    pub tables: Vec<Table>,
    /// What sysfs showed for each CPU.
    pub lines: Vec<String>,
}

pub fn machines() -> Vec<Machine> {
    let text = include_str!("recorded.txt");
    text.split("\nmachine ").skip(1).map(machine).collect()
}

fn machine(text: &'static str) -> Machine {
    let mut cpus = text.split("\ncpu ");
    let name = cpus.next().unwrap();
    let (lines, tables) = cpus.map(cpu).unzip();
    Machine { name, tables, lines }
}

fn cpu(text: &str) -> (String, Table) {
    let (line, leaves) = text.split_once('\n').unwrap();
    let leaf = |line: &str| {
        let numbers: Vec<_> = line.split(' ').map(|word| u32::from_str_radix(word, 16).unwrap()).collect();
        (numbers[0], numbers[1], numbers[2..].try_into().unwrap())
    };
    (line.to_owned(), Table(hosts::cpuid(&leaves.lines().map(leaf).collect::<Vec<_>>())))
}

/// A CPU in the same form.
pub fn line(cpu: &Cpu) -> String {
    let mut words = [cpu.package, cpu.die, cpu.core].map(|number| number.to_string()).to_vec();
    words.extend([list(&cpu.of_core), list(&cpu.of_package)]);
    words.extend(cpu.caches.iter().map(|cache| format!("L{}:{}", cache.level, list(&cache.cpus))));
    words.join(" ")
}

/// CPUs without gaps, as the kernel writes them.
fn list(cpus: &[usize]) -> String {
    match cpus {
        [one] => one.to_string(),
        all => format!("{}-{}", all[0], all[all.len() - 1]),
    }
}
