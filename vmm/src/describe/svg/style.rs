// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Colours, for light and dark paper. Those of Okabe and Ito where the difference matters: also people who see no red or
//! no green tell them apart.

use std::fmt::Write as _;

const LIGHT: &str = "
svg { font: 11.5px 'Helvetica Neue', Helvetica, Arial, sans-serif }
text { fill: #1c2430 }
.title { font-size: 19px; font-weight: bold }
.name { font-weight: bold }
.note { font-size: 10.5px; fill: #5a6675 }
.middle { text-anchor: middle }
.end { text-anchor: end }
.mono { font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 10.5px }
.muted { fill: #7a8694 }
.paper { fill: #ffffff }
rect { stroke: #4c5866; stroke-width: 0.5 }
.paper { stroke: none }
.private { fill: #d9e2ec }
.device { fill: #cfe8fb }
.system { fill: #e9e1f4 }
.free { fill: #f3f8e9 }
.hole { fill: #ffffff; stroke-dasharray: 2 3; stroke: #9aa5b1 }
.zoom { fill-opacity: 0.45; stroke: none }
.tick { stroke: #4c5866; stroke-width: 0.7 }
.tick-label { font-size: 10px; text-anchor: end; fill: #5a6675 }
";

const DARK: &str = "
text { fill: #e4e9ef }
.note, .tick-label { fill: #a3afbd }
.muted { fill: #8794a3 }
.paper { fill: #14181e }
rect { stroke: #8794a3 }
.private { fill: #33404f }
.device { fill: #174a6b }
.system { fill: #443a5c }
.free { fill: #2c3a22 }
.hole { fill: #14181e; stroke: #5a6675 }
.tick { stroke: #a3afbd }
";

/// Fill in the light, fill in the dark, arrow in the light, arrow in the dark.
const POOLS: [[&str; 4]; 4] = [
    ["#ffd58a", "#7a5200", "#c65d00", "#f5b041"],
    ["#a6e3cf", "#0b5c47", "#007a5a", "#4fd1ab"],
    ["#f3c1dc", "#6d2f51", "#a8447f", "#e58fc0"],
    ["#f7e98a", "#5f5600", "#8a7a00", "#e6d43a"],
];

/// The style of a picture with this many pools.
pub(super) fn style(pools: usize) -> String {
    let (mut light, mut dark) = (LIGHT.to_owned(), DARK.to_owned());
    for (index, colours) in POOLS.iter().cycle().take(pools.max(1)).enumerate() {
        let [fill, dark_fill, line, dark_line] = colours;
        let _ = writeln!(
            light,
            ".pool{index} {{ fill: {fill} }}
.dot{index} {{ fill: {line} }}
.arrow{index} {{ fill: none; stroke: {line}; marker-end: url(#head{index}) }}"
        );
        let _ = writeln!(
            dark,
            ".pool{index} {{ fill: {dark_fill} }}
.dot{index} {{ fill: {dark_line} }}
.arrow{index} {{ stroke: {dark_line} }}"
        );
    }
    format!("{light}@media (prefers-color-scheme: dark) {{{dark}}}\n")
}
