//! The host: which system it is, what it lacks, and the exact commands that would add it.
//!
//! Everything up to [`install`] only looks; [`Plan`] is plain data to be shown and agreed to.

mod apt;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::{ChildCommand, run};
use serde::{Deserialize, Serialize};

pub(crate) use self::apt::auth;
pub use self::apt::{AptSource, Archive};
use crate::command::run_step;
use crate::{Error, Workshop};

/// The oldest QEMU that works: `file:` migration came with 8.2, and 7.2 dies in multi-threaded
/// emulation.
pub const MINIMUM_QEMU: Version = Version(8, 2);

/// The oldest Go that fetches the pinned toolchain by itself (`GOTOOLCHAIN`, Go 1.21).
pub const MINIMUM_GO: Version = Version(1, 21);

/// The keyring with which Debian's archive is verified.
pub(crate) const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where the backports entry is written.
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/podwire-backports.sources";

/// How long packages may take to come.
const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Major and minor version of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// The first `MAJOR.MINOR` in a program's answer to `--version`.
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || c == '(' || c == ')')
            .find_map(|word| {
                let word = word.trim_start_matches(|c: char| c.is_ascii_alphabetic());
                let mut parts = word.split('.');
                let number = |part: Option<&str>| {
                    let digits: String = part?.chars().take_while(char::is_ascii_digit).collect();
                    digits.parse().ok()
                };
                Some(Self(number(parts.next())?, number(parts.next())?))
            })
    }
}

/// What /etc/os-release says (os-release(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`: debian, ubuntu, ...
    pub id: String,
    /// `VERSION_ID`: 12, 24.04, ...
    pub version: String,
    /// `VERSION_CODENAME`: bookworm, noble, ...
    pub codename: String,
    /// `PRETTY_NAME`.
    pub pretty: String,
}

impl OsRelease {
    /// Reads os-release's text; what is not said is empty.
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
                .unwrap_or_default()
        };
        Self {
            id: value("ID"),
            version: value("VERSION_ID"),
            codename: value("VERSION_CODENAME"),
            pretty: value("PRETTY_NAME"),
        }
    }

    /// Whether packages can be installed by this project here.
    pub fn family(&self) -> Family {
        match (self.id.as_str(), self.version.as_str()) {
            ("debian", "12") => Family::Debian12,
            ("debian", "13") => Family::Debian13,
            ("ubuntu", "24.04") => Family::Ubuntu2404,
            _ => Family::Other,
        }
    }
}

/// The systems whose packages are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Debian 12: QEMU and Go come from its backports.
    Debian12,
    /// Debian 13.
    Debian13,
    /// Ubuntu 24.04.
    Ubuntu2404,
    /// Any other: it gets a list of programs.
    Other,
}

/// A program that is needed, and how it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The program, or the path of a file.
    pub program: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The package that has it on Debian and Ubuntu.
    pub package: &'static str,
    /// The oldest version that works, where one is known.
    pub minimum: Option<Version>,
    /// Whether Debian 12 has it new enough only in its backports.
    pub backport: bool,
    /// Whether it is needed only by an ordinary user.
    pub unprivileged_only: bool,
}

const fn need(program: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need {
        program,
        purpose,
        package,
        minimum: None,
        backport: false,
        unprivileged_only: false,
    }
}

/// Every program that a run uses beside the Rust toolchain and a C compiler.
pub const NEEDS: &[Need] = &[
    Need {
        minimum: Some(MINIMUM_QEMU),
        backport: true,
        ..need("qemu-system-x86_64", "qemu-system-x86", "runs the machines")
    },
    Need {
        minimum: Some(MINIMUM_QEMU),
        backport: true,
        ..need("qemu-img", "qemu-utils", "makes disk images and overlays")
    },
    Need {
        minimum: Some(MINIMUM_GO),
        backport: true,
        ..need("go", "golang-go", "builds Kubernetes")
    },
    need("mmdebstrap", "mmdebstrap", "installs Debian into an image"),
    need(
        DEBIAN_KEYRING,
        "debian-archive-keyring",
        "verifies Debian's packages",
    ),
    need("mke2fs", "e2fsprogs", "makes an image's file system"),
    need("gpgv", "gpgv", "verifies who signed a cloud image"),
    need(
        "unshare",
        "util-linux",
        "keeps an image's build apart from the host",
    ),
    Need {
        unprivileged_only: true,
        ..need(
            "newuidmap",
            "uidmap",
            "lets an ordinary user build an image",
        )
    },
];

