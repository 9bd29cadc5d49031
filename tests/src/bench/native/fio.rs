// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host by itself: fio with io_uring on the same file, with a job for each queue.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cvmm_hostile::speed::Load;
use serde::Deserialize;

use super::case::Case;
use super::sample::Sample;
use super::threads::{Threads, Work};

#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    read: Direction,
    write: Direction,
    usr_cpu: f64,
    sys_cpu: f64,
    ctx: u64,
}

#[derive(Deserialize)]
struct Direction {
    total_ios: u64,
    iops: f64,
}

/// Runs it for so long. Its jobs are threads, whose work is that of devices here.
pub fn measure(fio: &Path, case: &Case, disk: &Path, seconds: f64, direct: bool) -> Result<Sample> {
    let output = Command::new(fio).args(arguments(case, disk, seconds, direct)).stdin(Stdio::null()).output();
    let output = output.context("cannot run fio")?;
    if !output.status.success() {
        bail!("fio failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    // It may say something before.
    let text = String::from_utf8_lossy(&output.stdout);
    let start = text.find('{').context("fio has no output")?;
    sample(&text[start..], case)
}

fn arguments(case: &Case, disk: &Path, seconds: f64, direct: bool) -> Vec<String> {
    let order = case.order;
    let direction = match order.load {
        Load::RandomWrite => "randwrite",
        Load::SequentialRead => "read",
        Load::SequentialWrite => "write",
        _ => "randread",
    };
    let (milliseconds, warm_up) = (seconds * 1e3, seconds * 1e3 / 8.0);
    let direct = u8::from(direct);
    let mut line = format!(
        "--name=host --ioengine=io_uring --fixedbufs --registerfiles --rw={direction} --bs={} --iodepth={} \
         --numjobs={} --group_reporting --thread --time_based --runtime={milliseconds:.0}ms --ramp_time={warm_up:.0}ms \
         --direct={direct} --invalidate=0 --norandommap --randrepeat=0 --allow_file_create=0 --output-format=json",
        order.bytes, order.depth, order.queues,
    );
    if !order.load.is_random() && order.queues > 1 {
        line += &format!(" --size={0}% --offset_increment={0}%", 100 / order.queues);
    }
    let words = line.split_whitespace().map(str::to_owned);
    words.chain([format!("--filename={}", disk.display())]).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Some seconds in nanoseconds.
fn sample(json: &str, case: &Case) -> Result<Sample> {
    let output: Output = serde_json::from_str(json).context("fio's output")?;
    let job = output.jobs.first().context("fio did nothing")?;
    let done = if case.order.load.is_write() { &job.write } else { &job.read };
    if done.iops <= 0.0 {
        bail!("fio made no request");
    }
    let seconds = super::clock::double(done.total_ios) / done.iops;
    let share = (job.usr_cpu + job.sys_cpu) / 100.0;
    let devices = Work { nanoseconds: (share * seconds * 1e9) as u64, sleeps: job.ctx, preempted: 0 };
    let threads = Threads { devices, ..Threads::default() };
    Ok(Sample { requests: done.total_ios, seconds, threads, ..Sample::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_a_queue() {
        let two = Case::all().into_iter().find(|case| case.order.queues == 2).unwrap();
        let line = arguments(&two, Path::new("/d"), 0.5, true).join(" ");
        assert!(
            line.contains("--numjobs=2")
                && line.contains("--runtime=500ms")
                && line.ends_with("--filename=/d"),
            "{line}"
        );
        assert!(line.contains("--direct=1") && line.contains("--iodepth=32"), "{line}");
    }

    #[test]
    fn its_output_is_read() {
        let json = r#"{"jobs": [{"read": {"total_ios": 1000, "iops": 2000.0}, "write": {"total_ios": 0, "iops": 0.0},
                      "usr_cpu": 20.0, "sys_cpu": 30.0, "ctx": 5}]}"#;
        let sample = sample(json, &Case::all()[0]).unwrap();
        assert_eq!((sample.requests, sample.seconds, sample.threads.devices.sleeps), (1000, 0.5, 5));
        assert_eq!(sample.threads.devices.nanoseconds, 250_000_000);
    }
}
