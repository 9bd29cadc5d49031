// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest-physical map as a picture: on the left all of it, to scale; in the middle block by block, with logarithmic
//! heights, so that a page can be seen beside gigabytes, and holes of one height; on the right an arrow from each device
//! to its pool.

mod canvas;
mod column;
mod style;

use cvmm_firmware::{Machine, PoolId, VirtioDevice};

use super::map::{self, Block, Class};
use super::table_area;
use crate::config::{FirmwareKind, MachineConfig};
use crate::{Error, Result};
use canvas::{Canvas, Rect};
use column::{Arrow, Column, Row};

const MARGIN: f64 = 20.0;
/// Left edges: the map to scale, and the map block by block.
const SCALE_X: f64 = 70.0;
const BLOCKS_X: f64 = 190.0;
const SCALE_WIDTH: f64 = 44.0;
const BLOCKS_WIDTH: f64 = 640.0;
/// Room for arrows.
const ARROWS_WIDTH: f64 = 120.0;
const WIDTH: f64 = BLOCKS_X + BLOCKS_WIDTH + ARROWS_WIDTH + MARGIN;
const TOP: f64 = 122.0;

/// The picture of `machine`.
pub(super) fn svg(config: &MachineConfig, machine: &Machine) -> Result<Vec<u8>> {
    let column = Column::new(map::map(machine, table_area(config)), TOP);
    draw(config, machine, &column).map_err(|error| Error::vmm("picture", error))
}

fn draw(config: &MachineConfig, machine: &Machine, column: &Column) -> std::io::Result<Vec<u8>> {
    let mut canvas = Canvas::new(WIDTH, column.bottom() + MARGIN, "Guest-physical memory map")?;
    let pools = map::reachable(machine).len();
    canvas.style(&style::style(pools))?;
    canvas.rect("paper", Rect { x: 0.0, y: 0.0, width: WIDTH, height: column.bottom() + MARGIN })?;
    for id in (0..).take(pools) {
        canvas.arrow_head(id)?;
    }
    heading(&mut canvas, config, machine)?;
    legend(&mut canvas, column)?;
    scale(&mut canvas, column)?;
    for row in &column.rows {
        block(&mut canvas, row)?;
    }
    arrows(&mut canvas, column, pools)?;
    canvas.finish()
}

fn heading(canvas: &mut Canvas, config: &MachineConfig, machine: &Machine) -> std::io::Result<()> {
    let pools: u64 = machine.pools.iter().map(|pool| pool.range.size()).sum();
    let own: u64 = machine.virtio.iter().filter_map(VirtioDevice::own_memory).map(|own| own.size()).sum();
    let own = if own > 0 { format!(", and {} of their own", map::size(own)) } else { String::new() };
    let form = match config.firmware {
        FirmwareKind::Dt => "a device tree",
        FirmwareKind::Acpi => "ACPI tables",
    };
    let cpus = machine.cpus.len();
    let subtitle = format!(
        "{} of RAM, of which devices reach {}{own}; {cpus} CPU{}; {} virtio device{}; described by {form}",
        map::size(config.mem),
        map::size(pools),
        plural(cpus),
        machine.virtio.len(),
        plural(machine.virtio.len()),
    );
    canvas.text("title", MARGIN, 32.0, &[("", "Guest-physical memory")])?;
    canvas.text("", MARGIN, 51.0, &[("", &subtitle)])?;
    canvas.text("note middle", SCALE_X + SCALE_WIDTH / 2.0, TOP - 8.0, &[("", "to scale")])?;
    let note = "block by block: from 4 KiB on, each doubling of a size adds the same height; holes are cut short, \
                gaps below 4 KiB left out";
    canvas.text("note", BLOCKS_X, TOP - 8.0, &[("", note)])
}