/// The program that only `cargo xtask bench` needs, to compare with.
pub const BENCH_NEED: Need = need(
    "vde_switch",
    "vde2",
    "the switch that ours is compared with",
);

/// A program as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundProgram {
    /// Where.
    pub path: PathBuf,
    /// Its version, asked for only where a minimum is known.
    pub version: Option<Version>,
}

/// What was seen of the host.
#[derive(Debug, Clone)]
pub struct Host {
    /// The system.
    pub os: OsRelease,
    /// apt's sources; empty where there is no apt.
    pub sources: Vec<AptSource>,
    /// Whether this process is root.
    pub root: bool,
    /// The programs of [`NEEDS`] that are there, by name.
    pub programs: BTreeMap<&'static str, FoundProgram>,
}

/// One program that is missing or too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is needed.
    pub need: Need,
    /// The version that is there and too old.
    pub found: Option<Version>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.need.program)?;
        if let Some(minimum) = self.need.minimum {
            write!(f, " {minimum} or newer")?;
        }
        if let Some(found) = self.found {
            write!(f, " (here: {found})")?;
        }
        write!(
            f,
            ", which {}: package {}",
            self.need.purpose, self.need.package
        )
    }
}

/// What would bring what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is missing.
    pub missing: Vec<Missing>,
    /// Shell commands for root, in order; empty when nothing is missing or the system is not one
    /// whose packages are known.
    pub commands: Vec<String>,
    /// Why there are no commands although something is missing.
    pub by_hand: Option<String>,
    /// Whether the commands need sudo.
    pub sudo: bool,
}

impl Plan {
    /// The commands as a person would type them.
    pub fn typed(&self) -> Vec<String> {
        self.commands
            .iter()
            .map(|command| {
                if self.sudo {
                    ChildCommand::new("sudo")
                        .args(["sh", "-c", command])
                        .display()
                } else {
                    command.clone()
                }
            })
            .collect()
    }
}

/// Finds a program in `PATH` or where a system keeps root's (which an ordinary user's `PATH` lacks).
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

impl Host {
    /// Looks at the host; runs `PROGRAM --version` of the few programs whose version matters.
    ///
    /// # Errors
    /// None that stops it: what cannot be read counts as absent.
    pub fn detect(spawner: &podwire_process::Spawner) -> Self {
        let os = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
            .unwrap_or_default();
        let mut programs = BTreeMap::new();
        for need in NEEDS.iter().chain([&BENCH_NEED]) {
            let Some(path) = find_program(need.program) else {
                continue;
            };
            let version = need.minimum.and_then(|_| ask_version(spawner, &path));
            programs.insert(need.program, FoundProgram { path, version });
        }
        Self {
            os: OsRelease::parse(&os),
            sources: apt::sources(Path::new("/etc/apt")),
            root: rustix::process::geteuid().is_root(),
            programs,
        }
    }

