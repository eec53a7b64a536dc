//! QEMU's command line as data.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use podwire_probe::agent::PORT;
use serde_json::Value;

use crate::processor::Accelerator;

/// Where a machine's memory lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ram {
    /// Nowhere on disk: such a machine cannot be frozen.
    Anonymous,
    /// In this file, shared: what the guest writes is in the file, so [`crate::Machine::save`]
    /// stores device state only. The file is created when it is missing.
    Template(PathBuf),
    /// A private copy-on-write mapping of a frozen machine's file, which is never changed.
    Clone(PathBuf),
}

/// A machine as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    /// Name in logs, errors and QEMU's process title.
    pub name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// What executes the guest.
    pub accelerator: Accelerator,
    /// QEMU's `-cpu` argument; [`Accelerator::cpu_model`] fits unless a guest needs another.
    pub cpu_model: String,
    /// Linux kernel image, booted directly.
    pub kernel: PathBuf,
    /// Initial RAM disk for it.
    pub initrd: Option<PathBuf>,
    /// Kernel command line, appended to [`MachineSpec::CONSOLE_APPEND`].
    pub append: String,
    /// A qcow2 image of the machine's own, `/dev/vda` in the guest, opened without flushes.
    pub disk: Option<PathBuf>,
    /// Where the memory lives.
    pub ram: Ram,
    /// Whether the machine waits for [`crate::Machine::load`] instead of booting.
    pub incoming: bool,
    /// The guest's clock at start, `YYYY-MM-DDTHH:MM:SS` in UTC; the host's when absent. It runs
    /// only while the machine does.
    pub rtc_base: Option<String>,
    /// Whether a reset by the guest ends QEMU instead of booting again.
    pub no_reboot: bool,
    /// The rate of the host's time stamp counter, see [`crate::clock`]: an emulated guest is told
    /// (Linux, `tsc_early_khz`) instead of measuring it. It does not shape the machine.
    pub tsc_khz: Option<u32>,
}

/// The numbers of the descriptors that QEMU inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// Stream socket for QMP.
    pub qmp: RawFd,
    /// Stream socket for the serial console.
    pub console: RawFd,
    /// Stream socket for the guest's agent.
    pub agent: RawFd,
    /// Network cards, eight at most: the first is `eth0` in the guest.
    pub nics: Vec<NicDescriptor>,
}

/// A network card's address and its port on the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicDescriptor {
    /// MAC address, `52:54:00:00:01:01`; none as long as it does not sit in the slot.
    pub mac: Option<String>,
    /// Stream socket carrying length-prefixed frames.
    pub fd: RawFd,
}

/// The cards' slot, on the command line and when they are plugged in later.
pub(crate) const NIC_SLOT: &str = "slot0";

/// A card's id.
pub(crate) fn nic_id(index: usize) -> String {
    format!("nic{index}")
}

/// The id of a card's backend.
pub(crate) fn netdev_id(index: usize) -> String {
    format!("net{index}")
}

/// What a card has beside its MAC address, on a machine with so many. Several are functions of one
/// device: a slot takes one device, and the slots of a machine that has booted stay as they are.
pub(crate) fn nic_properties(index: usize, count: usize) -> Vec<(&'static str, Value)> {
    let mut properties = vec![("romfile", "".into())];
    if count > 1 {
        properties.push(("addr", format!("0x0.{index}").into()));
        properties.push(("multifunction", true.into()));
    }
    properties
}

/// How much of a guest's memory the host has for its translated code. When that is full QEMU forgets all of it, and
/// translates anew whatever still runs: with 256 MiB a control plane of kubeadm's did so twice a minute. What is not
/// filled takes no memory.
const TRANSLATED: u64 = 2;
/// Stands for it in a machine's shape, since no guest can tell.
const SHAPED_MIB: u64 = 256;
/// Host memory in MiB that a QEMU takes for itself, rounded up.
const QEMU_MIB: u64 = 64;

impl MachineSpec {
    /// What every kernel gets: its messages go to the recorded console, without those of daily
    /// life, and a panic is followed by a reset, as on a node set up for Kubernetes.
    pub const CONSOLE_APPEND: &str = "console=ttyS0 loglevel=4 panic=-1 no_timer_check";

