//! `cargo xtask doctor`: this machine, and how to fix it.

use podwire_admission::Memory;
use podwire_images::host::{Family, Host, NEEDS};
use podwire_images::image::privilege;
use podwire_images::tools;
use podwire_vm::Accelerator;
use rustix::process::{Resource, getrlimit};

use crate::command::cli::house::DoctorArgs;
use crate::command::session::Session;
use crate::plan::outline::{Machine, Need, Plan};
use crate::plan::phase::Phase;
use crate::prepare::{machine, parts, tickets};
use crate::say::stop::Stop;
use crate::say::text::{size, table};

/// Looks at everything, says what it found, and how to fix what is in the way.
pub(crate) fn doctor(session: &Session, args: &DoctorArgs) -> Result<(), Stop> {
    let lines = examine(session, args.require_kvm)?;
    out!("{}", render(&lines));
    if any_problem(&lines) {
        return Err(Stop::setup("not everything that a run needs is there"));
    }
    Ok(())
}

fn examine(session: &Session, require_kvm: bool) -> Result<Vec<Line>, Stop> {
    let host = Host::detect(&session.spawner);
    let memory = Memory::of_host()?;
    let open_files = getrlimit(Resource::Nofile);
    let bundle = parts::newest_modules(session)?;
    let fresh = fresh_plan(session, &bundle.kubernetes)?;
    let mut lines = vec![Line {
        what: "system",
        finding: match host.os.family() {
            Family::Other => Finding::Later(format!(
                "{}: its packages are not known here, install them yourself",
                host.os.pretty
            )),
            _ => Finding::Good(host.os.pretty.clone()),
        },
    }];
    lines.extend(numbers(&Numbers {
        cores: machine::cores(),
        memory_available: memory.available,
        memory_needed: fresh.memory_needed(),
        disk_available: session.cache.disk()?.available,
        disk_needed: fresh.disk_needed(),
        open_files: (
            open_files.current.unwrap_or(u64::MAX),
            open_files.maximum.unwrap_or(u64::MAX),
        ),
    }));
    let plan = host.plan(false);
    for need in NEEDS
        .iter()
        .filter(|need| !(need.unprivileged_only && host.root))
    {
        let missing = plan
            .missing
            .iter()
            .find(|missing| missing.need.program == need.program);
        lines.push(Line {
            what: need.package,
            finding: match (missing, host.programs.get(need.program)) {
                (Some(missing), _) => Finding::Problem {
                    found: format!("missing: {missing}"),
                    fix: plan.by_hand.clone().unwrap_or_else(|| {
                        format!(
                            "`cargo xtask test` offers to install it, or: {}",
                            plan.typed().join(" && ")
                        )
                    }),
                },
                (None, Some(found)) => Finding::Good(found.version.map_or_else(
                    || found.path.display().to_string(),
                    |version| format!("{} {version}", found.path.display()),
                )),
                (None, None) => Finding::Good("there".into()),
            },
        });
    }
    lines.push(Line {
        what: "image building",
        finding: match privilege(&session.spawner) {
            Ok(privilege) => Finding::Good(privilege.to_string()),
            Err(error) => Finding::Problem {
                found: "no way to build an image as this user".into(),
                fix: error.to_string(),
            },
        },
    });
    let [nextest, deny] = tools::cached(&session.workshop())?;
    for (what, cached) in [("cargo-nextest", nextest), ("cargo-deny", deny)] {
        let finding = if cached {
            Finding::Good("in the cache".into())
        } else {
            Finding::Later("built into the cache when first used".into())
        };
        lines.push(Line { what, finding });
    }
    lines.push(Line {
        what: "accelerator",
        finding: accelerator(session, require_kvm)?,
    });
    Ok(lines)
}

fn accelerator(session: &Session, require_kvm: bool) -> Result<Finding, Stop> {
    let base = parts::cached_base(session)?;
    // Without QEMU there is a problem of its own above.
    let verdict = match (base, machine::Programs::find()) {
        (Some(base), Ok(_)) => machine::known_verdict(session, &base)?,
        _ => None,
    };
    Ok(match verdict {
        None => Finding::Later(
            "not judged yet: the small base image comes first (`cargo xtask test` builds it)"
                .into(),
        ),
        Some(verdict) => {
            let found = format!(
                "{}, speed factor {:.1}, boot in {:.1} s: {}",
                verdict.accelerator, verdict.speed_factor, verdict.boot_seconds, verdict.reason
            );
            if require_kvm && !verdict.accelerator.is_kvm() {
                Finding::Problem {
                    found,
                    fix: "give this user /dev/kvm (group kvm), or, in a virtual machine, have its host \
                          allow nested virtualisation"
                        .into(),
                }
            } else {
                Finding::Good(found)
            }
        }
    })
}

/// Those that the default run's scenarios start from, two for each bootstrap, and two on the way.
const FRESH_STAGES: usize = 6;

/// The plan of a default run on this machine with an empty cache.
fn fresh_plan(session: &Session, kubernetes: &str) -> Result<Plan, Stop> {
    let appetite = tickets::appetite(3, kubernetes, Accelerator::Tcg)?;
    let machine = Machine {
        cores: machine::cores(),
        memory_available: Memory::of_host()?.available,
        disk_available: session.cache.disk()?.available,
        disk_giving_way: 0,
        accelerator: None,
    };
    Ok(Plan {
        machine,
        phases: Phase::ALL
            .into_iter()
            .map(|phase| (phase, Need::Missing(String::new())))
            .collect(),
        appetite,
        stages: FRESH_STAGES,
        scenarios: Vec::new(),
        at_once: 1,
    })
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// As it should be.
    Good(String),
    /// Not there yet; `cargo xtask test` makes it.
    Later(String),
    /// In the way, and how to get it out of the way.
    Problem { found: String, fix: String },
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) finding: Finding,
}