    /// What is missing for a run (`bench`: and for the benchmark), and the commands that bring it.
    pub fn plan(&self, bench: bool) -> Plan {
        let wanted = NEEDS.iter().chain(bench.then_some(&BENCH_NEED));
        let missing: Vec<Missing> = wanted
            .filter(|need| !(need.unprivileged_only && self.root))
            .filter_map(
                |need| match (self.programs.get(need.program), need.minimum) {
                    (None, _) => Some(Missing {
                        need: *need,
                        found: None,
                    }),
                    // A program that does not tell its version is given the benefit of the doubt.
                    (Some(found), Some(minimum)) if found.version.is_some_and(|v| v < minimum) => {
                        Some(Missing {
                            need: *need,
                            found: found.version,
                        })
                    }
                    _ => None,
                },
            )
            .collect();
        let (commands, by_hand) = match self.commands(&missing) {
            Ok(commands) => (commands, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        Plan {
            missing,
            commands,
            by_hand,
            sudo: !self.root,
        }
    }

    fn commands(&self, missing: &[Missing]) -> Result<Vec<String>, String> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let family = self.os.family();
        if family == Family::Other {
            let os = if self.os.pretty.is_empty() {
                "this system"
            } else {
                &self.os.pretty
            };
            return Err(format!(
                "the packages of {os} are not known here (known: Debian 12 and 13, Ubuntu 24.04): \
                 install these programs yourself"
            ));
        }
        let packages = |backport: bool| -> Vec<&str> {
            let from_backports = |need: &Need| need.backport && family == Family::Debian12;
            missing
                .iter()
                .filter(|missing| from_backports(&missing.need) == backport)
                .map(|missing| missing.need.package)
                .collect()
        };
        let mut commands = Vec::new();
        let backports = packages(true);
        if !backports.is_empty() && !self.has_suite("bookworm-backports") {
            commands.push(self.add_backports()?);
        }
        commands.push("apt-get update".to_owned());
        // Who installs something else just then, as unattended-upgrades does, is waited for.
        let install = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
                       -o DPkg::Lock::Timeout=600";
        let plain = packages(false);
        if !plain.is_empty() {
            commands.push(format!("{install} {}", plain.join(" ")));
        }
        if !backports.is_empty() {
            commands.push(format!(
                "{install} -t bookworm-backports {}",
                backports.join(" ")
            ));
        }
        Ok(commands)
    }

    fn has_suite(&self, suite: &str) -> bool {
        self.sources.iter().any(|source| source.suite == suite)
    }

    fn add_backports(&self) -> Result<String, String> {
        let main = self.debian_source(&self.os.codename).ok_or(
            "apt's sources have no entry for bookworm to derive the one for bookworm-backports from: \
             add it yourself, then run this again",
        )?;
        if main.uri.is_closed() {
            return Err(format!(
                "apt's entry for bookworm has a password in its address ({}), which no command here shows: \
                 add one for bookworm-backports yourself, then run this again",
                main.uri
            ));
        }
        let mut lines = vec![
            "Types: deb".to_owned(),
            format!("URIs: {}", main.uri.open()),
            "Suites: bookworm-backports".to_owned(),
            "Components: main".to_owned(),
        ];
        if let Some(signed_by) = &main.signed_by {
            let mut key = signed_by.lines();
            lines.push(format!("Signed-By: {}", key.next().unwrap_or_default()));
            // A key given in place: its lines continue the field.
            lines.extend(key.map(|line| format!(" {line}")));
        }
        let printf = ChildCommand::new("printf")
            .args(["%s\\n"])
            .args(lines)
            .display();
        Ok(format!("{printf} > {BACKPORTS_FILE}"))
    }

    fn debian_source(&self, suite: &str) -> Option<&AptSource> {
        self.sources.iter().find(|source| {
            source.suite == suite && source.components.iter().any(|name| name == "main")
        })
    }

    /// The sources for a Debian suite in mmdebstrap's form, taken from this host's own when it is a
    /// Debian (so that a mirror set up for the host serves the image too); empty when it is not, for
    /// mmdebstrap's own default. Passwords are not in them, see [`Host::debian_auth`].
    pub fn debian_mirrors(&self, suite: &str) -> Vec<String> {
        let line = |(part, source): (&str, &AptSource)| {
            // A key given in place does not fit on one line; the archive's own keyring, which
            // mmdebstrap finds by itself, is the usual one.
            let option = source
                .signed_by
                .as_deref()
                .filter(|key| key.starts_with('/') && !key.contains(char::is_whitespace))
                .map(|key| format!("[signed-by={key}] "))
                .unwrap_or_default();
            format!("deb {option}{} {suite}{part} main", source.uri.open())
        };
        self.debian_sources().into_iter().map(line).collect()
    }

    /// What their servers are told, for a file of apt_auth.conf(5); empty where that is nothing.
    pub(crate) fn debian_auth(&self) -> String {
        let sources = self.debian_sources().into_iter();
        let mut lines: Vec<String> = sources.filter_map(|(_, it)| it.uri.auth()).collect();
        lines.dedup();
        lines.concat()
    }

    /// What of this host's own sources serves an image too, each with what its suite's name ends with.
    fn debian_sources(&self) -> Vec<(&'static str, &AptSource)> {
        let own = &self.os.codename;
        let found = |part: &'static str| {
            let source = self.debian_source(&format!("{own}{part}"))?;
            Some((part, source))
        };
        match found("") {
            Some(main) if self.os.id == "debian" => {
                let others = ["-updates", "-security"].into_iter().filter_map(found);
                std::iter::once(main).chain(others).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn ask_version(spawner: &podwire_process::Spawner, path: &Path) -> Option<Version> {
    let go = path.file_name().is_some_and(|name| name == "go");
    let command = ChildCommand::new(path)
        .args([if go { "version" } else { "--version" }])
        // Its own version, not that of a toolchain it would fetch first.
        .env("GOTOOLCHAIN", "local");
    let done = run(spawner, command, Duration::from_secs(20)).ok()?;
    Version::find(&done.stdout)
}

/// Runs a plan's commands, as root or through sudo. The caller has asked for consent. Waits for what an
/// earlier run has begun to install and not ended with it.
///
/// # Errors
/// [`Error::Step`] with what the failed command printed.
pub fn install(workshop: &Workshop<'_>, plan: &Plan) -> Result<(), Error> {
    let log = workshop.cache.log("packages.log")?;
    for command in &plan.commands {
        // dpkg that is killed leaves more to mend than one that goes on. So what is root's may outlive
        // this run, and holds the lock for as long.
        let lock = workshop.cache.lock("packages", workshop.report)?;
        workshop
            .report
            .step(&format!("installing packages: {command}"));
        let words = ["sh", "-c", command.as_str()];
        let mut child = if plan.sudo {
            ChildCommand::new("sudo").args(words)
        } else {
            ChildCommand::new(words[0]).args(&words[1..])
        };
        child.stdin = lock.into_input();
        run_step(workshop, "installing packages", child, &log, INSTALL_LIMIT)?;
    }
    Ok(())
}

#[cfg(test)]
impl Host {
    /// A Debian 12 with these settings of apt, and nothing else.
    pub(crate) fn debian_12(apt: &Path) -> Self {
        Self {
            os: OsRelease::parse("ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n"),
            sources: apt::sources(apt),
            root: true,
            programs: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::apt::tests::DEB822;
    use super::*;
    use crate::Cache;
    use crate::test_host::{Loud, Run};

    fn host(os: &str, sources: Vec<AptSource>) -> Host {
        Host {
            os: OsRelease::parse(os),
            sources,
            root: true,
            programs: BTreeMap::new(),
        }
    }

    const BOOKWORM: &str = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
    const TRIXIE: &str = "ID=debian\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\n";
    const NOBLE: &str = "ID=ubuntu\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n";

    fn with(mut host: Host, programs: &[(&'static str, Option<Version>)]) -> Host {
        for (name, version) in programs {
            let path = PathBuf::from("/usr/bin").join(name);
            host.programs.insert(
                name,
                FoundProgram {
                    path,
                    version: *version,
                },
            );
        }
        host
    }

    #[test]
    fn debian_12_gets_qemu_and_go_from_backports_of_its_own_mirror() {
        let sources = apt::parse("debian.sources", DEB822);
        let plan = host(BOOKWORM, sources.clone()).plan(false);
        insta::assert_snapshot!(plan.typed().join("\n"), @r"
        printf '%s\n' 'Types: deb' 'URIs: http://mirror.example/debian' 'Suites: bookworm-backports' 'Components: main' 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' > /etc/apt/sources.list.d/podwire-backports.sources
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=600 mmdebstrap debian-archive-keyring e2fsprogs gpgv util-linux
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=600 -t bookworm-backports qemu-system-x86 qemu-utils golang-go
        ");
        let there = [
            ("qemu-system-x86_64", Some(Version(7, 2))),
            ("qemu-img", Some(Version(10, 0))),
            ("go", Some(Version(1, 26))),
            ("mmdebstrap", None),
            (DEBIAN_KEYRING, None),
            ("mke2fs", None),
            ("gpgv", None),
            ("unshare", None),
        ];
        let old = with(host(BOOKWORM, sources), &there).plan(false);
        insta::assert_snapshot!(old.missing[0], @"qemu-system-x86_64 8.2 or newer (here: 7.2), which runs the machines: package qemu-system-x86");
        assert_eq!(old.missing.len(), 1);
    }

    #[test]
    fn backports_that_are_there_are_not_added_again_and_no_mirror_is_made_up() {
        let line = "deb http://mirror.example/debian bookworm-backports main";
        let plan = host(BOOKWORM, apt::parse("x.list", line)).plan(false);
        assert_eq!(plan.commands[0], "apt-get update");
        let plan = host(BOOKWORM, Vec::new()).plan(false);
        assert_eq!(plan.commands, Vec::<String>::new());
        assert!(plan.by_hand.unwrap().contains("bookworm-backports"));
    }

    #[test]
    fn a_mirrors_password_is_in_no_command_and_no_argument() {
        let closed = DEB822.replace("http://mirror", "http://me:s3cr%40t@mirror");
        let debian = host(BOOKWORM, apt::parse("debian.sources", &closed));
        let plan = debian.plan(false);
        assert_eq!(plan.commands, Vec::<String>::new());
        insta::assert_snapshot!(plan.by_hand.as_deref().unwrap(), @"apt's entry for bookworm has a password in its address (http://***@mirror.example/debian), which no command here shows: add one for bookworm-backports yourself, then run this again");
        insta::assert_snapshot!(debian.debian_mirrors("trixie").join("\n"), @r"
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian trixie main
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian trixie-updates main
        deb http://mirror.example/security trixie-security main
        ");
        insta::assert_snapshot!(debian.debian_auth(), @"
        machine http://mirror.example/debian login me password s3cr@t
        machine http://mirror.example/security login me password s3cr@t
        ");
        let shown = format!("{plan:?}{debian:?}");
        assert!(!shown.contains("s3cr"), "{shown}");
        let open = host(BOOKWORM, apt::parse("debian.sources", DEB822));
        assert_eq!(open.debian_auth(), "");
    }

    #[test]
    fn other_systems_take_their_own_packages_or_get_a_list() {
        for os in [TRIXIE, NOBLE] {
            let plan = host(os, Vec::new()).plan(true);
            assert_eq!(plan.commands.len(), 2, "{plan:?}");
            insta::allow_duplicates! {
                insta::assert_snapshot!(plan.commands[1], @"DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=600 qemu-system-x86 qemu-utils golang-go mmdebstrap debian-archive-keyring e2fsprogs gpgv util-linux vde2");
            }
        }
        let plan = host("ID=fedora\nPRETTY_NAME=\"Fedora 44\"\n", Vec::new()).plan(false);
        assert_eq!(plan.commands, Vec::<String>::new());
        insta::assert_snapshot!(plan.by_hand.unwrap(), @"the packages of Fedora 44 are not known here (known: Debian 12 and 13, Ubuntu 24.04): install these programs yourself");
        assert_eq!(plan.missing.len(), NEEDS.len() - 1);
    }

    #[test]
    fn an_ordinary_user_needs_uidmap_and_sudo() {
        let mut ordinary = with(host(TRIXIE, Vec::new()), &[("unshare", None)]);
        ordinary.root = false;
        let plan = ordinary.plan(false);
        assert!(
            plan.missing
                .iter()
                .any(|missing| missing.need.package == "uidmap")
        );
        insta::assert_snapshot!(plan.typed()[0], @"sudo sh -c 'apt-get update'");
    }

    /// Killed while it installs: with sudo all of what that runs goes on, as root dpkg does.
    #[test]
    fn what_outlives_a_run_that_installed_packages_is_waited_for() {
        let test = "host::tests::what_outlives_a_run_that_installed_packages_is_waited_for";
        if let Some(dir) = Run::this() {
            let spawner = podwire_process::Spawner::start().unwrap();
            let plan = Plan {
                missing: Vec::new(),
                commands: vec![fs::read_to_string(dir.join("command")).unwrap()],
                by_hand: None,
                sudo: dir.join("sudo").exists(),
            };
            let workshop = Workshop {
                cache: &Cache::at(&dir.join("cache")).unwrap(),
                spawner: &spawner,
                report: &Loud,
                source: &dir,
            };
            return install(&workshop, &plan).unwrap();
        }
        for sudo in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let file = |name: &str| dir.path().join(name);
            if sudo {
                fs::write(file("sudo"), "").unwrap();
            }
            let at = dir.path().display();
            let dpkg = format!(
                "(echo begun; until [ -e '{at}/go' ] || [ ! -d '{at}' ]; do sleep 0.05; done; \
                 touch '{at}/installed'); true"
            );
            fs::write(file("command"), dpkg).unwrap();
            let mut first = Run::start(test, dir.path());
            assert!(first.says("begun"));
            first.kill();

            fs::write(file("command"), format!("test -e '{at}/installed'")).unwrap();
            let mut second = Run::start(test, dir.path());
            let waits = "another run of podwire, which works on packages";
            assert!(second.says(waits), "sudo: {sudo}");
            assert!(!file("installed").exists());
            fs::write(file("go"), "").unwrap();
            assert!(second.ends_well(), "sudo: {sudo}");
        }
    }

    #[test]
    fn nothing_missing_means_nothing_to_do() {
        let all: Vec<_> = NEEDS
            .iter()
            .map(|need| (need.program, need.minimum))
            .collect();
        let plan = with(host(TRIXIE, Vec::new()), &all).plan(false);
        assert_eq!(
            (plan.missing.len(), plan.commands.len(), plan.by_hand),
            (0, 0, None)
        );
    }

    #[test]
    fn versions_are_found_where_programs_print_them() {
        let cases = [
            (
                "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)",
                Some(Version(10, 0)),
            ),
            (
                "qemu-img version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)",
                Some(Version(8, 2)),
            ),
            ("go version go1.26.8 linux/amd64", Some(Version(1, 26))),
            ("go version go1.22rc1 linux/amd64", Some(Version(1, 22))),
            ("no version", None),
        ];
        for (text, version) in cases {
            assert_eq!(Version::find(text), version, "{text}");
        }
        assert!(Version(10, 0) > MINIMUM_QEMU && Version(7, 2) < MINIMUM_QEMU);
    }

    #[test]
    fn an_image_is_installed_from_the_hosts_own_mirror() {
        let debian = host(BOOKWORM, apt::parse("debian.sources", DEB822));
        insta::assert_snapshot!(debian.debian_mirrors("trixie").join("\n"), @r"
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian trixie main
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian trixie-updates main
        deb http://mirror.example/security trixie-security main
        ");
        assert_eq!(
            host(NOBLE, Vec::new()).debian_mirrors("trixie"),
            Vec::<String>::new()
        );
        assert_eq!(
            host(TRIXIE, Vec::new()).debian_mirrors("trixie"),
            Vec::<String>::new()
        );
    }
}
