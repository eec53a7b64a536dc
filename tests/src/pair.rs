//! Two machines on a segment, booted and frozen once, cloned at will.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use podwire_lan::{
    Impairment, Ipv4Net, LanError, Lease, MacAddr, Rule, RuleId, Segment, SegmentOptions,
    SegmentPlan, SegmentState, Selector,
};
use podwire_vm::{Guest, Machine, MachineSpec, Nic, Ram, create_overlay};

use crate::setup::Setup;

/// From power to an answer, emulated on a machine that does other things as well.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// For short commands in a guest.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

const SEGMENT_FILE: &str = "segment.json";
const MACHINES: [u8; 2] = [1, 2];

/// Machine `n`'s address on the segment.
pub fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + n)
}

fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 1, n])
}

fn name(n: u8) -> String {
    format!("node{n}")
}

fn plan() -> SegmentPlan {
    SegmentPlan {
        subnet: Ipv4Net {
            address: Ipv4Addr::new(172, 30, 0, 0),
            prefix: 24,
        },
        gateway: Ipv4Addr::new(172, 30, 0, 1),
        gateway_mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        leases: MACHINES
            .map(|n| Lease {
                mac: mac(n),
                address: address(n),
                host_name: name(n),
            })
            .to_vec(),
        outside: Ipv4Addr::new(192, 0, 2, 10),
        outside_name: "outside.test".to_owned(),
        unrouted: Vec::new(),
        routes: Vec::new(),
        is_apart: false,
        hosts: Vec::new(),
    }
}

/// Two running machines on a segment of their own.
#[derive(Debug)]
pub struct Pair {
    /// The segment.
    pub segment: Segment,
    machines: Vec<Machine>,
}

impl Pair {
    /// Machine 1 or 2.
    pub fn machine(&self, n: u8) -> &Machine {
        &self.machines[usize::from(n) - 1]
    }

    /// Cuts its cable: the rules that mend it when they are healed.
    ///
    /// # Errors
    /// When the segment has ended.
    pub fn cut(&self, n: u8) -> Result<Vec<RuleId>, LanError> {
        let cut = Rule {
            selector: Selector::from(&name(n)),
            impairment: Impairment {
                cut: true,
                ..Impairment::default()
            },
        };
        self.segment.rules().add(cut.both_ways())
    }

    /// The way into machine `n`, as soon as it answers; fails at once when the machine does.
    ///
    /// # Errors
    /// The machine's fault, or that it never answered.
    pub async fn guest(&self, n: u8) -> Result<Guest> {
        let guest = self.machine(n).guest();
        let up = guest.up(BOOT_LIMIT).await;
        up.with_context(|| format!("machine {n}"))?;
        Ok(guest.clone())
    }

    /// Ends both.
    pub async fn kill(self) {
        for machine in self.machines {
            machine.kill().await;
        }
    }

    async fn launch(
        setup: &Setup,
        segment: Segment,
        dir: &Path,
        rtc_base: Option<&str>,
        ram: &dyn Fn(u8) -> Ram,
    ) -> Result<Self> {
        let mut machines = Vec::new();
        for n in MACHINES {
            let fd = segment.attach(&name(n))?;
            let nic = Nic {
                mac: mac(n).to_string(),
                fd,
                plugged: true,
            };
            let spec = MachineSpec {
                rtc_base: rtc_base.map(str::to_owned),
                ..setup.machine(&name(n), disk(dir, n), ram(n))
            };
            let logs = dir.join(name(n));
            let machine =
                Machine::launch(&setup.spawner, &setup.qemu, spec, vec![nic], &logs).await?;
            machines.push(machine);
        }
        Ok(Self { segment, machines })
    }
}

/// Waits in machine `n` until it has its address.
fn is_leased(n: u8) -> String {
    let address = address(n);
    format!("until ip -4 -o address | grep -q ' {address}/'; do sleep 0.2; done")
}

fn disk(dir: &Path, n: u8) -> PathBuf {
    dir.join(format!("{}.qcow2", name(n)))
}

fn ram(dir: &Path, n: u8) -> PathBuf {
    dir.join(format!("{}.ram", name(n)))
}

fn state(dir: &Path, n: u8) -> PathBuf {
    dir.join(format!("{}.state", name(n)))
}

/// The frozen pair of this test run.
#[derive(Debug)]
pub struct Frozen {
    dir: PathBuf,
    /// Held as long as clones may run.
    _in_use: File,
}