    /// QEMU's arguments, without the program.
    ///
    /// # Example
    /// `["-name", "node1,debug-threads=on", "-nodefaults", ..., "-device", "virtio-net-pci,..."]`
    pub fn command_line(&self, descriptors: &Descriptors) -> Vec<String> {
        let nics = descriptors.nics.iter();
        let nics = nics.map(|nic| (nic.mac.as_deref(), nic.fd.to_string()));
        self.arguments(
            self.translated_mib(),
            &descriptors.qmp.to_string(),
            &descriptors.console.to_string(),
            &descriptors.agent.to_string(),
            &nics.collect::<Vec<_>>(),
        )
    }

    /// Host memory in MiB for translated code (QEMU's `tb-size`).
    fn translated_mib(&self) -> u64 {
        self.memory_mib / TRANSLATED
    }

    /// The most host memory in MiB that the machine can come to occupy: the guest's own and QEMU's.
    pub fn host_memory_mib(&self) -> u64 {
        let translated = match self.accelerator {
            Accelerator::Kvm(_) => 0,
            Accelerator::Tcg => self.translated_mib(),
        };
        self.memory_mib + translated + QEMU_MIB
    }

    /// The arguments that a guest can notice, for digests: the same for a machine that is frozen
    /// and the clones made of it, wherever their files are and whatever they are called.
    pub fn shape(&self) -> Vec<String> {
        let neutral = Self {
            name: "NAME".into(),
            kernel: "KERNEL".into(),
            initrd: self.initrd.as_ref().map(|_| "INITRD".into()),
            disk: self.disk.as_ref().map(|_| "DISK".into()),
            ram: Ram::Template("RAM".into()),
            incoming: false,
            rtc_base: None,
            tsc_khz: None,
            ..self.clone()
        };
        // What more cards there are, is said where they are plugged in.
        neutral.arguments(SHAPED_MIB, "FD", "FD", "FD", &[(Some("MAC"), "FD".into())])
    }

    fn arguments(
        &self,
        translated_mib: u64,
        qmp: &str,
        console: &str,
        agent: &str,
        nics: &[(Option<&str>, String)],
    ) -> Vec<String> {
        let mut line = Line::default();
        line.pair("-name", format!("{},debug-threads=on", escaped(&self.name)));
        line.flag("-nodefaults");
        line.flag("-no-user-config");
        line.pair("-display", "none");
        line.pair(
            "-machine",
            "q35,memory-backend=ram,graphics=off,vmport=off,sata=off,usb=off",
        );
        line.pair(
            "-accel",
            match self.accelerator {
                Accelerator::Kvm(_) => "kvm".into(),
                Accelerator::Tcg => format!("tcg,thread=multi,tb-size={translated_mib}"),
            },
        );
        line.pair("-cpu", &self.cpu_model);
        line.pair("-smp", format!("cpus={}", self.vcpus));
        line.pair("-m", format!("{}M", self.memory_mib));
        line.pair("-object", self.memory());
        let base = self.rtc_base.as_deref().unwrap_or("utc");
        line.pair("-rtc", format!("base={base},clock=vm"));
        line.pair("-kernel", self.kernel.to_string_lossy());
        if let Some(initrd) = &self.initrd {
            line.pair("-initrd", initrd.to_string_lossy());
        }
        line.pair("-append", self.kernel_command_line());
        line.pair("-chardev", format!("socket,id=qmp,fd={qmp}"));
        line.pair("-mon", "chardev=qmp,mode=control");
        line.pair("-chardev", format!("socket,id=console,fd={console}"));
        line.pair("-serial", "chardev:console");
        // A slot that takes cards while the guest runs: machines that are cloned from one get
        // theirs afterwards.
        line.pair(
            "-device",
            format!("pcie-root-port,id={NIC_SLOT},chassis=1,addr=0x2"),
        );
        for (index, (mac, fd)) in nics.iter().enumerate() {
            let (nic, netdev) = (nic_id(index), netdev_id(index));
            line.pair(
                "-netdev",
                format!("stream,id={netdev},server=off,addr.type=fd,addr.str={fd}"),
            );
            if let Some(mac) = mac {
                let mut device =
                    format!("virtio-net-pci,id={nic},bus={NIC_SLOT},netdev={netdev},mac={mac}");
                for (name, value) in nic_properties(index, nics.len()) {
                    device += &match value {
                        Value::String(text) => format!(",{name}={text}"),
                        Value::Bool(true) => format!(",{name}=on"),
                        other => format!(",{name}={other}"),
                    };
                }
                line.pair("-device", device);
            }
        }
        if let Some(disk) = &self.disk {
            line.pair(
                "-blockdev",
                format!(
                    "driver=qcow2,node-name=disk,discard=unmap,cache.no-flush=on,\
                     file.driver=file,file.filename={},file.cache.no-flush=on",
                    escaped_path(disk)
                ),
            );
            line.pair("-device", "virtio-blk-pci,id=disk0,drive=disk,addr=0x3");
        }
        line.pair("-object", "rng-builtin,id=rng");
        line.pair("-device", "virtio-rng-pci,id=rng0,rng=rng,addr=0x4");
        // One port beside the one that is reserved for a console: each costs the guest two queues.
        line.pair(
            "-device",
            "virtio-serial-pci,id=serial0,max_ports=2,addr=0x5",
        );
        line.pair("-chardev", format!("socket,id=agent,fd={agent}"));
        line.pair(
            "-device",
            format!("virtserialport,bus=serial0.0,nr=1,chardev=agent,name={PORT}"),
        );
        // Clones of one machine draw different random numbers only because this changes.
        line.pair("-device", "vmgenid,id=generation,guid=auto");
        if self.incoming {
            line.pair("-incoming", "defer");
            line.flag("-S");
        }
        if self.no_reboot {
            line.flag("-no-reboot");
        }
        line.0
    }

