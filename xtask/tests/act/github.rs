//! GitHub, as far as a workflow sees it: act carries it out on this machine, with small actions of our own
//! (`stand-ins/`) where a service would be, whose store is a folder.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use podwire_images::{Cache, Workshop, tools};
use podwire_process::{Report, Spawner};
use serde_json::Value;
use tempfile::TempDir;

use super::programs;

/// The versions of podwire that there are. All are this one.
const VERSIONS: [&str; 2] = ["v1", "v2"];

/// Actions that this repository uses, and where their stand-ins are.
const STAND_INS: [(&str, &str); 4] = [
    ("actions/cache@v4", "cache"),
    ("actions/checkout@v4", "checkout"),
    ("actions/download-artifact@v4", "download-artifact"),
    ("actions/upload-artifact@v4", "upload-artifact"),
];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The pinned act, built into the cache on first use.
fn act() -> &'static Path {
    struct Told;
    impl Report for Told {
        fn step(&self, text: &str) {
            eprintln!("{text}");
        }
        fn waiting(&self, _: &str) {}
    }
    static ACT: OnceLock<PathBuf> = OnceLock::new();
    ACT.get_or_init(|| {
        let (cache, spawner) = (Cache::open().unwrap(), Spawner::start().unwrap());
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &Told,
            source: project(),
        };
        tools::act(&workshop).unwrap()
    })
}

/// A repository with a workflow, in a GitHub of its own.
pub(crate) struct GitHub {
    dir: TempDir,
    runs: AtomicU32,
    /// Those in the names of cached entries, as they came.
    digests: RefCell<Vec<String>>,
}

/// A run of its workflow.
pub(crate) struct Ran {
    pub(crate) passed: bool,
    /// What its steps put on its page, joined.
    pub(crate) page: String,
    /// What its steps printed.
    pub(crate) log: String,
    /// Folder of its artifacts, by name.
    artifacts: PathBuf,
}

impl Ran {
    pub(crate) fn artifact(&self, name: &str) -> PathBuf {
        self.artifacts.join(name)
    }

    /// The result that an artifact holds.
    pub(crate) fn results(&self, artifact: &str) -> Value {
        let path = self.artifact(artifact).join("results.json");
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap()
    }
}

impl GitHub {
    /// With podwire as it is in this project's folder.
    pub(crate) fn new() -> Self {
        // On the disk of the project: a build of it goes there.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let github = Self {
            dir,
            runs: AtomicU32::new(0),
            digests: RefCell::default(),
        };
        for folder in ["bin", "home", "store/caches", "workflows/.github/workflows"] {
            fs::create_dir_all(github.path(folder)).unwrap();
        }
        let mut init = github.at_home(shell("git init -q -b main"));
        let made = init.current_dir(github.path("workflows")).status();
        assert!(made.unwrap().success());
        for version in VERSIONS {
            let podwire = github.podwire(version);
            fs::create_dir_all(&podwire).unwrap();
            let copy = "git ls-files -z -co --exclude-standard | xargs -0 cp --parents -t \"$TO\"";
            let mut copy = shell(copy);
            let copied = copy.env("TO", podwire).current_dir(project()).status();
            assert!(copied.unwrap().success());
        }
        github
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn podwire(&self, version: &str) -> PathBuf {
        self.path(&format!("store/repositories/owner/podwire@{version}"))
    }

    /// A program that is found before those of this machine.
    pub(crate) fn program(&self, name: &str, script: &str) {
        programs::program(&self.path("bin").join(name), script);
    }

