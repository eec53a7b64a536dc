//! Two segments, a machine on each, and a router between them: copies of one machine that has booted
//! without a network card, as a cluster's nodes are.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use podwire_lan::{
    Host, Ipv4Net, Lease, MacAddr, NetworkPlan, Route, Segment, SegmentOptions, SegmentPlan,
    SegmentState,
};
use podwire_vm::memory::copy_sparse;
use podwire_vm::{Guest, Machine, MachineSpec, Nic, Ram, create_overlay};

use crate::setup::Setup;

/// From power to an answer, emulated on a machine that does other things as well.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// For short commands in a guest.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The name of the machine that all others are copies of.
const BOOTED: &str = "booted";

/// A machine of the two segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// On the first.
    Node1,
    /// On the second.
    Node2,
    /// On both.
    Router,
}

impl Who {
    const ALL: [Self; 3] = [Self::Node1, Self::Node2, Self::Router];

    /// Its host name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node1 => "node1",
            Self::Node2 => "node2",
            Self::Router => "router",
        }
    }

    /// Its address on the segment with an index, when it is on that.
    pub fn address(self, segment: u8) -> Option<Ipv4Addr> {
        let last = match (self, segment) {
            (Self::Node1, 0) => 11,
            (Self::Node2, 1) => 12,
            (Self::Router, 0 | 1) => 2,
            _ => return None,
        };
        Some(Ipv4Addr::new(172, 30, segment, last))
    }

    /// Its leases, with the index of the segment and the name of the port there.
    fn cards(self) -> Vec<(u8, String, Lease)> {
        let on = |segment| {
            let address = self.address(segment)?;
            let port = match self {
                Self::Router => format!("router-{}", segment + 1),
                Self::Node1 | Self::Node2 => self.name().to_owned(),
            };
            let [.., last] = address.octets();
            let lease = Lease {
                mac: MacAddr([0x52, 0x54, 0, 0, segment + 1, last]),
                address,
                host_name: self.name().to_owned(),
            };
            Some((segment, port, lease))
        };
        [0, 1].into_iter().filter_map(on).collect()
    }
}

/// The subnet of the segment with an index.
pub fn subnet(segment: u8) -> Ipv4Net {
    Ipv4Net {
        address: Ipv4Addr::new(172, 30, segment, 0),
        prefix: 24,
    }
}

/// The first segment's way to the second, and the second's to everywhere, is the router.
fn plan() -> NetworkPlan {
    let everywhere = Ipv4Net {
        address: Ipv4Addr::UNSPECIFIED,
        prefix: 0,
    };
    let segment = |index: u8, to: Ipv4Net, other: Who, beyond: u8| SegmentPlan {
        subnet: subnet(index),
        gateway: Ipv4Addr::new(172, 30, index, 1),
        gateway_mac: MacAddr([0x52, 0x54, 0, 0, 0, index + 1]),
        leases: (Who::ALL.iter().flat_map(|who| who.cards()))
            .filter(|(on, ..)| *on == index)
            .map(|(.., lease)| lease)
            .collect(),
        outside: Ipv4Addr::new(192, 0, 2, 10),
        outside_name: "outside.test".to_owned(),
        unrouted: Vec::new(),
        is_apart: false,
        routes: Vec::from_iter(Who::Router.address(index).map(|via| Route { to, via })),
        hosts: Vec::from_iter(other.address(beyond).map(|address| Host {
            name: other.name().to_owned(),
            address,
        })),
    };
    NetworkPlan {
        segments: vec![
            segment(0, subnet(1), Who::Node2, 1),
            segment(1, everywhere, Who::Node1, 0),
        ],
    }
}

/// The running machines and their segments.
#[derive(Debug)]
pub struct Routed {
    /// Both segments.
    pub segment: Segment,
    machines: Vec<Machine>,
}

/// They, frozen, in a folder.
#[derive(Debug)]
pub struct FrozenRouted {
    dir: PathBuf,
    segment: SegmentState,
}

struct Files(PathBuf);

impl Files {
    fn of(dir: &Path, name: &str) -> Self {
        Self(dir.join(name))
    }

    fn disk(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }

