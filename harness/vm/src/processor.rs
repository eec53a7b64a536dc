//! What executes a guest's instructions, and which processor it finds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What executes the guest's instructions. Stored, and given to other processes, as its
/// [`Accelerator::id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Accelerator {
    /// The host's processor, through `/dev/kvm`, shown to the guest like this.
    Kvm(KvmProcessor),
    /// QEMU's emulation (Tiny Code Generator): works everywhere, 5 to 20 times slower.
    Tcg,
}

/// What a guest under KVM is shown of the host's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvmProcessor {
    /// All but some features, or none.
    HostWithout(Features),
    /// A named model that every host of the last fifteen years can be.
    Named,
}

/// Features that some KVMs, mostly nested ones, promise to QEMU and then refuse to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features {
    /// The performance counters (`pmu`).
    pub pmu: bool,
    /// The register that tells which faults of processors this one lacks (`arch-capabilities`).
    pub arch_capabilities: bool,
}

/// A text that is no accelerator's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no accelerator: tcg, kvm, or kvm,MODEL with one of {known}", known = models().join(" "))]
pub struct UnknownAccelerator(pub String);

/// `-cpu` of an emulated guest: all that QEMU emulates except what makes a processor faster and an emulation slower.
/// Walks of five-level page tables are longer in software too (`la57`). A kernel that is told that `rep movsb` is fast
/// copies by nothing else (`erms`, `fsrm`; Intel's optimization manual, 3.7.6), and QEMU carries it out octet by octet;
/// and each copy from and to a process then begins and ends with an instruction that makes QEMU look for translated code
/// anew (`smap`).
const EMULATED: &str = "max,la57=off,smap=off,erms=off,fsrm=off";

impl Accelerator {
    /// QEMU's `-accel` argument without its settings: `kvm`, `tcg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm(_) => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// QEMU's `-cpu` argument.
    pub fn cpu_model(self) -> &'static str {
        match self {
            Self::Kvm(processor) => processor.model(),
            Self::Tcg => EMULATED,
        }
    }

    /// Whether it is KVM.
    pub fn is_kvm(self) -> bool {
        matches!(self, Self::Kvm(_))
    }

    /// `kvm`, `tcg`; where the guest is not shown the whole processor, with what it is shown:
    /// `kvm,host,pmu=off`.
    pub fn id(self) -> String {
        match self {
            Self::Kvm(KvmProcessor::HOST) | Self::Tcg => self.name().to_owned(),
            Self::Kvm(processor) => format!("kvm,{}", processor.model()),
        }
    }
}

impl KvmProcessor {
    /// All of the host's.
    pub const HOST: Self = Self::host_without(false, false);

    /// All of them, the first to be tried first.
    const ALL: [Self; 5] = [
        Self::HOST,
        Self::host_without(true, false),
        Self::host_without(false, true),
        Self::host_without(true, true),
        Self::Named,
    ];

    const fn host_without(pmu: bool, arch_capabilities: bool) -> Self {
        Self::HostWithout(Features {
            pmu,
            arch_capabilities,
        })
    }

    /// QEMU's `-cpu` argument (QEMU manual, "CPU models").
    pub fn model(self) -> &'static str {
        match self {
            Self::HostWithout(without) => match (without.pmu, without.arch_capabilities) {
                (false, false) => "host",
                (true, false) => "host,pmu=off",
                (false, true) => "host,arch-capabilities=off",
                (true, true) => "host,pmu=off,arch-capabilities=off",
            },
            Self::Named => "Nehalem",
        }
    }

    /// What to try after this one failed for that reason: without what QEMU named, where it named
    /// something that it was shown, then the named model, then nothing.
    pub fn after(self, reason: &str) -> Option<Self> {
        let Self::HostWithout(without) = self else {
            return None;
        };
        let named = Features::named_in(reason);
        let more = Features {
            pmu: without.pmu || named.pmu,
            arch_capabilities: without.arch_capabilities || named.arch_capabilities,
        };
        match more == without {
            true => Some(Self::Named),
            false => Some(Self::HostWithout(more)),
        }
    }
}

