// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log, on standard error. A guest can cause lines in it: each device tells each kind of error and each refusal once, a
//! vCPU what KVM would not do. Together they have an end. A thread of cvmm never waits for somebody to read them: where standard
//! error is a pipe that is full, of the guest's console perhaps, they are lost.

use std::sync::atomic::{AtomicUsize, Ordering};

use env_logger::{Builder, Env, Target};
use log::{Level, Log, Metadata, Record, SetLoggerError};

use crate::host::stdio::Messages;

/// Bytes of all errors and warnings of a run: half of a pipe (pipe(7)).
const BYTES: usize = 32 << 10;
/// Level, colours and the end of a line.
const AROUND: usize = 32;

/// The logger of this process. Errors and warnings are told, unless RUST_LOG says otherwise.
///
/// # Errors
/// There is one already.
pub fn init() -> Result<(), SetLoggerError> {
    let builder = || {
        let mut builder = Builder::from_env(Env::default().default_filter_or("warn"));
        builder.format_timestamp(None).format_target(false);
        builder
    };
    let mut logger = builder().build();
    // Who asks for more wants it all, and reads it.
    if logger.filter() <= Level::Warn
        && let Ok(messages) = Messages::open()
    {
        logger = builder().target(Target::Pipe(Box::new(messages))).build();
    }
    log::set_max_level(logger.filter());
    log::set_boxed_logger(Box::new(Bounded { logger, left: BYTES.into() }))
}

/// Errors and warnings up to so many bytes. Who asks for more by RUST_LOG wants it all, and reads it.
struct Bounded<L> {
    logger: L,
    left: AtomicUsize,
}

impl<L: Log> Log for Bounded<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.level() > Level::Warn {
            return self.logger.log(record);
        }
        let bytes = record.args().to_string().len().saturating_add(AROUND);
        let take = |left: usize| Some(left.saturating_sub(bytes));
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(left) if left > bytes => self.logger.log(record),
            Ok(0) | Err(_) => {}
            Ok(_) => {
                let last = format_args!("the log is full; what comes after this line is in the report only");
                self.logger.log(&Record::builder().level(Level::Warn).target("cvmm").args(last).build());
            }
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Log for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Debug
        }
        fn log(&self, record: &Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
        fn flush(&self) {}
    }

    /// 31 devices may tell of 16 refusals and 8 kinds of errors each, in some hundred bytes.
    #[test]
    fn lines_without_end_come_to_one() {
        let log = Bounded { logger: Lines::default(), left: BYTES.into() };
        let say =
            |level, text: &str| log.log(&Record::builder().level(level).args(format_args!("{text}")).build());
        std::thread::scope(|threads| {
            for device in 0..31 {
                let say = &say;
                threads.spawn(move || {
                    (0..100).for_each(|line| {
                        say(Level::Warn, &format!("blk{device}: {line}{}", "x".repeat(100)))
                    });
                });
            }
        });
        say(Level::Error, "and more");
        say(Level::Trace, "not asked for");
        let lines = std::mem::take(&mut *log.logger.0.lock().unwrap());
        let bytes: usize = lines.iter().map(|line| line.len() + AROUND).sum();
        assert!(bytes > BYTES - 1000 && bytes < BYTES + 200, "{bytes}");
        assert_eq!(lines.iter().filter(|line| line.contains("the log is full")).count(), 1);
        // What was asked for comes all the same.
        say(Level::Debug, "a detail");
        assert_eq!(*log.logger.0.lock().unwrap(), ["a detail"]);
    }
}