    fn ram(&self) -> PathBuf {
        self.0.join("ram")
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Routed {
    /// Boots a machine, and makes all three of it: each has its cards and addresses then, and none
    /// forwards.
    ///
    /// # Errors
    /// When one cannot be started, or does not come up.
    pub async fn made(setup: &Setup, dir: &Path) -> Result<Self> {
        let booted = booted(setup, dir).await?;
        for who in Who::ALL {
            let own = Files::of(dir, who.name());
            fs::create_dir_all(&own.0)?;
            copy_sparse(&booted.disk(), &own.disk())?;
            copy_sparse(&booted.ram(), &own.ram())?;
        }
        let segment = Segment::start(plan(), options())?;
        let ram = |who: Who| Ram::Template(Files::of(dir, who.name()).ram());
        let state = |_| booted.state();
        let made = Self::woken(setup, segment, dir, false, &ram, &state).await?;
        for machine in &made.machines {
            machine.plug_nics().await?;
        }
        for who in Who::ALL {
            for (.., lease) in who.cards() {
                let taken = format!(
                    "until ip -4 -o address | grep -q ' {}/'; do sleep 0.2; done",
                    lease.address
                );
                let guest = made.guest(who).await?;
                guest.run_ok(&taken, BOOT_LIMIT).await?;
            }
        }
        Ok(made)
    }

    /// The way into a machine.
    ///
    /// # Errors
    /// The machine's fault, or that it never answered.
    pub async fn guest(&self, who: Who) -> Result<Guest> {
        let mut machines = self.machines.iter();
        let machine = machines.find(|machine| machine.name() == who.name());
        let guest = machine.context("it is not here")?.guest();
        let up = guest.up(BOOT_LIMIT).await;
        up.with_context(|| who.name())?;
        Ok(guest.clone())
    }

    /// Freezes all of it in `dir`, in whose folder it was made.
    ///
    /// # Errors
    /// What QEMU says.
    pub async fn freeze(self, dir: &Path) -> Result<FrozenRouted> {
        for machine in &self.machines {
            machine.guest().close(COMMAND_LIMIT).await?;
        }
        self.segment.hold()?;
        for machine in &self.machines {
            machine.pause().await?;
        }
        let segment = self.segment.state()?;
        for machine in &self.machines {
            let state = Files::of(dir, machine.name()).state();
            machine.save(&state).await?;
        }
        self.kill().await;
        Ok(FrozenRouted {
            dir: dir.to_owned(),
            segment,
        })
    }

    /// Ends the machines.
    pub async fn kill(self) {
        for machine in self.machines {
            machine.kill().await;
        }
    }

    async fn woken(
        setup: &Setup,
        segment: Segment,
        dir: &Path,
        plugged: bool,
        ram: &dyn Fn(Who) -> Ram,
        state: &dyn Fn(Who) -> PathBuf,
    ) -> Result<Self> {
        let mut machines = Vec::new();
        for who in Who::ALL {
            let own = Files::of(dir, who.name());
            let mut nics = Vec::new();
            for (index, port, lease) in who.cards() {
                nics.push(Nic {
                    mac: lease.mac.to_string(),
                    fd: segment.attach_to(index.into(), &port)?,
                    plugged,
                });
            }
            let spec = setup.machine(who.name(), own.disk(), ram(who));
            let spec = MachineSpec {
                incoming: true,
                ..spec
            };
            let machine = Machine::launch(&setup.spawner, &setup.qemu, spec, nics, &own.0);
            machines.push(machine.await?);
        }
        for (who, machine) in Who::ALL.into_iter().zip(&machines) {
            machine.load(&state(who)).await?;
        }
        for machine in &machines {
            machine.resume().await?;
        }
        segment.release()?;
        Ok(Self { segment, machines })
    }
}

impl FrozenRouted {
    /// A running clone with its files in `dir`.
    ///
    /// # Errors
    /// When it cannot be brought to life.
    pub async fn clone_in(&self, setup: &Setup, dir: &Path) -> Result<Routed> {
        for who in Who::ALL {
            let (frozen, own) = (Files::of(&self.dir, who.name()), Files::of(dir, who.name()));
            fs::create_dir_all(&own.0)?;
            create_overlay(&setup.qemu_img, &frozen.disk(), &own.disk())?;
        }
        let segment = Segment::restore(plan(), options(), self.segment.clone())?;
        let ram = |who: Who| Ram::Clone(Files::of(&self.dir, who.name()).ram());
        let state = |who: Who| Files::of(&self.dir, who.name()).state();
        Routed::woken(setup, segment, dir, true, &ram, &state).await
    }
}

fn options() -> SegmentOptions {
    SegmentOptions {
        start_held: true,
        watch: true,
        ..SegmentOptions::default()
    }
}

/// A machine without a card, up to its agent, frozen.
async fn booted(setup: &Setup, dir: &Path) -> Result<Files> {
    let files = Files::of(dir, BOOTED);
    fs::create_dir_all(&files.0)?;
    create_overlay(&setup.qemu_img, &setup.disk, &files.disk())?;
    let spec = setup.machine(BOOTED, files.disk(), Ram::Template(files.ram()));
    let machine = Machine::launch(&setup.spawner, &setup.qemu, spec, Vec::new(), &files.0).await?;
    let guest = machine.guest();
    guest.up(BOOT_LIMIT).await?;
    guest.run_ok("sync", COMMAND_LIMIT).await?;
    guest.close(COMMAND_LIMIT).await?;
    machine.save(&files.state()).await?;
    machine.kill().await;
    Ok(files)
}
