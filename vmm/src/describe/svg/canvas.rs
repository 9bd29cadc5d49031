// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SVG elements. What they contain is escaped here.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

/// A rectangle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A picture that is being written.
pub(super) struct Canvas(Writer<Vec<u8>>);

impl Canvas {
    pub(super) fn new(width: f64, height: f64, title: &str) -> io::Result<Self> {
        let mut writer = Writer::new(Vec::new());
        let (width, height) = (number(width), number(height));
        let view = format!("0 0 {width} {height}");
        let svg = BytesStart::new("svg").with_attributes([
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("width", &width),
            ("height", &height),
            ("viewBox", &view),
            ("role", "img"),
            ("aria-label", title),
        ]);
        writer.write_event(Event::Start(svg))?;
        let mut canvas = Self(writer);
        canvas.line()?;
        canvas.0.create_element("title").write_text_content(BytesText::new(title))?;
        canvas.line()?;
        Ok(canvas)
    }

    pub(super) fn style(&mut self, style: &str) -> io::Result<()> {
        self.0.create_element("style").write_text_content(BytesText::new(style))?;
        self.line()
    }

    /// The head of the arrows of class `arrow<index>`.
    pub(super) fn arrow_head(&mut self, index: u16) -> io::Result<()> {
        let (id, class) = (format!("head{index}"), format!("dot{index}"));
        let marker = [
            ("id", id.as_str()),
            ("viewBox", "0 0 10 10"),
            ("refX", "9"),
            ("refY", "5"),
            ("markerWidth", "6.5"),
            ("markerHeight", "6.5"),
            ("orient", "auto"),
        ];
        self.0.create_element("marker").with_attributes(marker).write_inner_content(|writer| {
            let path = [("class", class.as_str()), ("d", "M0 1L10 5L0 9Z")];
            writer.create_element("path").with_attributes(path).write_empty()?;
            Ok(())
        })?;
        self.line()
    }

    pub(super) fn rect(&mut self, class: &str, rect: Rect) -> io::Result<()> {
        let [x, y, width, height] = [rect.x, rect.y, rect.width, rect.height].map(number);
        self.empty("rect", &[("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)])
    }

    pub(super) fn circle(&mut self, class: &str, x: f64, y: f64, radius: f64) -> io::Result<()> {
        let [x, y, radius] = [x, y, radius].map(number);
        self.empty("circle", &[("class", class), ("cx", &x), ("cy", &y), ("r", &radius)])
    }

    pub(super) fn path(&mut self, class: &str, path: &str) -> io::Result<()> {
        self.empty("path", &[("class", class), ("d", path)])
    }

    /// An arrow to the pool `index`, with a line of this width.
    pub(super) fn arrow(&mut self, index: u16, path: &str, width: f64) -> io::Result<()> {
        let class = format!("arrow{index}");
        self.empty("path", &[("class", &class), ("d", path), ("stroke-width", &number(width))])
    }

    /// A line of text made of `parts`, each of a class of its own.
    pub(super) fn text(&mut self, class: &str, x: f64, y: f64, parts: &[(&str, &str)]) -> io::Result<()> {
        let [x, y] = [x, y].map(number);
        let element = self.0.create_element("text").with_attributes([("x", x.as_str()), ("y", &y)]);
        let element = if class.is_empty() { element } else { element.with_attribute(("class", class)) };
        element.write_inner_content(|writer| {
            for (class, part) in parts {
                let part = BytesText::new(part);
                if class.is_empty() {
                    writer.write_event(Event::Text(part))?;
                } else {
                    let span = writer.create_element("tspan").with_attribute(("class", *class));
                    span.write_text_content(part)?;
                }
            }
            Ok(())
        })?;
        self.line()
    }

    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        self.0.write_event(Event::End(BytesEnd::new("svg")))?;
        self.line()?;
        Ok(self.0.into_inner())
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
        self.0.create_element(name).with_attributes(attributes.iter().copied()).write_empty()?;
        self.line()
    }

    fn line(&mut self) -> io::Result<()> {
        self.0.write_event(Event::Text(BytesText::new("\n")))
    }
}

fn number(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