impl Frozen {
    /// The pair that this run's first test froze, or else boots and freezes it.
    ///
    /// # Errors
    /// When the machines do not come up or cannot be frozen.
    pub async fn of_this_run(setup: &Setup) -> Result<Self> {
        let run =
            std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
        let parent = setup.tmp.join("frozen");
        fs::create_dir_all(&parent)?;
        let one_at_a_time = File::create(parent.join("lock"))?;
        one_at_a_time.lock()?;
        let dir = parent.join(&run);
        let failure = dir.join("failure");
        if let Ok(reason) = fs::read_to_string(&failure) {
            bail!("no pair of machines, as in an earlier test of this run: {reason}");
        }
        if !dir.join(SEGMENT_FILE).exists() {
            remove_unused(&parent)?;
            fs::create_dir_all(&dir)?;
            if let Err(error) = freeze_a_pair(setup, &dir).await {
                fs::write(&failure, format!("{error:#}"))?;
                return Err(error.context("cannot freeze a pair of machines"));
            }
        }
        let in_use = File::create(dir.join("in-use"))?;
        in_use.lock_shared()?;
        Ok(Self {
            dir,
            _in_use: in_use,
        })
    }

    /// A running clone with its files in `dir`.
    ///
    /// # Errors
    /// When it cannot be brought to life.
    pub async fn clone_in(&self, setup: &Setup, dir: &Path) -> Result<Pair> {
        self.clone_on_a_host_at(setup, dir, None).await
    }

    /// The same as if the host's clock said `now` when it begins (`YYYY-MM-DDTHH:MM:SS`, UTC).
    ///
    /// # Errors
    /// When it cannot be brought to life.
    pub async fn clone_on_a_host_at(
        &self,
        setup: &Setup,
        dir: &Path,
        now: Option<&str>,
    ) -> Result<Pair> {
        fs::create_dir_all(dir)?;
        let started = Instant::now();
        for n in MACHINES {
            create_overlay(&setup.qemu_img, &disk(&self.dir, n), &disk(dir, n))?;
        }
        let held: SegmentState = serde_json::from_slice(&fs::read(self.dir.join(SEGMENT_FILE))?)?;
        let options = SegmentOptions {
            start_held: true,
            ..SegmentOptions::default()
        };
        let segment = Segment::restore(plan(), options, held)?;
        let ram = |n| Ram::Clone(ram(&self.dir, n));
        let pair = Pair::launch(setup, segment, dir, now, &ram).await?;
        let launched = started.elapsed();
        for (n, machine) in MACHINES.iter().zip(&pair.machines) {
            machine.load(&state(&self.dir, *n)).await?;
        }
        let loaded = started.elapsed();
        for machine in &pair.machines {
            machine.resume().await?;
        }
        pair.segment.release()?;
        eprintln!(
            "clone: started after {launched:?}, loaded after {loaded:?}, running after {:?}",
            started.elapsed()
        );
        Ok(pair)
    }
}

async fn freeze_a_pair(setup: &Setup, dir: &Path) -> Result<()> {
    let started = Instant::now();
    for n in MACHINES {
        create_overlay(&setup.qemu_img, &setup.disk, &disk(dir, n))?;
    }
    let segment = Segment::start(plan(), SegmentOptions::default())?;
    let ram = |n| Ram::Template(ram(dir, n));
    let pair = Pair::launch(setup, segment, dir, None, &ram).await?;
    for n in MACHINES {
        let guest = pair.guest(n).await?;
        eprintln!("machine {n} answered after {:?}", started.elapsed());
        guest.run_ok(&is_leased(n), BOOT_LIMIT).await?;
        // Something in memory and on disk for every clone to find.
        let mark = format!("echo frozen-{n} | tee /run/mark > /root/mark && sync");
        guest.run_ok(&mark, COMMAND_LIMIT).await?;
        // A conversation in full flow in both directions, which is over before the machine is frozen.
        let busy = guest.clone();
        let busy = tokio::spawn(async move {
            let input = tokio::io::repeat(b'x');
            let flow = "cat <&0 >/dev/null & yes in full flow";
            busy.run_reading(flow, input, BOOT_LIMIT).await
        });
        guest
            .run_ok("until pgrep -x yes; do :; done", COMMAND_LIMIT)
            .await?;
        guest.close(COMMAND_LIMIT).await?;
        if let Ok(output) = busy.await? {
            bail!("a command outlived its conversation: {output}");
        }
    }
    let freezing = Instant::now();
    pair.segment.hold()?;
    for machine in &pair.machines {
        machine.pause().await?;
    }
    let held = pair.segment.state()?;
    let stopped = freezing.elapsed();
    for (n, machine) in MACHINES.iter().zip(&pair.machines) {
        machine.save(&state(dir, *n)).await?;
    }
    eprintln!(
        "frozen: stopped after {stopped:?}, saved after {:?}",
        freezing.elapsed()
    );
    pair.kill().await;
    // Last, because its presence says that the rest is complete.
    fs::write(dir.join(SEGMENT_FILE), serde_json::to_vec(&held)?)?;
    Ok(())
}

/// Frozen pairs of earlier runs, unless a test still uses them.
fn remove_unused(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let unused = match File::open(path.join("in-use")) {
            Ok(file) => file.try_lock().is_ok(),
            Err(_) => true,
        };
        if unused {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}
