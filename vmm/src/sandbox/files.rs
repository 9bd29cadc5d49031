// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Landlock: no file can be opened, made or removed, no TCP port bound or connected to, and no process outside signalled.
//! What is open already stays usable.

use landlock::{ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetError, Scope};

/// The newest ABI whose restrictions are known to do no harm here. An older kernel has fewer of them.
const TESTED: ABI = ABI::V7;

/// Denies everything, to this thread and the ones that it will start. Returns what holds; `None`, and a warning, where
/// the kernel has no Landlock.
pub(super) fn deny() -> Result<Option<String>, RulesetError> {
    // Without a rule, nothing is allowed.
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(TESTED))?
        .handle_access(AccessNet::from_all(TESTED))?
        .scope(Scope::from_all(TESTED))?
        .create()?
        .restrict_self()?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            Ok(Some(format!("abi {}", effective_abi.min(TESTED))))
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
            log::warn!(
                "this kernel has no Landlock: only the system call filters keep cvmm from the host's files"
            );
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Landlock alone, on a thread of its own.
    #[test]
    fn nothing_can_be_opened_and_what_is_open_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "before").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let confined = move || {
            let mut open = File::open(&path).unwrap();
            let Some(abi) = deny().unwrap() else {
                return crate::testing::not_tested("this kernel has no Landlock");
            };
            let number: u32 = abi.strip_prefix("abi ").unwrap().parse().unwrap();
            let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
            assert!(File::open(&path).is_err_and(denied), "read");
            assert!(File::options().write(true).open(&path).is_err_and(denied), "write");
            assert!(File::create(path.with_extension("new")).is_err_and(denied), "make");
            assert!(std::fs::remove_file(&path).is_err_and(denied), "remove");
            assert!(File::open("/dev/null").is_err_and(denied), "device");
            assert!(std::fs::read_dir("/").is_err_and(denied), "list");
            if number >= 4 {
                assert!(TcpListener::bind("127.0.0.1:0").is_err_and(denied), "bind");
                assert!(TcpStream::connect(address).is_err_and(denied), "connect");
            }
            let mut text = String::new();
            open.read_to_string(&mut text).unwrap();
            assert_eq!(text, "before");
        };
        std::thread::spawn(confined).join().unwrap();
    }
}
