// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files on the KVM host.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};

use crate::host::protocol::Answer;
use crate::sparse;

pub fn write(path: &Path, offset: u64, mode: Option<u32>, bytes: &[u8]) -> Result<()> {
    let file = open_for_writing(path)?;
    file.write_all_at(bytes, offset).with_context(|| format!("cannot write {}", path.display()))?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

pub fn read(path: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = Vec::new();
    // Read to the end rather than to the size: files in /proc have none.
    file.seek(SeekFrom::Start(offset))?;
    file.take(length as u64)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

pub fn resize(path: &Path, size: u64) -> Result<()> {
    open_for_writing(path)?.set_len(size).with_context(|| format!("cannot resize {}", path.display()))
}

pub fn layout(path: &Path) -> Result<Answer> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata()?;
    let extents = sparse::extents(&file)?;
    Ok(Answer::Layout { size: metadata.len(), allocated: metadata.blocks() * 512, extents })
}

pub fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

pub fn remove(path: &Path) -> Result<()> {
    let result = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

fn open_for_writing(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    opened.with_context(|| format!("cannot open {} for writing", path.display()))
}