    fn kernel_command_line(&self) -> String {
        let mut line = Self::CONSOLE_APPEND.to_owned();
        if !self.append.is_empty() {
            line += &format!(" {}", self.append);
        }
        if let (Accelerator::Tcg, Some(khz)) = (self.accelerator, self.tsc_khz) {
            line += &format!(" tsc_early_khz={khz}");
        }
        line
    }

    fn memory(&self) -> String {
        let size = self.memory_mib;
        match &self.ram {
            Ram::Anonymous => format!("memory-backend-ram,id=ram,size={size}M"),
            Ram::Template(file) => format!(
                "memory-backend-file,id=ram,size={size}M,mem-path={},share=on",
                escaped_path(file)
            ),
            // Opened read-only, so that nothing the guest discards can punch holes into the file
            // which every sibling maps.
            Ram::Clone(file) => format!(
                "memory-backend-file,id=ram,size={size}M,mem-path={},share=off,readonly=on,rom=off",
                escaped_path(file)
            ),
        }
    }

    /// The same machine with every path absolute, because QEMU runs in a folder of its own.
    pub(crate) fn absolute(self) -> std::io::Result<Self> {
        let absolute = |path: PathBuf| std::path::absolute(path);
        Ok(Self {
            kernel: absolute(self.kernel)?,
            initrd: self.initrd.map(absolute).transpose()?,
            disk: self.disk.map(absolute).transpose()?,
            ram: match self.ram {
                Ram::Anonymous => Ram::Anonymous,
                Ram::Template(file) => Ram::Template(absolute(file)?),
                Ram::Clone(file) => Ram::Clone(absolute(file)?),
            },
            ..self
        })
    }

    /// The files that must exist before a start.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Path> {
        let ram = match &self.ram {
            Ram::Clone(file) => Some(file),
            Ram::Anonymous | Ram::Template(_) => None,
        };
        std::iter::once(&self.kernel)
            .chain(&self.initrd)
            .chain(&self.disk)
            .chain(ram)
            .map(PathBuf::as_path)
    }
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

/// A value inside a comma-separated option (QEMU doubles commas).
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

