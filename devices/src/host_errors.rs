// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What went wrong on the host's side of a device: all of it counted, the first of each kind in words. A guest can cause
//! such errors without end; the record and the log do not grow with them.

use std::fmt::Arguments;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::waiters::lock;

/// Kinds of errors that are kept in words; later kinds are only counted.
const KEPT: usize = 8;

/// The record of one device, to which its threads add. Without an error they take no lock.
#[derive(Clone, Debug, Default)]
pub struct ErrorLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    errors: Mutex<HostErrors>,
    has_news: AtomicBool,
}

impl ErrorLog {
    /// Takes an error into the record.
    pub(crate) fn record(&self, operation: &'static str, error: &io::Error, place: Arguments<'_>) {
        lock(&self.0.errors).record(operation, error, place);
        self.0.has_news.store(true, Ordering::Release);
    }

    /// Logs what is new, for the device of this name.
    pub(crate) fn tell(&self, device: &str) {
        if !self.0.has_news.load(Ordering::Acquire) || !self.0.has_news.swap(false, Ordering::AcqRel) {
            return;
        }
        for HostError { operation, error, place, .. } in lock(&self.0.errors).news() {
            log::error!(
                "{device}: {operation}, {place}: {error}; later errors of this kind are only counted"
            );
        }
    }

    /// All so far.
    pub(crate) fn all(&self) -> HostErrors {
        lock(&self.0.errors).clone()
    }
}

/// What went wrong for one device.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostErrors {
    /// How many there were.
    pub total: u64,
    /// The first of each kind.
    pub first: Vec<HostError>,
    /// How many of them were told.
    #[serde(skip)]
    told: usize,
}

/// Errors of one kind: the same came of the same operation.
#[derive(Clone, Debug, Serialize)]
pub struct HostError {
    /// What the device was about to do.
    pub operation: &'static str,
    /// What the host said.
    pub error: String,
    /// Where that was, the first time.
    pub place: String,
    /// How often it came.
    pub count: u64,
    #[serde(skip)]
    code: (Option<i32>, io::ErrorKind),
}

impl HostErrors {
    /// Takes an error into the record.
    fn record(&mut self, operation: &'static str, error: &io::Error, place: Arguments<'_>) {
        self.total = self.total.saturating_add(1);
        let code = (error.raw_os_error(), error.kind());
        let same = |kept: &&mut HostError| kept.operation == operation && kept.code == code;
        if let Some(kept) = self.first.iter_mut().find(same) {
            kept.count = kept.count.saturating_add(1);
        } else if self.first.len() < KEPT {
            let (error, place) = (error.to_string(), place.to_string());
            self.first.push(HostError { operation, error, place, count: 1, code });
        }
    }

    /// Those that are kept in words and were not told yet, for the log.
    fn news(&mut self) -> &[HostError] {
        let news = self.first.get(self.told..).unwrap_or_default();
        self.told = self.first.len();
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_and_all_are_counted() {
        let mut errors = HostErrors::default();
        let error = |code| io::Error::from_raw_os_error(code);
        for sector in 0..1000 {
            errors.record("write", &error(28), format_args!("sector {sector}"));
            errors.record("read", &error(28), format_args!("sector {sector}"));
            let news: Vec<_> = errors.news().iter().map(|news| news.operation).collect();
            assert_eq!(news, if sector == 0 { vec!["write", "read"] } else { vec![] });
        }
        let [write, read] = &errors.first[..] else { panic!("{errors:?}") };
        assert_eq!((errors.total, write.count, read.count), (2000, 1000, 1000));
        assert_eq!(write.place, "sector 0");
        // Kinds without end.
        for code in 1..100 {
            errors.record("write", &error(code), format_args!(""));
        }
        assert_eq!((errors.total, errors.first.len()), (2099, KEPT));
        assert_eq!(errors.news().len(), KEPT - 2);
        assert!(errors.news().is_empty());
    }
}
