// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who is compared: cvmm, the host by itself (fio), and other VMMs that start the same guest.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use cvmm_hostile::speed::Order;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::case::Case;
use super::net::TAP;
use crate::bench::vmm::{QEMU_REST, words};

/// Guest memory of cvmm, and its pool; others have more, all of which their devices reach.
const CVMM_MEMORY: &str = "--mem 64M --pool 32M --firmware dt --console stdio --cmdline matrix=speed";
const OTHERS_MIB: u32 = 128;
/// microvm without ACPI: it then names its devices on the kernel's command line. Its virtio-mmio is a legacy one unless told
/// otherwise.
const QEMU_MACHINE: &str = "-M microvm,pit=off,pic=off,rtc=off,acpi=off -global virtio-mmio.force-legacy=false -no-reboot -name guest,debug-threads=on";

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Ours.
    Cvmm,
    /// The host by itself; with `direct`, past the page cache.
    Fio {
        /// O_DIRECT.
        direct: bool,
    },
    /// With this `io_engine`.
    Firecracker {
        /// Its name in the configuration.
        engine: &'static str,
    },
    /// microvm.
    Qemu,
}

/// One that takes its turns.
#[derive(Debug, Clone)]
pub struct Peer {
    /// As the table says it.
    pub name: String,
    /// What it is.
    pub program: Program,
    /// The program's file.
    pub path: PathBuf,
}

/// `--peer NAME=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    name: String,
    path: PathBuf,
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("write it as NAME=PATH")?;
        if !["cvmm", "firecracker", "qemu"].contains(&name) {
            return Err(format!("{name} is none of cvmm, firecracker and qemu"));
        }
        let path = PathBuf::from(path);
        if path.is_file() {
            Ok(Self { name: name.into(), path })
        } else {
            Err(format!("there is no file {}", path.display()))
        }
    }
}

impl Given {
    /// Those that take turns for it.
    pub fn peers(&self) -> Vec<Peer> {
        let peer = |name: &str, program| Peer { name: name.into(), program, path: self.path.clone() };
        match self.name.as_str() {
            "firecracker" => [("Firecracker Sync", "Sync"), ("Firecracker Async", "Async")]
                .map(|(name, engine)| peer(name, Program::Firecracker { engine }))
                .into(),
            "qemu" => vec![peer("QEMU given", Program::Qemu)],
            _ => vec![peer("cvmm given", Program::Cvmm)],
        }
    }
}

/// What a VMM is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// The bare-metal guest.
    pub guest: &'a Path,
    /// The disk's file.
    pub disk: &'a Path,
    /// More options of cvmm's disk.
    pub disk_options: Option<&'a str>,
    /// For files of the run.
    pub folder: &'a TempDir,
}

impl Peer {
    /// Why it can't run this case, if so.
    pub fn obstacle(&self, case: &Case) -> Option<&'static str> {
        let Order { pci, queues, cpus, .. } = case.order;
        match self.program {
            Program::Cvmm => None,
            Program::Fio { .. } if !case.is_disk() => Some("reads and writes files only"),
            Program::Fio { .. } => None,
            _ if cpus > 1 => Some("the guest starts its second CPU on cvmm only"),
            _ if pci => Some("the guest finds its devices on virtio-mmio only"),
            Program::Firecracker { .. } if queues > 1 => Some("its disks have one queue"),
            Program::Firecracker { .. } | Program::Qemu => None,
        }
    }

    /// The arguments that start the guest, and the files that they need, by their names in the folder.
    pub fn arguments(&self, case: &Case, start: &Start<'_>) -> (Vec<String>, Vec<(&'static str, Value)>) {
        let there = |name: &str| start.folder.path().join(name).display().to_string();
        let (guest, disk) = (start.guest.display(), start.disk.display());
        match self.program {
            Program::Fio { .. } => (Vec::new(), Vec::new()),
            Program::Cvmm => {
                let device = cvmm_device(case, &disk.to_string(), start.disk_options);
                let report = there("report");
                let cpus = case.order.cpus;
                let line =
                    format!("run {CVMM_MEMORY} --cpus {cpus} --kernel {guest} --report {report} {device}");
                (words(&[&line]).collect(), Vec::new())
            }
            Program::Qemu => {
                let device = qemu_device(case, &disk.to_string());
                let line = format!("-m {OTHERS_MIB}M {device} -kernel {guest} -append matrix=speed");
                (words(&[QEMU_MACHINE, QEMU_REST, &line]).collect(), Vec::new())
            }
            Program::Firecracker { engine } => {
                let configuration = firecracker(case, &guest.to_string(), &disk.to_string(), engine);
                let line = format!("--no-api --config-file {}", there("configuration"));
                (words(&[&line]).collect(), vec![("configuration", configuration)])
            }
        }
    }
}