/// What the colours and the arrows mean, as far as they are in the picture.
fn legend(canvas: &mut Canvas, column: &Column) -> std::io::Result<()> {
    let (mut x, y) = (MARGIN, 66.0);
    for (class, text, width) in [
        ("private", "private memory", 124.0),
        ("pool0", "pool", 64.0),
        ("device", "virtio registers", 120.0),
        ("system", "other registers", 118.0),
        ("free", "free for BARs", 108.0),
        ("hole", "hole", 64.0),
    ] {
        if column.rows.iter().any(|row| self::class(&row.block) == class) {
            canvas.rect(class, Rect { x, y, width: 14.0, height: 12.0 })?;
            canvas.text("", x + 19.0, y + 10.0, &[("", text)])?;
            x += width;
        }
    }
    if column.rows.iter().any(|row| matches!(row.block.class, Class::Device(_))) {
        canvas.arrow(0, &format!("M{:.1} {:.1}h22", x, y + 6.0), 1.1)?;
        canvas.text("", x + 28.0, y + 10.0, &[("", "all the memory that a device reaches")])?;
    }
    Ok(())
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// All of the address space to scale, and what each of its blocks becomes in the other column.
fn scale(canvas: &mut Canvas, column: &Column) -> std::io::Result<()> {
    let right = SCALE_X + SCALE_WIDTH;
    let all = Rect { x: SCALE_X, y: TOP, width: SCALE_WIDTH, height: column.height() };
    canvas.rect("hole", all)?;
    for row in column.rows.iter().filter(|row| row.block.class != Class::Hole) {
        let (from, to) = row.scaled;
        // What is too thin to see is drawn as a line.
        let height = (to - from).max(0.6);
        let class = class(&row.block);
        canvas.rect(&class, Rect { x: SCALE_X, y: from, width: SCALE_WIDTH, height })?;
        let path =
            format!("M{right:.1} {from:.2}L{BLOCKS_X:.1} {:.1}V{:.1}L{right:.1} {to:.2}Z", row.y, row.end());
        canvas.path(&format!("zoom {class}"), &path)?;
    }
    for (address, y) in column.ticks() {
        canvas.path("tick", &format!("M{:.1} {y:.1}H{SCALE_X:.1}", SCALE_X - 5.0))?;
        canvas.text("tick-label", SCALE_X - 8.0, y + 3.5, &[("", &tick(address))])?;
    }
    Ok(())
}

fn tick(address: u64) -> String {
    if address == 0 { "0".into() } else { map::size(address) }
}

fn block(canvas: &mut Canvas, row: &Row) -> std::io::Result<()> {
    let Block { range, name, detail, .. } = &row.block;
    canvas
        .rect(&class(&row.block), Rect { x: BLOCKS_X, y: row.y, width: BLOCKS_WIDTH, height: row.height })?;
    let y = row.middle() + 4.0;
    let addresses = format!("{:#x}\u{2013}{:#x}", range.base(), range.last());
    let muted = if row.block.class == Class::Hole { "muted" } else { "" };
    canvas.text(&format!("mono {muted}"), BLOCKS_X + 8.0, y, &[("", &addresses)])?;
    canvas.text(&format!("end {muted}"), BLOCKS_X + 236.0, y, &[("", &map::size(range.size()))])?;
    let name_class = if muted.is_empty() { "name" } else { "" };
    canvas.text(muted, BLOCKS_X + 250.0, y, &[(name_class, name), ("", "\u{2002}"), ("", detail)])
}

/// An arrow from each device to its pool. Those from afar go around those from near.
fn arrows(canvas: &mut Canvas, column: &Column, pools: usize) -> std::io::Result<()> {
    let x = BLOCKS_X + BLOCKS_WIDTH;
    let arrows: Vec<_> = (0..)
        .take(pools)
        .flat_map(|id| column.arrows(PoolId(id)).into_iter().map(move |a| (id, a)))
        .collect();
    let longest = arrows.iter().map(|(_, arrow)| arrow.reach).fold(f64::MIN_POSITIVE, f64::max);
    for (id, Arrow { from, to, reach, width }) in arrows {
        // A cubic curve gets three quarters of the way to its control points.
        let reach = x + ARROWS_WIDTH / 0.76 * (0.2 + 0.8 * reach / longest);
        canvas.circle(&format!("dot{id}"), x, from, 2.2)?;
        let path =
            format!("M{x:.1} {from:.1}C{reach:.1} {from:.1} {reach:.1} {to:.1} {:.1} {to:.1}", x + 1.0);
        canvas.arrow(id, &path, width)?;
    }
    Ok(())
}

fn class(block: &Block) -> String {
    match block.class {
        Class::Private => "private".into(),
        Class::Pool(PoolId(index)) => format!("pool{index}"),
        Class::Device(_) => "device".into(),
        Class::System => "system".into(),
        Class::Free => "free".into(),
        Class::Hole => "hole".into(),
    }
}

#[cfg(test)]
mod tests {
    use cvmm_firmware::{Pool, Range};
    use roxmltree::Document;

    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn picture(change: impl FnOnce(&mut Machine)) -> String {
        let options = "cvmm describe --pool 64M --mem 5G --rng --rng --rng transport=pci";
        let Command::Describe(args) = Cli::parse_from(options.split(' ')).command else { unreachable!() };
        let config = MachineConfig::new(&args.machine).unwrap();
        let mut machine = crate::machine::describe(&config).unwrap();
        change(&mut machine);
        String::from_utf8(svg(&config, &machine).unwrap()).unwrap()
    }

    #[test]
    fn names_are_escaped() {
        let name = "<a&b>\"'</text>";
        let svg = picture(|machine| {
            machine.pools[0].name = name.into();
            machine.virtio[1].name = name.into();
        });
        let document = Document::parse(&svg).unwrap();
        assert_eq!(
            document.descendants().filter(|node| node.is_text() && node.text() == Some(name)).count(),
            2
        );
    }

    /// More pools than colours, in low and in high memory.
    #[test]
    fn each_pool_has_its_arrows() {
        let svg = picture(|machine| {
            for index in 1..6u64 {
                let range = Range::new((4 << 30) + (index << 26), 1 << 26).unwrap();
                machine.pools.push(Pool { name: format!("p{index}"), range, dma_default: false });
            }
            machine.virtio[1].pool = PoolId(5);
            machine.virtio[2].pool = PoolId(5);
        });
        let document = Document::parse(&svg).unwrap();
        let class =
            |name: &str| document.descendants().filter(|node| node.attribute("class") == Some(name)).count();
        // One of the first is the one that is explained.
        assert_eq!(["arrow0", "arrow1", "arrow5"].map(class), [2, 0, 2]);
        assert!(svg.contains("url(#head5)") && svg.contains("id=\"head5\""));
    }
}