fn escaped_path(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::processor::KvmProcessor;

    pub(crate) fn node() -> MachineSpec {
        MachineSpec {
            name: "node1".into(),
            vcpus: 2,
            memory_mib: 2048,
            accelerator: Accelerator::Tcg,
            cpu_model: Accelerator::Tcg.cpu_model().into(),
            kernel: "/cache/image/kernel".into(),
            initrd: Some("/cache/image/initrd".into()),
            append: "root=/dev/vda rw".into(),
            disk: Some("/run/a,b/disk.qcow2".into()),
            ram: Ram::Template("/run/a,b/ram".into()),
            incoming: false,
            rtc_base: None,
            no_reboot: false,
            tsc_khz: None,
        }
    }

    fn shown(arguments: Vec<String>) -> String {
        let mut lines: Vec<String> = Vec::new();
        for argument in arguments {
            match lines.last_mut() {
                Some(line) if !argument.starts_with('-') => {
                    line.push(' ');
                    line.push_str(&argument);
                }
                _ => lines.push(argument),
            }
        }
        lines.join("\n")
    }

    fn descriptors() -> Descriptors {
        Descriptors {
            qmp: 10,
            console: 11,
            agent: 13,
            nics: vec![NicDescriptor {
                mac: Some("52:54:00:00:01:01".into()),
                fd: 12,
            }],
        }
    }

    #[test]
    fn a_template_boots_from_shared_memory_and_its_own_disk() {
        insta::assert_snapshot!(shown(node().command_line(&descriptors())), @r"
        -name node1,debug-threads=on
        -nodefaults
        -no-user-config
        -display none
        -machine q35,memory-backend=ram,graphics=off,vmport=off,sata=off,usb=off
        -accel tcg,thread=multi,tb-size=1024
        -cpu max,la57=off,smap=off,erms=off,fsrm=off
        -smp cpus=2
        -m 2048M
        -object memory-backend-file,id=ram,size=2048M,mem-path=/run/a,,b/ram,share=on
        -rtc base=utc,clock=vm
        -kernel /cache/image/kernel
        -initrd /cache/image/initrd
        -append console=ttyS0 loglevel=4 panic=-1 no_timer_check root=/dev/vda rw
        -chardev socket,id=qmp,fd=10
        -mon chardev=qmp,mode=control
        -chardev socket,id=console,fd=11
        -serial chardev:console
        -device pcie-root-port,id=slot0,chassis=1,addr=0x2
        -netdev stream,id=net0,server=off,addr.type=fd,addr.str=12
        -device virtio-net-pci,id=nic0,bus=slot0,netdev=net0,mac=52:54:00:00:01:01,romfile=
        -blockdev driver=qcow2,node-name=disk,discard=unmap,cache.no-flush=on,file.driver=file,file.filename=/run/a,,b/disk.qcow2,file.cache.no-flush=on
        -device virtio-blk-pci,id=disk0,drive=disk,addr=0x3
        -object rng-builtin,id=rng
        -device virtio-rng-pci,id=rng0,rng=rng,addr=0x4
        -device virtio-serial-pci,id=serial0,max_ports=2,addr=0x5
        -chardev socket,id=agent,fd=13
        -device virtserialport,bus=serial0.0,nr=1,chardev=agent,name=podwire.agent
        -device vmgenid,id=generation,guid=auto
        ");
    }

    #[test]
    fn a_clone_waits_for_its_state_and_cannot_change_the_template() {
        let clone = MachineSpec {
            ram: Ram::Clone("/stage/ram".into()),
            incoming: true,
            rtc_base: Some("2026-11-21T13:00:00".into()),
            accelerator: Accelerator::Kvm(KvmProcessor::HOST),
            cpu_model: Accelerator::Kvm(KvmProcessor::HOST).cpu_model().into(),
            ..node()
        };
        insta::assert_snapshot!(shown(clone.command_line(&descriptors())), @r"
        -name node1,debug-threads=on
        -nodefaults
        -no-user-config
        -display none
        -machine q35,memory-backend=ram,graphics=off,vmport=off,sata=off,usb=off
        -accel kvm
        -cpu host
        -smp cpus=2
        -m 2048M
        -object memory-backend-file,id=ram,size=2048M,mem-path=/stage/ram,share=off,readonly=on,rom=off
        -rtc base=2026-11-21T13:00:00,clock=vm
        -kernel /cache/image/kernel
        -initrd /cache/image/initrd
        -append console=ttyS0 loglevel=4 panic=-1 no_timer_check root=/dev/vda rw
        -chardev socket,id=qmp,fd=10
        -mon chardev=qmp,mode=control
        -chardev socket,id=console,fd=11
        -serial chardev:console
        -device pcie-root-port,id=slot0,chassis=1,addr=0x2
        -netdev stream,id=net0,server=off,addr.type=fd,addr.str=12
        -device virtio-net-pci,id=nic0,bus=slot0,netdev=net0,mac=52:54:00:00:01:01,romfile=
        -blockdev driver=qcow2,node-name=disk,discard=unmap,cache.no-flush=on,file.driver=file,file.filename=/run/a,,b/disk.qcow2,file.cache.no-flush=on
        -device virtio-blk-pci,id=disk0,drive=disk,addr=0x3
        -object rng-builtin,id=rng
        -device virtio-rng-pci,id=rng0,rng=rng,addr=0x4
        -device virtio-serial-pci,id=serial0,max_ports=2,addr=0x5
        -chardev socket,id=agent,fd=13
        -device virtserialport,bus=serial0.0,nr=1,chardev=agent,name=podwire.agent
        -device vmgenid,id=generation,guid=auto
        -incoming defer
        -S
        ");
    }

    #[test]
    fn a_probe_needs_neither_network_nor_disk() {
        let probe = MachineSpec {
            initrd: None,
            append: String::new(),
            disk: None,
            ram: Ram::Anonymous,
            no_reboot: true,
            tsc_khz: None,
            ..node()
        };
        let line = probe.command_line(&Descriptors {
            nics: Vec::new(),
            ..descriptors()
        });
        insta::assert_snapshot!(shown(line), @r"
        -name node1,debug-threads=on
        -nodefaults
        -no-user-config
        -display none
        -machine q35,memory-backend=ram,graphics=off,vmport=off,sata=off,usb=off
        -accel tcg,thread=multi,tb-size=1024
        -cpu max,la57=off,smap=off,erms=off,fsrm=off
        -smp cpus=2
        -m 2048M
        -object memory-backend-ram,id=ram,size=2048M
        -rtc base=utc,clock=vm
        -kernel /cache/image/kernel
        -append console=ttyS0 loglevel=4 panic=-1 no_timer_check
        -chardev socket,id=qmp,fd=10
        -mon chardev=qmp,mode=control
        -chardev socket,id=console,fd=11
        -serial chardev:console
        -device pcie-root-port,id=slot0,chassis=1,addr=0x2
        -object rng-builtin,id=rng
        -device virtio-rng-pci,id=rng0,rng=rng,addr=0x4
        -device virtio-serial-pci,id=serial0,max_ports=2,addr=0x5
        -chardev socket,id=agent,fd=13
        -device virtserialport,bus=serial0.0,nr=1,chardev=agent,name=podwire.agent
        -device vmgenid,id=generation,guid=auto
        -no-reboot
        ");
    }

    #[test]
    fn two_cards_share_the_slot() {
        let router = Descriptors {
            nics: [(1, 12), (2, 14)]
                .map(|(n, fd)| NicDescriptor {
                    mac: Some(format!("52:54:00:00:02:0{n}")),
                    fd,
                })
                .to_vec(),
            ..descriptors()
        };
        let line = shown(node().command_line(&router));
        let cards = line.lines().filter(|it| it.contains("net"));
        insta::assert_snapshot!(cards.collect::<Vec<_>>().join("\n"), @r"
        -netdev stream,id=net0,server=off,addr.type=fd,addr.str=12
        -device virtio-net-pci,id=nic0,bus=slot0,netdev=net0,mac=52:54:00:00:02:01,romfile=,addr=0x0.0,multifunction=on
        -netdev stream,id=net1,server=off,addr.type=fd,addr.str=14
        -device virtio-net-pci,id=nic1,bus=slot0,netdev=net1,mac=52:54:00:00:02:02,romfile=,addr=0x0.1,multifunction=on
        ");
    }

    #[test]
    fn an_emulated_machine_takes_memory_for_its_translated_code() {
        let kvm = MachineSpec {
            accelerator: Accelerator::Kvm(KvmProcessor::HOST),
            ..node()
        };
        assert_eq!(kvm.host_memory_mib(), 2048 + 64);
        assert_eq!(node().host_memory_mib(), 2048 + 64 + 1024);
    }

    #[test]
    fn a_machine_and_its_clones_have_one_shape() {
        let clone = MachineSpec {
            name: "elsewhere".into(),
            ram: Ram::Clone("/stage/ram".into()),
            disk: Some("/clone/disk".into()),
            kernel: "/moved/kernel".into(),
            initrd: Some("/moved/initrd".into()),
            incoming: true,
            rtc_base: Some("2026-11-21T13:00:00".into()),
            ..node()
        };
        assert_eq!(clone.shape(), node().shape());
        let larger = MachineSpec {
            memory_mib: 4096,
            ..node()
        };
        assert_ne!(larger.shape(), node().shape());
        let text = node().shape().join(" ");
        assert!(!text.contains("/run") && !text.contains("/cache"), "{text}");
    }
}
