// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine of a run: devices to attack, in one pool, and one that nobody attacks, in a pool before it.

use cvmm_hostile::table::{CASES_PER_DEVICE, Case, DISK_PATTERN, Kind, cases, feed, messages};

use super::check::DISK_BYTES;

/// Memory of the guest, in MiB, pools included.
pub const MEMORY: usize = 36;

/// Devices to attack: so many on either transport.
#[derive(Clone, Copy, Default)]
pub struct Victims {
    pub disks: usize,
    pub rngs: usize,
    pub nets: usize,
    /// Pairs of queues of each network device.
    pub pairs: usize,
    /// Disks for a queue that feeds itself.
    pub feed: bool,
    /// `--spec plan`: the driver must accept the feature bit, and the registers name the pool.
    pub plan: bool,
}

impl Victims {
    /// For what is wrong without an address. Some rows for a disk use an entropy device, too.
    pub fn of_behaviour(kind: Kind) -> Self {
        match kind {
            Kind::Blk => Self { rngs: 1, feed: true, ..Self::one(kind) },
            _ => Self::one(kind),
        }
    }

    /// Enough for the cases of a device type.
    pub fn of(kind: Kind, indirect: bool) -> Self {
        let all: Vec<Case> = cases(kind, indirect).collect();
        Self::so_many(kind, all.chunks(CASES_PER_DEVICE).count())
    }

    /// Enough for the messages of a device type.
    pub fn of_messages(kind: Kind) -> Self {
        Self::so_many(kind, messages().count().div_ceil(CASES_PER_DEVICE))
    }

    /// One device of this type, on either transport.
    pub fn one(kind: Kind) -> Self {
        Self::so_many(kind, 1)
    }

    fn so_many(kind: Kind, count: usize) -> Self {
        let none = Self { pairs: 1, ..Self::default() };
        match kind {
            Kind::Blk => Self { disks: count, ..none },
            Kind::Rng => Self { rngs: count, ..none },
            Kind::Net | Kind::Receive => Self { nets: count, ..none },
            Kind::Control => Self { nets: count, pairs: 2, ..none },
        }
    }

    /// Disks on both transports; images are numbered so, the ones on PCI after the others.
    pub fn images(&self) -> usize {
        2 * self.disks
    }

    /// Taps on both transports, numbered likewise.
    pub fn taps(&self) -> usize {
        2 * self.nets
    }

    /// What is on each disk: the pattern, and where a queue is to feed itself, what it does that with.
    pub fn contents(&self) -> Vec<u8> {
        let mut contents = vec![DISK_PATTERN; DISK_BYTES];
        if self.feed {
            for number in 0..feed::SECTORS {
                let mut sector = [DISK_PATTERN; 512];
                sector[..10].copy_from_slice(&feed::sector(number));
                contents.extend(sector);
            }
        }
        contents
    }

    /// Options of `cvmm run`, with these names for images and taps.
    pub fn options(&self, image: impl Fn(usize) -> String, tap: impl Fn(usize) -> String) -> Vec<String> {
        let mut options = vec![format!("--mem={MEMORY}M")];
        let others = [
            // The second one begins when a case takes two.
            "--cpus=2",
            // One after the other, and private memory before and behind them. Each device is bound to its pool, since with the
            // plan's text one that uses the default pool has no reference to it.
            "--pool=size=2M,base=16M,name=witness",
            "--pool=size=2M,base=18M,name=victims,default",
        ];
        options.extend(others.map(String::from));
        if self.plan {
            options.push("--spec=plan".into());
        }
        let (mut images, mut taps) = (0.., 0..);
        for transport in ["mmio", "pci"] {
            for number in images.by_ref().take(self.disks) {
                let image = image(number);
                options.push(format!("--blk=path={image},transport={transport},pool=victims"));
            }
            for number in taps.by_ref().take(self.nets) {
                let (tap, pairs) = (tap(number), self.pairs);
                options.push(format!("--net=tap={tap},transport={transport},queues={pairs},pool=victims"));
            }
            options.extend((0..self.rngs).map(|_| format!("--rng=transport={transport},pool=victims")));
        }
        options.push("--rng=transport=mmio,pool=witness".into());
        options
    }
}
