//! What is never done without being asked for.

use std::io::{BufRead, IsTerminal as _, Write};

use podwire_images::host::{self, Plan};
use podwire_images::image::{self, LockDifference};

use crate::command::session::Session;
use crate::say::print;
use crate::say::stop::Stop;

/// Lets system packages be installed: `--yes`, or a yes on the terminal.
///
/// # Errors
/// [`Stop::Setup`] with the exact commands when there is no consent.
pub(crate) fn packages(plan: &Plan, yes: bool) -> Result<(), Stop> {
    if plan.missing.is_empty() {
        return Ok(());
    }
    let text = missing(plan);
    if plan.commands.is_empty() {
        return Err(Stop::setup(text));
    }
    errln!("{text}");
    if yes || (is_interactive() && ask("Run these commands now?")?) {
        return Ok(());
    }
    Err(Stop::setup(
        "nothing was installed: run the commands above, or let `--yes` do it",
    ))
}

/// Looks at the host, asks, and installs what is missing.
///
/// # Errors
/// As [`packages`], and when the installation fails.
pub(crate) fn host_packages(session: &Session, yes: bool) -> Result<(), Stop> {
    let plan = host::Host::detect(&session.spawner).plan(false);
    packages(&plan, yes)?;
    session.progress.phase("packages");
    let installed = host::install(&session.workshop(), &plan);
    session.progress.idle();
    Ok(installed?)
}

/// What is missing, and the commands that bring it.
pub(crate) fn missing(plan: &Plan) -> String {
    let mut text = String::from("missing on this machine:\n");
    for missing in &plan.missing {
        text += &format!("  {missing}\n");
    }
    if let Some(by_hand) = &plan.by_hand {
        text += &format!("{by_hand}\n");
    }
    if !plan.commands.is_empty() {
        let who = if plan.sudo {
            "as you, with sudo for these alone"
        } else {
            "as root"
        };
        text += &format!("to be run {who}:\n");
        for command in plan.typed() {
            text += &format!("  {command}\n");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Shows what differs, and takes the answer.
type Question<'a> = dyn Fn(&[LockDifference]) -> bool + 'a;

/// What becomes of package versions that the archive has dropped.
pub(crate) struct Outdated<'a> {
    yes: bool,
    locked: bool,
    ask: Box<Question<'a>>,
}

/// `--locked` refuses, `--yes` accepts, a terminal is asked, anything else refuses.
pub(crate) fn outdated(session: &Session, yes: bool, locked: bool) -> Outdated<'_> {
    Outdated {
        yes,
        locked,
        ask: Box::new(|differences| {
            session.progress.suspend(|| {
                errln!("The package archive no longer has what the lock names:");
                for difference in differences {
                    errln!("  {difference}");
                }
                // An unreadable answer is no consent.
                ask("Take the current versions for this image?").unwrap_or(false)
            })
        }),
    }
}

impl Outdated<'_> {
    pub(crate) fn as_request(&self) -> image::Outdated<'_> {
        if self.locked {
            image::Outdated::Refuse
        } else if self.yes {
            image::Outdated::Accept
        } else if is_interactive() {
            image::Outdated::Ask(&*self.ask)
        } else {
            image::Outdated::Refuse
        }
    }
}

fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn ask(question: &str) -> std::io::Result<bool> {
    asked(
        question,
        &mut std::io::stderr().lock(),
        &mut std::io::stdin().lock(),
    )
}

fn asked(question: &str, to: &mut impl Write, from: &mut impl BufRead) -> std::io::Result<bool> {
    print::write(to, format_args!("{question} [y/N] "));
    let mut answer = String::new();
    from.read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_images::host::{Missing, NEEDS};

    #[test]
    fn only_yes_is_consent() {
        assert!(["y", "Y\n", " yes\n"].into_iter().all(is_yes));
        assert!(!["", "\n", "n", "yesterday", "ok"].into_iter().any(is_yes));
    }

    #[test]
    fn a_question_commands_no_terminal_and_takes_one_line() {
        let mut shown = Vec::new();
        let said = "for \u{1b}]52;c;x\u{7}\n::error::?";
        let mut answers = "y\nn\n".as_bytes();
        assert!(asked(said, &mut shown, &mut answers).unwrap());
        assert!(!asked("", &mut shown, &mut answers).unwrap());
        let shown = String::from_utf8(shown).unwrap();
        let expected = "for \\u001b]52;c;x\\u0007\n\\u003a:error::? [y/N]  [y/N] ";
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_exact_commands_are_shown() {
        let plan = Plan {
            missing: vec![Missing {
                need: NEEDS[3],
                found: None,
            }],
            commands: vec![
                "apt-get update".into(),
                "apt-get install -y mmdebstrap".into(),
            ],
            by_hand: None,
            sudo: true,
        };
        insta::assert_snapshot!(missing(&plan));
    }

    #[test]
    fn an_unknown_system_gets_a_list_and_no_commands() {
        let plan = Plan {
            missing: vec![Missing {
                need: NEEDS[3],
                found: None,
            }],
            commands: Vec::new(),
            by_hand: Some("the packages of this system are not known here".into()),
            sudo: false,
        };
        let Err(Stop::Setup(error)) = packages(&plan, true) else {
            panic!("went on without a package");
        };
        assert!(error.to_string().contains("mmdebstrap"), "{error}");
    }
}