/// Plain numbers that are judged against what the default run needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) cores: usize,
    pub(crate) memory_available: u64,
    pub(crate) memory_needed: u64,
    pub(crate) disk_available: u64,
    pub(crate) disk_needed: u64,
    /// Soft and hard limit of open files.
    pub(crate) open_files: (u64, u64),
}

/// Each QEMU, console, transcript and socket is a file; three machines and their switch need some 200.
const OPEN_FILES: u64 = 1024;

/// Judges the numbers.
pub(crate) fn numbers(numbers: &Numbers) -> Vec<Line> {
    let Numbers {
        cores,
        memory_available,
        memory_needed,
        disk_available,
        disk_needed,
        open_files,
    } = *numbers;
    let enough = |available: u64, needed: u64, fix: &str| {
        let found = format!("{} available, {} needed", size(available), size(needed));
        if available >= needed {
            Finding::Good(found)
        } else {
            Finding::Problem {
                found,
                fix: fix.into(),
            }
        }
    };
    vec![
        Line {
            what: "cores",
            finding: if cores >= 2 {
                Finding::Good(cores.to_string())
            } else {
                Finding::Problem {
                    found: cores.to_string(),
                    fix: "a control plane and its workers need two; give this machine more".into(),
                }
            },
        },
        Line {
            what: "memory",
            finding: enough(
                memory_available,
                memory_needed,
                "end other programs, or take fewer machines with --nodes",
            ),
        },
        Line {
            what: "disk",
            finding: enough(
                disk_available,
                disk_needed,
                "free some, run `cargo xtask clean --all`, or point PODWIRE_CACHE at a larger disk",
            ),
        },
        Line {
            what: "open files",
            finding: if open_files.0 >= OPEN_FILES {
                Finding::Good(open_files.0.to_string())
            } else {
                Finding::Problem {
                    found: format!("at most {}", open_files.0),
                    fix: if open_files.1 >= OPEN_FILES {
                        format!("run `ulimit -n {OPEN_FILES}` first")
                    } else {
                        format!(
                            "have root raise the hard limit ({}) in /etc/security/limits.conf",
                            open_files.1
                        )
                    },
                }
            },
        },
    ]
}

/// The report.
pub(crate) fn render(lines: &[Line]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let (mark, text) = match &line.finding {
                Finding::Good(found) => ("ok", found.clone()),
                Finding::Later(found) => ("later", found.clone()),
                Finding::Problem { found, .. } => ("PROBLEM", found.clone()),
            };
            vec![mark.to_owned(), line.what.to_owned(), text]
        })
        .collect();
    let mut text = table(&rows);
    // One command often mends several problems: it is told once.
    let mut fixes: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines {
        if let Finding::Problem { fix, .. } = &line.finding {
            match fixes.iter_mut().find(|(known, _)| known == fix) {
                Some((_, mended)) => mended.push(line.what),
                None => fixes.push((fix, vec![line.what])),
            }
        }
    }
    if fixes.is_empty() {
        text += "\nNothing is in the way of `cargo xtask test`.\n";
    } else {
        text += "\nTo fix:\n";
        for (fix, mended) in fixes {
            text += &format!("  {}: {fix}\n", mended.join(", "));
        }
    }
    text
}

/// Whether `cargo xtask test` would stop at one of these.
pub(crate) fn any_problem(lines: &[Line]) -> bool {
    lines
        .iter()
        .any(|line| matches!(line.finding, Finding::Problem { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Numbers = Numbers {
        cores: 4,
        memory_available: 14 << 30,
        memory_needed: 4 << 30,
        disk_available: 60 << 30,
        disk_needed: 12 << 30,
        open_files: (1024, 1_048_576),
    };

    #[test]
    fn a_good_machine_has_no_problem() {
        let lines = numbers(&FINE);
        assert!(!any_problem(&lines));
        insta::assert_snapshot!(render(&lines));
    }

    #[test]
    fn each_problem_comes_with_its_fix() {
        let mut lines = numbers(&Numbers {
            cores: 1,
            memory_available: 1 << 30,
            disk_available: 1 << 30,
            open_files: (256, 512),
            ..FINE
        });
        lines.push(Line {
            what: "accelerator",
            finding: Finding::Later("not judged yet".into()),
        });
        assert!(any_problem(&lines));
        insta::assert_snapshot!(render(&lines));
    }

    #[test]
    fn what_is_only_missing_yet_is_no_problem() {
        let lines = [Line {
            what: "accelerator",
            finding: Finding::Later("not judged yet".into()),
        }];
        assert!(!any_problem(&lines));
    }

    #[test]
    fn a_command_that_mends_two_problems_is_told_once() {
        let missing = |what| Line {
            what,
            finding: Finding::Problem {
                found: "missing".into(),
                fix: "apt-get install both".into(),
            },
        };
        let text = render(&[missing("qemu"), missing("golang")]);
        assert!(
            text.ends_with("To fix:\n  qemu, golang: apt-get install both\n"),
            "{text}"
        );
    }
}
