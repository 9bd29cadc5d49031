// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The other form of a kernel: an ELF file, here the one inside the project's bzImage.

use std::fs;
use std::io::Read;

use cvmm_tests::host::Host;
use cvmm_tests::workspace;

use crate::guest::Guest;
use crate::names;

#[test]
fn an_elf_kernel_boots() {
    let host = Host::shared();
    let guest = Guest::new(&host, "pool,rng").option("--rng");
    let path = guest.file("vmlinux");
    host.write(&path, &vmlinux()).unwrap();
    let ended = guest.kernel(path).run(0, "powered-off");
    ended.passed(names::pool().into_iter().chain(names::rng()));
    ended.report.assert_honest(&[("rng0", 1)]);
}

/// The payload of a bzImage (Linux, Documentation/arch/x86/boot.rst, payload_offset and payload_length), unpacked.
fn vmlinux() -> Vec<u8> {
    let image = fs::read(workspace::guest_kernel()).unwrap();
    let number = |at: usize| {
        let bytes: [u8; 4] = image[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(bytes)).unwrap()
    };
    let code = (usize::from(image[0x1f1]) + 1) * 512;
    let start = code + number(0x248);
    let payload = &image[start..start + number(0x24c)];
    let mut vmlinux = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(payload).unwrap().read_to_end(&mut vmlinux).unwrap();
    assert!(vmlinux.starts_with(b"\x7fELF"));
    vmlinux
}
