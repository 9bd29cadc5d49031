// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files to and from a KVM host. Holes stay holes: a disk image costs what is in it.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Host;
use super::protocol::{Answer, Request};
use crate::sparse;

/// How much goes in one frame.
const PIECE: usize = 4 << 20;

/// A file's size and where it has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The length in bytes.
    pub size: u64,
    /// The bytes that it occupies.
    pub allocated: u64,
    /// Offsets and lengths of its data.
    pub extents: Vec<(u64, u64)>,
}

impl Host {
    /// Makes a file with this content.
    pub fn write(&self, path: impl AsRef<Path>, content: &[u8]) -> Result<()> {
        let path = path.as_ref();
        self.resize(path, 0)?;
        self.write_at(path, 0, content)
    }

    /// Writes into a file, creating it.
    pub fn write_at(&self, path: impl AsRef<Path>, offset: u64, content: &[u8]) -> Result<()> {
        for (index, piece) in content.chunks(PIECE).enumerate() {
            let offset = offset + (index * PIECE) as u64;
            self.request(&Request::Write { path: path.as_ref().to_owned(), offset, mode: None }, piece)?;
        }
        Ok(())
    }

    /// Makes a file this long, creating it; what is new is a hole.
    pub fn resize(&self, path: impl AsRef<Path>, size: u64) -> Result<()> {
        self.request(&Request::Resize { path: path.as_ref().to_owned(), size }, &[]).map(drop)
    }

    /// A file's content; files of /proc too.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.read_at(path, 0, u64::MAX)
    }

    /// A piece of a file, shorter where the file ends.
    pub fn read_at(&self, path: impl AsRef<Path>, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let left = length - content.len() as u64;
            let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let offset = offset + content.len() as u64;
            let request = Request::Read { path: path.as_ref().to_owned(), offset, length };
            let (_, bytes) = self.request(&request, &[])?;
            content.extend(&bytes);
            if bytes.len() < PIECE {
                return Ok(content);
            }
        }
    }

    /// A text file's content; files of /proc too.
    pub fn read_text(&self, path: impl AsRef<Path>) -> Result<String> {
        let content = self.read(path.as_ref())?;
        String::from_utf8(content).with_context(|| format!("{} is no text", path.as_ref().display()))
    }

    /// Where a file has data.
    pub fn layout(&self, path: impl AsRef<Path>) -> Result<Layout> {
        match self.request(&Request::Layout { path: path.as_ref().to_owned() }, &[])? {
            (Answer::Layout { size, allocated, extents }, _) => Ok(Layout { size, allocated, extents }),
            (other, _) => bail!("the agent answered {other:?} to a question for a layout"),
        }
    }

    /// Whether there is a file that can be read.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.layout(path).is_ok()
    }

    /// Removes a file or folder.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<()> {
        self.request(&Request::Remove { path: path.as_ref().to_owned() }, &[]).map(drop)
    }

    /// Copies the lab's file `from` to the host, with its permissions.
    pub fn put(&self, from: &Path, to: impl AsRef<Path>) -> Result<()> {
        let to = to.as_ref();
        let file = File::open(from).with_context(|| format!("cannot open {}", from.display()))?;
        let metadata = file.metadata()?;
        self.resize(to, 0)?;
        self.resize(to, metadata.len())?;
        for (offset, length) in pieces(&sparse::extents(&file)?) {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)
                .with_context(|| format!("cannot read {}", from.display()))?;
            self.write_at(to, offset, &bytes)?;
        }
        let mode = Some(metadata.permissions().mode() & 0o777);
        self.request(&Request::Write { path: to.to_owned(), offset: 0, mode }, &[]).map(drop)
    }

    /// Makes the lab's file `to` the same as the host's `from`. A file that is there keeps its owner and permissions.
    pub fn get(&self, from: impl AsRef<Path>, to: &Path) -> Result<()> {
        let from = from.as_ref();
        let layout = self.layout(from)?;
        // First here in full, then into its place: a host that ends midway must not cost a disk.
        let copy = tempfile::tempfile().context("cannot create a temporary file")?;
        copy.set_len(layout.size)?;
        for (offset, length) in pieces(&layout.extents) {
            let bytes = self.read_at(from, offset, length as u64)?;
            copy.write_all_at(&bytes, offset).context("cannot write a temporary file")?;
        }
        sparse::replace(copy, to).with_context(|| format!("cannot write {}", to.display()))
    }
}

/// Cuts extents into pieces that fit a frame.
fn pieces(extents: &[(u64, u64)]) -> impl Iterator<Item = (u64, usize)> {
    extents.iter().flat_map(|&(start, length)| {
        (start..start + length).step_by(PIECE).map(move |offset| {
            let left = start + length - offset;
            (offset, usize::try_from(left).map_or(PIECE, |left| left.min(PIECE)))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_cut_into_frames() {
        let piece = PIECE as u64;
        let cut: Vec<_> = pieces(&[(0, 10), (piece, 2 * piece + 1)]).collect();
        assert_eq!(cut, [(0, 10), (piece, PIECE), (2 * piece, PIECE), (3 * piece, 1)]);
    }
}