    /// What has been restored of caches and saved since the last time that was asked; A, B, ... stand for
    /// digests, the same for the same.
    pub(crate) fn caches(&self) -> Vec<String> {
        let log = self.path("store/caches.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(&log, "").unwrap();
        let lines = text.lines().map(|line| {
            let parts: Vec<String> = line.split(':').map(|part| self.lettered(part)).collect();
            parts.join(":")
        });
        lines.collect()
    }

    fn lettered(&self, part: &str) -> String {
        if part.len() != 16 || !part.bytes().all(|it| it.is_ascii_hexdigit()) {
            return part.to_owned();
        }
        let mut digests = self.digests.borrow_mut();
        let index = digests.iter().position(|it| it == part).unwrap_or_else(|| {
            digests.push(part.to_owned());
            digests.len() - 1
        });
        char::from(b'A' + u8::try_from(index).unwrap()).to_string()
    }

    /// Pushes the repository with this as the jobs of its workflow.
    pub(crate) fn push(&self, jobs: &str) -> Ran {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.run(jobs, 1)
    }

    /// The last run once more, as its second attempt.
    pub(crate) fn rerun(&self, jobs: &str) -> Ran {
        self.run(jobs, 2)
    }

    fn run(&self, jobs: &str, attempt: u32) -> Ran {
        let number = self.runs.load(Ordering::Relaxed);
        let repository = self.path("workflows");
        let workflow = repository.join(".github/workflows/network.yml");
        fs::write(workflow, format!("on: push\njobs:\n{jobs}")).unwrap();
        let commit = "git add -A && git -c user.name=a -c user.email=a@b.invalid commit -q -m pushed \
                      --allow-empty";
        let committed = self
            .at_home(shell(commit))
            .current_dir(&repository)
            .status();
        assert!(committed.unwrap().success());

        let mut act = self.at_home(Command::new(act()));
        act.args(["push", "--json", "--rm", "--no-cache-server"])
            .args(["--platform", "ubuntu-24.04=-self-hosted"])
            .args(["--env", &format!("GITHUB_RUN_ID={number}")])
            .args(["--env", &format!("GITHUB_RUN_ATTEMPT={attempt}")])
            .current_dir(&repository);
        let stand_ins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/act/stand-ins");
        let stand_ins =
            STAND_INS.map(|(action, folder)| (action.to_owned(), stand_ins.join(folder)));
        let podwire =
            VERSIONS.map(|version| (format!("owner/podwire@{version}"), self.podwire(version)));
        for (action, folder) in stand_ins.into_iter().chain(podwire) {
            act.arg("--local-repository");
            act.arg(format!("{action}={}", folder.display()));
        }
        let ended = act.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        let (mut page, mut log) = (String::new(), String::new());
        for line in said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
        {
            let line: Value = line;
            if line["command"] == "summary" {
                page += line["content"].as_str().unwrap_or_default();
            } else {
                log += line["msg"].as_str().unwrap_or_default().trim_end();
                log += "\n";
            }
        }
        log += &String::from_utf8_lossy(&ended.stderr);
        Ran {
            passed: ended.status.success(),
            page,
            log,
            artifacts: self.path(&format!("store/artifacts/{number}")),
        }
    }

    /// With the programs of this GitHub, and nothing of act's in the user's home. Cargo's is where it was.
    fn at_home(&self, mut command: Command) -> Command {
        let home = std::env::var("HOME").unwrap_or_default();
        for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if std::env::var_os(variable).is_none() {
                command.env(variable, Path::new(&home).join(folder));
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("home/cache"))
            .env("XDG_CONFIG_HOME", self.path("home/config"))
            .env("STORE", self.path("store"))
            .stdin(Stdio::null());
        // What cargo, or a GitHub around this one, says to this test is no business of what is in there.
        let own = [
            "CARGO_",
            "RUSTUP_TOOLCHAIN",
            "GITHUB_",
            "RUNNER_",
            "ACTIONS_",
        ];
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name != "CARGO_HOME") {
            if own
                .iter()
                .any(|own| name.to_string_lossy().starts_with(own))
            {
                command.env_remove(name);
            }
        }
        command
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -euo pipefail; {script}")]);
    command.stdin(Stdio::null());
    command
}
