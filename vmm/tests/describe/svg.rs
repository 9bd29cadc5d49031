// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The picture, read as XML.

use roxmltree::{Document, Node};

use super::{MIXED, MIXED_NAMES, Place};

/// A block: its place in the picture, and what is written in it.
#[derive(Debug)]
struct Block {
    top: f64,
    bottom: f64,
    class: String,
    text: String,
}

fn number(node: &Node, name: &str) -> f64 {
    node.attribute(name).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{node:?}: {name}"))
}

fn class<'a>(node: &Node<'a, 'a>) -> &'a str {
    node.attribute("class").unwrap_or_default()
}

fn elements<'a>(document: &'a Document<'a>, name: &str) -> Vec<Node<'a, 'a>> {
    document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name))).collect()
}

/// The blocks of the wide column, from the top.
fn blocks(document: &Document) -> Vec<Block> {
    let text = |node: &Node| {
        node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect::<String>()
    };
    // The scale has texts, too, on the left.
    let inner = elements(document, "text").into_iter().filter(|node| number(node, "x") > 190.0);
    let texts: Vec<_> = inner.map(|node| (number(&node, "y"), text(&node))).collect();
    let rects = elements(document, "rect").into_iter();
    // The paper has no class of a block.
    let wide = rects.filter(|rect| number(rect, "width") > 300.0 && class(rect) != "paper");
    let blocks = wide.map(|rect| {
        let (top, height) = (number(&rect, "y"), number(&rect, "height"));
        let inside = texts.iter().filter(|(y, _)| (top..top + height).contains(y));
        let text = inside.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("|");
        Block { top, bottom: top + height, class: class(&rect).to_owned(), text }
    });
    blocks.collect()
}

/// Start and end of each arrow: heights.
fn arrows(document: &Document) -> Vec<(f64, f64)> {
    let paths = elements(document, "path").into_iter().filter(|path| class(path).starts_with("arrow"));
    let paths = paths.map(|path| path.attribute("d").unwrap().to_owned());
    // Not the one that is explained.
    let curves = paths.filter(|path| path.contains('C'));
    curves
        .map(|path| {
            let numbers: Vec<f64> = path
                .split([' ', 'M', 'C'])
                .filter(|part| !part.is_empty())
                .map(|part| part.parse().unwrap())
                .collect();
            (numbers[1], *numbers.last().unwrap())
        })
        .collect()
}

/// Each of `names` has a block, and an arrow from there to the pool; nothing else has.
fn check(svg: &str, names: &[String], pool: &str) {
    let bound: Vec<_> = names.iter().map(|name| (name.as_str(), pool)).collect();
    let document = Document::parse(svg).unwrap();
    check_arrows(&document, &bound, &[pool]);
    let pool = blocks(&document).into_iter().find(|block| block.class.starts_with("pool")).unwrap();
    let arrows = arrows(&document);
    // Arrows that come from one side do not cross.
    for (from, to) in &arrows {
        let same_side = arrows.iter().filter(|(other, _)| (*other < pool.top) == (*from < pool.top));
        for (other_from, other_to) in same_side {
            assert!(from == other_from || (from < other_from) == (to > other_to), "{arrows:?}");
        }
    }
    // It runs nothing and fetches nothing.
    for node in document.descendants() {
        assert!(!node.has_tag_name("script") && node.attributes().all(|a| !a.name().contains("href")));
    }
    // All of it can be seen.
    let height = number(&document.root_element(), "height");
    assert!(blocks(&document).iter().all(|block| block.bottom < height));
}