impl Features {
    /// Those that a message of QEMU's names, by their names or by the numbers of their registers (Intel
    /// SDM volume 4; AMD APM volume 2, appendix A): `failed to set MSR 0x10a to 0xc000069`.
    pub fn named_in(message: &str) -> Self {
        let message = message.to_lowercase();
        let rest = message.split("msr 0x").skip(1);
        let registers = rest.filter_map(|rest| {
            let end = rest.find(|char: char| !char.is_ascii_hexdigit());
            u32::from_str_radix(&rest[..end.unwrap_or(rest.len())], 16).ok()
        });
        let mut named = Self {
            pmu: message.contains("pmu"),
            arch_capabilities: message.contains("arch-capabilities")
                || message.contains("arch_capabilities"),
        };
        for register in registers {
            match register {
                0x10a => named.arch_capabilities = true,
                0xc1..=0xc8
                | 0x186..=0x18d
                | 0x309..=0x30c
                | 0x345
                | 0x38d..=0x390
                | 0x3f1
                | 0x4c1..=0x4c8
                | 0xc001_0000..=0xc001_0007
                | 0xc001_0200..=0xc001_020b => named.pmu = true,
                _ => {}
            }
        }
        named
    }
}

/// A field of the first processor in the text of /proc/cpuinfo (proc_cpuinfo(5)): `model name`.
pub fn cpuinfo_field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(key, _)| key.trim() == name);
    found.map(|(_, value)| value.trim())
}

fn models() -> Vec<&'static str> {
    KvmProcessor::ALL.iter().map(|it| it.model()).collect()
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Accelerator {
    type Err = UnknownAccelerator;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kvm = KvmProcessor::ALL.into_iter().map(Self::Kvm);
        let mut all = kvm.chain([Self::Tcg]);
        let found = all.find(|it| it.id() == text);
        found.ok_or_else(|| UnknownAccelerator(text.to_owned()))
    }
}

impl TryFrom<String> for Accelerator {
    type Error = UnknownAccelerator;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Accelerator> for String {
    fn from(accelerator: Accelerator) -> Self {
        accelerator.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: &str = "QEMU ended with signal: 6 (SIGABRT); its last words: qemu-system-x86_64: \
        error: failed to set MSR 0x10a to 0xc000069";

    #[test]
    fn what_qemu_names_is_left_out_and_then_a_named_model_tried() {
        let mut tried = vec![KvmProcessor::HOST];
        for reason in [NESTED, "failed to set MSR 0x38f to 0x0", "it crashed"] {
            let next = tried[tried.len() - 1].after(reason);
            tried.extend(next);
        }
        let models: Vec<&str> = tried.iter().map(|it| it.model()).collect();
        assert_eq!(
            models,
            [
                "host",
                "host,arch-capabilities=off",
                "host,pmu=off,arch-capabilities=off",
                "Nehalem"
            ]
        );
        assert_eq!(KvmProcessor::Named.after(NESTED), None);
    }

    #[test]
    fn what_is_left_out_already_and_what_nobody_named_leads_to_the_named_model() {
        let without = KvmProcessor::HOST.after(NESTED).unwrap();
        assert_eq!(without.after(NESTED), Some(KvmProcessor::Named));
        assert_eq!(
            KvmProcessor::HOST.after("the guest was not up"),
            Some(KvmProcessor::Named)
        );
        // A register of neither feature.
        assert_eq!(
            KvmProcessor::HOST.after("failed to set MSR 0x1b to 0xfee00900"),
            Some(KvmProcessor::Named)
        );
    }

    #[test]
    fn registers_are_read_as_whole_numbers() {
        let named = |message| Features::named_in(message);
        assert!(named("MSR 0xC0010004").pmu);
        assert_eq!(named("failed to set MSR 0x10 to 0xa"), Features::default());
        assert_eq!(named("MSR 0x"), Features::default());
        assert_eq!(named("MSR 0x99999999999999999999"), Features::default());
        assert!(named("error: vPMU is not supported").pmu);
    }

    #[test]
    fn each_has_a_text_of_its_own_and_is_read_back_from_it() {
        let kvm = KvmProcessor::ALL.into_iter().map(Accelerator::Kvm);
        for accelerator in kvm.chain([Accelerator::Tcg]) {
            assert_eq!(accelerator.id().parse(), Ok(accelerator));
        }
        let host = Accelerator::Kvm(KvmProcessor::HOST);
        assert_eq!(serde_json::to_string(&host).unwrap(), "\"kvm\"");
        let error = "kvm,host,-vmx".parse::<Accelerator>().unwrap_err();
        assert!(error.to_string().contains("host,pmu=off"), "{error}");
    }
}
