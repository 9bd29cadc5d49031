// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo lab bench --native`, for a moment: the guest, each of its devices, and the figures. How fast they are is not tested.

use std::fs::File;
use std::sync::{Mutex, PoisonError};

use cvmm_tests::bench::native::{Plan, bench};
use cvmm_tests::packages::is_root;
use serde_json::Value;

/// One at a time: each of them uses two CPUs.
static ONE: Mutex<()> = Mutex::new(());

/// What all words of `filter` choose, measured once for 0.1 s.
fn results(filter: &str) -> Option<Vec<Value>> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("NOT TESTED: there is no /dev/kvm here");
        return None;
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("json");
    let plan = Plan {
        filter: filter.into(),
        seconds: 0.1,
        rounds: 1,
        peers: Vec::new(),
        alone: true,
        disk_options: None,
        json: Some(json.clone()),
    };
    assert_eq!(bench(&plan).unwrap(), 0);
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    Some(report["results"].as_array().unwrap().clone())
}

/// The first peer is cvmm, and it has one sample.
fn sample(result: &Value) -> &Value {
    assert_eq!(result["peers"][0]["name"], "cvmm");
    let samples = result["peers"][0]["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 1, "{result:#}");
    &samples[0]
}

fn number(sample: &Value, field: &str) -> u64 {
    sample[field].as_u64().unwrap_or_else(|| panic!("no {field}: {sample:#}"))
}

#[test]
fn a_disk_is_read_on_each_transport() {
    let Some(results) = results("blk random-read 4k depth-8 queues-1 event cached") else { return };
    assert_eq!(results.len(), 2, "{results:#?}");
    for result in &results {
        let sample = sample(result);
        let (requests, written) = (number(sample, "requests"), number(sample, "written"));
        // Data and status (virtio 1.3, 2.7.8: what the device wrote).
        assert!(requests > 0 && written == requests * 4097, "{sample:#}");
        assert!((1..=requests + 1).contains(&number(sample, "notifications")), "{sample:#}");
        // What it does by itself is in the report: a driver's first steps, and no more for a request.
        assert!((10..200).contains(&number(sample, "answered")), "{sample:#}");
        assert!(number(&sample["threads"]["devices"], "nanoseconds") > 0, "{sample:#}");
        assert!(number(&sample["threads"]["vcpus"], "nanoseconds") > 0, "{sample:#}");
    }
}

#[test]
fn two_cpus_drive_a_queue_each() {
    let Some(results) = results("blk mmio cpus-2 cached") else { return };
    assert_eq!(results.len(), 1, "{results:#?}");
    let sample = sample(&results[0]);
    assert_eq!(number(sample, "written"), number(sample, "requests") * 4097, "{sample:#}");
}

#[test]
fn frames_go_both_ways() {
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    if !is_root() || tun.is_err() {
        eprintln!("NOT TESTED: taps need root and /dev/net/tun");
        return;
    }
    let Some(results) = results("net mmio 64") else { return };
    let names: Vec<_> = results.iter().map(|result| result["case"].as_str().unwrap()).collect();
    assert!(names.len() == 2 && names[0].contains("send") && names[1].contains("receive"), "{names:?}");
    let [sent, received] = [sample(&results[0]), sample(&results[1])];
    // The bench looks itself whether the host got what was sent.
    assert!(number(sent, "requests") > 0 && number(sent, "written") == 0, "{sent:#}");
    // A frame after virtio's header; the host may say something shorter by itself.
    assert!(number(received, "written") >= number(received, "requests") * (12 + 42), "{received:#}");
}

#[test]
fn an_entropy_device_fills_buffers() {
    let Some(results) = results("rng mmio") else { return };
    assert_eq!(results.len(), 1, "{results:#?}");
    let sample = sample(&results[0]);
    assert!(number(sample, "written") >= number(sample, "requests"), "{sample:#}");
}