/// The devices have blocks and the pools have, and an arrow leads from each device to the pool that it is bound to.
fn check_arrows(document: &Document, bound: &[(&str, &str)], names: &[&str]) {
    let blocks = blocks(document);
    for pair in blocks.windows(2) {
        assert!((pair[0].bottom - pair[1].top).abs() < 0.02, "a gap or an overlap: {pair:#?}");
    }
    let devices: Vec<_> = blocks.iter().filter(|block| block.class == "device").collect();
    let pools: Vec<_> = blocks.iter().filter(|block| block.class.starts_with("pool")).collect();
    assert_eq!((devices.len(), pools.len()), (bound.len(), names.len()));
    let pool = |name: &str| {
        let found = pools.iter().find(|block| block.text.contains(&format!("|{name}\u{2002}")));
        found.unwrap_or_else(|| panic!("no {name}: {pools:?}"))
    };
    for name in names {
        pool(name);
    }
    let arrows = arrows(document);
    assert_eq!(arrows.len(), bound.len());
    for (name, pool) in bound.iter().map(|(name, bound)| (name, pool(bound))) {
        let mut found =
            devices.iter().filter(|block| block.text.contains(&format!("|{name}\u{2002}virtio-")));
        let (Some(block), None) = (found.next(), found.next()) else {
            panic!("not one {name}: {devices:#?}")
        };
        let middle = f64::midpoint(block.top, block.bottom);
        let from: Vec<_> = arrows.iter().filter(|(from, _)| (from - middle).abs() < 0.1).collect();
        assert_eq!(from.len(), 1, "arrows from {name}");
        assert!((pool.top..pool.bottom).contains(&from[0].1), "the arrow of {name} misses its pool");
    }
}

#[test]
fn with_several_pools_each_device_points_to_its_own() {
    let svg = Place::new().text(
        "--mem 1G --pool 64M,default --pool 16M,name=disk --pool 2M,name=spare --blk path=none,pool=disk \
         --blk path=none,transport=pci,pool=disk --rng --rng transport=pci,pool=disk --format svg",
    );
    let bound = [("blk0", "disk"), ("blk1", "disk"), ("rng0", "pool"), ("rng1", "disk")];
    check_arrows(&Document::parse(&svg).unwrap(), &bound, &["pool", "disk", "spare"]);
}

fn names(kind: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{kind}{index}")).collect()
}

#[test]
fn each_device_points_to_its_pool() {
    let place = Place::new();
    let svg = |options: &str| place.text(&format!("{options} --format svg"));
    check(&svg("--pool 64M"), &[], "pool");
    check(&svg("--pool 2M --mem 64M --blk path=none"), &names("blk", 1), "pool");
    check(&svg(MIXED), &MIXED_NAMES.map(str::to_owned), "pool");
    check(&svg(&format!("{MIXED} --firmware acpi")), &MIXED_NAMES.map(str::to_owned), "pool");
    let most = "--blk path=none ".repeat(55) + &"--blk path=none,transport=pci ".repeat(31);
    for pool in ["--pool size=64M,name=low", "--pool size=64M,base=5G,name=high"] {
        let name = pool.rsplit('=').next().unwrap();
        check(&svg(&format!("{pool} --mem 8G {most}")), &names("blk", 86), name);
    }
    check(&svg("--pool size=58G,base=4G --mem 63G --rng"), &names("rng", 1), "pool");
}

/// With numbers that can be checked by hand.
#[test]
fn blocks_say_where_they_are() {
    let place = Place::new();
    let svg = place.text(&format!("{MIXED} --mem 5G --format svg"));
    let blocks = blocks(&Document::parse(&svg).unwrap());
    for (class, text) in [
        ("private", "0x0\u{2013}0xbaffffff|2992 MiB|private memory\u{2002}no device reaches it"),
        ("pool0", "0xbb000000\u{2013}0xbeffffff|64 MiB|pool\u{2002}restricted-dma-pool"),
        (
            "device",
            "0xc0008000\u{2013}0xc000ffff|32 KiB|blk0\u{2002}virtio-pci 00:01.0, BAR 0, MSI-X or interrupt 61",
        ),
        ("device", "0xd0001000\u{2013}0xd0001fff|4 KiB|rng0\u{2002}virtio-mmio, interrupt 6"),
        ("hole", "0xfee01000\u{2013}0xffffffff|18.0 MiB|hole\u{2002}"),
        ("private", "0x100000000\u{2013}0x17fffffff|2 GiB|private memory\u{2002}no device reaches it"),
    ] {
        assert!(blocks.iter().any(|block| block.class == class && block.text == text), "{text}: {blocks:#?}");
    }
}
