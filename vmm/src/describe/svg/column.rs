// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where blocks are in the picture. Low addresses are at the top.

use cvmm_firmware::PoolId;

use crate::describe::map::{Block, Class, PAGE};

/// Height of a page, with room for a line of text.
const PAGE_HEIGHT: f64 = 20.0;
/// What each doubling adds.
const DOUBLING: f64 = 4.0;
/// Most ticks of the scale, beside the one at 0.
const TICKS: u64 = 8;

/// A block in the picture.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) block: Block,
    pub(super) y: f64,
    pub(super) height: f64,
    /// Its start and end in the map that is to scale.
    pub(super) scaled: (f64, f64),
}

impl Row {
    pub(super) fn end(&self) -> f64 {
        self.y + self.height
    }

    pub(super) fn middle(&self) -> f64 {
        self.y + self.height / 2.0
    }
}

/// All blocks, one under the other.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) rows: Vec<Row>,
    top: f64,
    /// End of the last block.
    end: u64,
}

impl Column {
    pub(super) fn new(blocks: Vec<Block>, top: f64) -> Self {
        let end = blocks.last().map_or(1, |block| block.range.end());
        let total: f64 = blocks.iter().map(height).sum();
        let scaled = |address: u64| top + total * (address as f64 / end as f64);
        let mut y = top;
        let rows = blocks.into_iter().map(|block| {
            let (from, height) = (y, height(&block));
            y += height;
            let scaled = (scaled(block.range.base()), scaled(block.range.end()));
            Row { block, y: from, height, scaled }
        });
        Self { rows: rows.collect(), top, end }
    }

    pub(super) fn bottom(&self) -> f64 {
        self.rows.last().map_or(self.top, Row::end)
    }

    pub(super) fn height(&self) -> f64 {
        self.bottom() - self.top
    }

    /// Round addresses, and where they are in the map that is to scale.
    pub(super) fn ticks(&self) -> Vec<(u64, f64)> {
        let mut step = 1 << 30;
        while self.end / step > TICKS {
            step *= 2;
        }
        let at = |address: u64| self.top + self.height() * (address as f64 / self.end as f64);
        (0..=self.end / step).map(|number| (number * step, at(number * step))).collect()
    }

    /// An arrow from each device of the pool `id` to that pool. They do not cross.
    pub(super) fn arrows(&self, id: PoolId) -> Vec<Arrow> {
        let Some(pool) = self.rows.iter().find(|row| row.block.class == Class::Pool(id)) else {
            return Vec::new();
        };
        let devices = self.rows.iter().filter(|row| row.block.class == Class::Device(id));
        // From the top of the pool: of the devices above it the nearest first, of those below it the farthest.
        let (above, below): (Vec<_>, Vec<_>) = devices.rev().partition(|row| row.y < pool.y);
        let gap = pool.height / (above.len() + below.len() + 1) as f64;
        let devices = above.into_iter().chain(below).enumerate();
        let arrows = devices.map(|(index, row)| {
            let (from, to) = (row.middle(), pool.y + gap * (index + 1) as f64);
            Arrow { from, to, reach: (from - to).abs() / self.height(), width: (gap / 4.0).clamp(0.5, 1.1) }
        });
        arrows.collect()
    }
}

/// An arrow that leaves the column at a device and comes back to it at a pool.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) from: f64,
    pub(super) to: f64,
    /// How far it goes, in heights of the column.
    pub(super) reach: f64,
    /// Of its line: thinner, the less room its head has.
    pub(super) width: f64,
}

fn height(block: &Block) -> f64 {
    match block.class {
        Class::Hole => PAGE_HEIGHT,
        _ => PAGE_HEIGHT + DOUBLING * (block.range.size() as f64 / PAGE as f64).log2().max(0.0),
    }
}
