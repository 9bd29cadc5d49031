// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files with holes: where the data is, and copies that have the same holes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Where `file` has data: offsets and lengths, in order.
pub fn extents(file: &File) -> io::Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut position = 0;
    loop {
        let start = match lseek(file, position, Whence::SeekData) {
            Ok(start) => start,
            // No data after this position.
            Err(Errno::ENXIO) => return Ok(extents),
            Err(error) => return Err(error.into()),
        };
        position = lseek(file, start, Whence::SeekHole)?;
        extents.push((start.unsigned_abs(), (position - start).unsigned_abs()));
    }
}

/// Gives the file `to` the content of `from`, holes included; it is created if need be. Something that is no regular file
/// (/dev/stdout) gets the bytes in order.
pub fn replace(mut from: File, to: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    if !file.metadata()?.is_file() {
        from.seek(SeekFrom::Start(0))?;
        return io::copy(&mut from, &mut file).map(drop);
    }
    file.set_len(from.metadata()?.len())?;
    for (start, length) in extents(&from)? {
        from.seek(SeekFrom::Start(start))?;
        file.seek(SeekFrom::Start(start))?;
        io::copy(&mut (&from).take(length), &mut file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn data_keeps_its_place_and_holes_stay_holes() {
        let from = tempfile::tempfile().unwrap();
        from.set_len(1 << 20).unwrap();
        assert_eq!(extents(&from).unwrap(), []);
        from.write_all_at(&[1; 8192], 65536).unwrap();
        assert_eq!(extents(&from).unwrap(), [(65536, 8192)]);

        let to = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(to.path(), vec![7; 2 << 20]).unwrap();
        replace(from, to.path()).unwrap();
        assert_eq!(to.as_file().metadata().unwrap().len(), 1 << 20);
        assert!(to.as_file().metadata().unwrap().blocks() * 512 < 65536);
        assert_eq!(extents(to.as_file()).unwrap(), [(65536, 8192)]);
        let content = std::fs::read(to.path()).unwrap();
        assert!(content[65536..65536 + 8192].iter().all(|&byte| byte == 1));
    }
}
