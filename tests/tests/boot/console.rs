// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the console goes.

use cvmm_tests::host::Host;

use crate::guest::Guest;

#[test]
fn a_console_in_a_file_has_the_kernels_log() {
    let host = Host::shared();
    let guest = Guest::new(&host, "none");
    let log = guest.file("console.log");
    let ended = guest.option(format!("--console=file={log}")).run(0, "powered-off");
    assert_eq!(ended.process.stdout(), "");
    let log = ended.text("console.log");
    for part in ["Linux version 6.12", "guest-init: started", "guest-init: 0 passed, 0 failed"] {
        assert!(log.contains(part), "no '{part}' in: {log}");
    }
    // The kernel asks the UART before each byte, without an exit until a program has opened the port.
    let uart = ended.report.uart();
    assert!(uart.writes > 5000 && uart.reads < uart.writes / 10, "{uart:?}");
}

#[test]
fn a_console_that_is_off_is_silent() {
    let host = Host::shared();
    let ended = Guest::new(&host, "rng").option("--rng").option("--console=off").run(0, "powered-off");
    assert_eq!(ended.process.stdout(), "");
    // The guest did run its assertions.
    assert!(ended.report.device("rng0").dma.written.bytes >= 128, "{:#?}", ended.report);
}