fn cvmm_device(case: &Case, disk: &str, options: Option<&str>) -> String {
    let transport = if case.order.pci { "transport=pci" } else { "transport=mmio" };
    if case.is_net() {
        return format!("--net tap={TAP},{transport}");
    }
    if !case.is_disk() {
        return format!("--rng {transport}");
    }
    let mut device = format!("--blk path={disk},format=raw,{transport}");
    if case.order.queues > 1 {
        device += &format!(",queues={}", case.order.queues);
    }
    options.map_or(device.clone(), |options| format!("{device},{options}"))
}

/// As cvmm does it: through the page cache, and no flush unless the guest asks for one. Both words are QEMU's defaults.
fn qemu_device(case: &Case, disk: &str) -> String {
    if case.is_net() {
        return format!(
            "-netdev tap,id=net,ifname={TAP},script=no,downscript=no,vhost=off -device virtio-net-device,netdev=net"
        );
    }
    if !case.is_disk() {
        return "-device virtio-rng-device".into();
    }
    let queues = case.order.queues;
    format!(
        "-drive if=none,id=disk,format=raw,cache=writeback,aio=threads,file={disk} \
         -device virtio-blk-device,drive=disk,num-queues={queues}"
    )
}

/// docs/getting-started.md and src/firecracker/swagger/firecracker.yaml of Firecracker. `Writeback` offers VIRTIO_BLK_F_FLUSH, as
/// cvmm does; without it, a write would be on no stable storage at all.
fn firecracker(case: &Case, guest: &str, disk: &str, engine: &str) -> Value {
    let mut configuration = json!({
        "boot-source": { "kernel_image_path": guest, "boot_args": "matrix=speed" },
        "machine-config": { "vcpu_count": case.order.cpus, "mem_size_mib": OTHERS_MIB },
        "drives": [],
    });
    if case.is_disk() {
        configuration["drives"] = json!([{
            "drive_id": "disk", "path_on_host": disk, "is_root_device": false, "is_read_only": false,
            "cache_type": "Writeback", "io_engine": engine,
        }]);
    } else if case.is_net() {
        configuration["network-interfaces"] = json!([{ "iface_id": "net", "host_dev_name": TAP }]);
    } else {
        configuration["entropy"] = json!({});
    }
    configuration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_given_by_name_and_path() {
        let given: Given = "firecracker=/bin/sh".parse().unwrap();
        let names: Vec<_> = given.peers().into_iter().map(|peer| peer.name).collect();
        assert_eq!(names, ["Firecracker Sync", "Firecracker Async"]);
        for (text, error) in
            [("/bin/sh", "NAME=PATH"), ("crosvm=/bin/sh", "none of"), ("qemu=/no/such", "no file")]
        {
            assert!(text.parse::<Given>().unwrap_err().contains(error), "{text}");
        }
    }

    #[test]
    fn each_vmm_gets_the_disk_and_the_guest() {
        let folder = tempfile::tempdir().unwrap();
        let start = Start {
            guest: Path::new("/guest"),
            disk: Path::new("/disk"),
            disk_options: Some("direct"),
            folder: &folder,
        };
        let case = Case::all().into_iter().find(|case| case.order.queues == 2).unwrap();
        for program in [Program::Cvmm, Program::Qemu, Program::Firecracker { engine: "Async" }] {
            let peer = Peer { name: "peer".into(), program, path: "/peer".into() };
            let (arguments, files) = peer.arguments(&case, &start);
            let all = format!("{} {files:?}", arguments.join(" "));
            assert!(all.contains("/guest") && all.contains("/disk") && all.contains("matrix=speed"), "{all}");
            assert_eq!(all.contains(",queues=2,direct"), program == Program::Cvmm, "{all}");
        }
    }
}
