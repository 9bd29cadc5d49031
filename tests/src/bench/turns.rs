// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Rounds in which all take turns: what changes on the machine meanwhile meets all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::de::DeserializeOwned;

use super::vmm::Vmm;
use super::{carry, probe, text};
use crate::build;
use crate::host::{CommandLine, Exit, Folder, Host, Kind};

/// The samples, or why there are none.
pub type Outcome<S> = Result<Vec<S>, String>;

/// What is compared: a VMM, and how it is started.
pub trait Competitor: Copy {
    /// The program.
    fn vmm(self) -> Vmm;
    /// As the table says it.
    fn name(self) -> String;
}

impl Competitor for Vmm {
    fn vmm(self) -> Vmm {
        self
    }

    fn name(self) -> String {
        Self::name(self).to_owned()
    }
}

/// The VMMs on a KVM host: cvmm and those that are installed, carried there if need be.
#[derive(Debug)]
pub struct Vmms<'h> {
    host: &'h Host,
    probe: String,
    /// The words that start each program.
    words: Vec<(Vmm, Vec<String>)>,
    /// Has the programs.
    _folder: Folder,
}

impl<'h> Vmms<'h> {
    /// Brings `installed` to `host`.
    pub fn bring(host: &'h Host, installed: &[(Vmm, PathBuf)]) -> Result<Self> {
        let folder = host.folder()?;
        let mut words = vec![(Vmm::Cvmm, vec![text(host.cvmm())])];
        for (vmm, program) in installed {
            words.push((*vmm, start_words(host, &folder, *vmm, program)?));
        }
        let probe = match host.kind() {
            Kind::Kvm => text(&build::static_programs()?.host_agent),
            Kind::Emulated => "/init".to_owned(),
        };
        Ok(Self { host, probe, words, _folder: folder })
    }

    /// Measures those of `all` whose VMM is there; for each its samples, or why there are none. `what` tells progress;
    /// `probe_word` says what the probe measures.
    pub fn by_turns<C: Competitor, S: DeserializeOwned>(
        &self,
        all: &[C],
        rounds: u32,
        what: &str,
        probe_word: &str,
        limit: Duration,
        arguments: impl Fn(C) -> Vec<String>,
    ) -> Result<Vec<(C, Outcome<S>)>> {
        let mut results: Vec<(C, Outcome<S>)> =
            all.iter().filter(|one| self.start(one.vmm()).is_some()).map(|one| (*one, Ok(vec![]))).collect();
        // The first round brings the files into the page cache, and does not count.
        for round in 0..=rounds {
            eprintln!("lab: {what}, round {round} of {rounds}");
            for (one, result) in &mut results {
                let Ok(samples) = result else { continue };
                match self.once(*one, probe_word, limit, arguments(*one)) {
                    Ok(sample) if round > 0 => samples.push(sample),
                    Ok(_) => {}
                    // Ours must work; another's failure goes into the table.
                    Err(error) if one.vmm() != Vmm::Cvmm => {
                        eprintln!("lab: {}: {error:#}", one.name());
                        *result = Err(format!("{error:#}"));
                    }
                    Err(error) => return Err(error.context(format!("{} could not be measured", one.name()))),
                }
            }
        }
        Ok(results)
    }

    fn start(&self, vmm: Vmm) -> Option<&[String]> {
        self.words.iter().find(|(of, _)| *of == vmm).map(|(_, words)| words.as_slice())
    }

    /// Measures once.
    pub fn once<S: DeserializeOwned>(
        &self,
        one: impl Competitor,
        probe_word: &str,
        limit: Duration,
        vmm_arguments: Vec<String>,
    ) -> Result<S> {
        let mut arguments = vec![probe::WORD.to_owned(), probe_word.to_owned()];
        arguments.extend(self.start(one.vmm()).into_iter().flatten().cloned());
        arguments.extend(vmm_arguments);
        let arguments = arguments.into_iter().map(Into::into).collect();
        let command = CommandLine { program: (&self.probe).into(), arguments, ..CommandLine::default() };
        let mut process = self.host.spawn(command)?;
        match process.wait(limit)? {
            Exit::Code(0) => Ok(serde_json::from_str(&process.stdout())?),
            exit => Err(process.failure(&format!("{} failed ({exit:?})", one.name()))),
        }
    }
}

/// What starts the VMM on the host, carried there if need be.
fn start_words(host: &Host, folder: &Folder, vmm: Vmm, program: &Path) -> Result<Vec<String>> {
    match host.kind() {
        Kind::Kvm => Ok(vec![text(program)]),
        Kind::Emulated => carry::put(host, folder, vmm, &carry::files(vmm, program)?),
    }
}
