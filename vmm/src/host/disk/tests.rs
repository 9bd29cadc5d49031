// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::*;
use std::io::Write;

/// Opens an image as if its lock were the only one of a run.
pub(super) fn open(path: &Path, read_only: bool, raw: bool) -> Result<FileDisk, String> {
    FileDisk::open(path, read_only, raw, Instant::now() + LOCK_PATIENCE)
}

fn image(len: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![7; len]).unwrap();
    file
}

#[test]
fn a_disk_is_locked_against_a_second_writer() {
    let image = image(1024);
    let first = open(image.path(), false, false).unwrap();
    assert!(open(image.path(), true, false).unwrap_err().contains("locked"));
    drop(first);
    let _reader = open(image.path(), true, false).unwrap();
    let _other = open(image.path(), true, false).unwrap();
    assert!(open(image.path(), false, false).unwrap_err().contains("locked"));
}

#[test]
fn only_whole_sectors_make_a_disk() {
    assert!(open(image(513).path(), false, false).unwrap_err().contains("multiple of 512"));
    assert!(open(image(0).path(), false, false).unwrap_err().contains("empty"));
    assert!(open(Path::new("/nonexistent"), false, false).unwrap_err().contains("can't be opened"));
}

#[test]
fn data_written_is_read_back_and_a_truncated_disk_is_short() {
    let image = image(4096);
    let disk = open(image.path(), false, false).unwrap();
    let (mut a, mut b) = ([1u8; 600], [2u8; 424]);
    let mut from = [VolatileSlice::from(&mut a[..]), VolatileSlice::from(&mut b[..])].into_iter();
    assert_eq!(disk.write_at(512, &mut from).unwrap(), 1024);
    let read = |disk: &FileDisk| {
        let mut back = [0u8; 2048];
        let done = disk.read_at(0, &mut [VolatileSlice::from(&mut back[..])].into_iter()).unwrap();
        (done, back)
    };
    let (done, back) = read(&disk);
    assert_eq!(done, 2048);
    assert_eq!((back[511], back[512], back[1111], back[1112], back[1535], back[1536]), (7, 1, 1, 2, 2, 7));
    image.as_file().set_len(1000).unwrap();
    assert_eq!(read(&disk).0, 1000);
    let write = |offset| {
        let mut bytes = [3u8; 512];
        disk.write_at(offset, &mut [VolatileSlice::from(&mut bytes[..])].into_iter())
    };
    for gone in [512, 1024, 3584] {
        assert_eq!(write(gone).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{gone}");
    }
    assert_eq!(write(0).unwrap(), 512);
    for gone in [(0, 1024), (2048, 512)] {
        assert!(disk.discard(gone.0, gone.1).is_err(), "{gone:?}");
        assert!(disk.write_zeroes(gone.0, gone.1, false).is_err(), "{gone:?}");
    }
    assert_eq!(image.as_file().metadata().unwrap().len(), 1000, "it became longer again");
}

/// A pipe can't be flushed, so a flush that says it was has not asked.
#[test]
fn a_flush_reaches_the_file() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let unflushable = Image::new(file, Path::new("pipe"));
    let pipe = FileDisk {
        image: unflushable,
        direct: None,
        size: 512,
        read_only: false,
        can_punch: false,
        blocks: None,
    };
    assert!(pipe.flush().is_err());
    assert!(open(image(512).path(), false, false).unwrap().flush().is_ok());
}

#[test]
fn zeroes_and_holes_read_as_zeros() {
    let image = image(3 * 4096);
    let disk = open(image.path(), false, false).unwrap();
    assert!(disk.can_punch(), "the temporary directory's file system makes holes");
    disk.write_zeroes(0, 4096, false).unwrap();
    disk.write_zeroes(4096, 4096, true).unwrap();
    let bytes = std::fs::read(image.path()).unwrap();
    assert!(bytes[..8192].iter().all(|b| *b == 0) && bytes[8192..].iter().all(|b| *b == 7));
    assert_eq!(bytes.len(), 3 * 4096);
}
