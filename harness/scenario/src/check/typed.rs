//! What a command that was typed came to, by its exit status and its words.

use std::collections::BTreeSet;

use podwire_vm::Output as Answer;

use crate::check::failure::{Cause, Failure};

/// A command was refused, and said why in these words; `expected` completes "expected ...".
///
/// # Errors
/// A [`Failure`] with all that it said: of the class `Answered` where it was carried out, `WrongAnswer` where it was
/// refused in other words.
pub fn refused(answer: &Answer, why: &str, expected: &str) -> Result<(), Failure> {
    let said = answer.said();
    let cause = match (answer.succeeded(), said.contains(why)) {
        (false, true) => return Ok(()),
        (true, _) => Cause::Answered,
        (false, false) => Cause::WrongAnswer,
    };
    Err(Failure::new(
        cause,
        format!("{expected}, saying {why:?}"),
        said,
    ))
}

/// kubeadm stopped, by exactly these of its preflight checks.
///
/// # Errors
/// A [`Failure`] with all that it said: of the class `Answered` where it went on, `Absent` where one of these did not
/// stop it, `WrongAnswer` where another did.
pub fn stopped_by(answer: &Answer, checks: &[&str]) -> Result<(), Failure> {
    let said = answer.said();
    let (found, wanted) = (preflight_errors(&said), checks.iter().copied().collect());
    let cause = match () {
        () if answer.succeeded() => Cause::Answered,
        () if found == wanted => return Ok(()),
        () if found.is_superset(&wanted) => Cause::WrongAnswer,
        () => Cause::Absent,
    };
    let expected = format!("kubeadm to be stopped by exactly {}", checks.join(", "));
    Err(Failure::new(cause, expected, said))
}

/// kubeadm's preflight checks passed, and warned of exactly these.
///
/// # Errors
/// A [`Failure`] with all that it said: of the class `Absent` where they did not pass, else `WrongAnswer`.
pub fn passed_warning_of(answer: &Answer, wanted: &BTreeSet<&str>) -> Result<(), Failure> {
    let said = answer.said();
    let cause = match () {
        () if !answer.succeeded() || !preflight_errors(&said).is_empty() => Cause::Absent,
        () if checks("[WARNING ", &said) == *wanted => return Ok(()),
        () => Cause::WrongAnswer,
    };
    let expected = format!("kubeadm's checks to pass, and to warn of exactly {wanted:?}");
    Err(Failure::new(cause, expected, said))
}

/// Names of the preflight checks that stopped kubeadm. It gives no distinguishing exit codes: these
/// names are all there is to match.
pub(crate) fn preflight_errors(said: &str) -> BTreeSet<&str> {
    checks("[ERROR ", said)
}

/// Names of the checks whose lines begin like this.
fn checks<'said>(begin: &str, said: &'said str) -> BTreeSet<&'said str> {
    said.lines()
        .filter_map(|line| line.trim_start().strip_prefix(begin)?.split_once(']'))
        .map(|(check, _)| check)
        .collect()
}

#[cfg(test)]
mod tests {
    use podwire_vm::ExitStatus;

    use super::*;

    fn answer(status: u8, stdout: &str, stderr: &str) -> Answer {
        Answer {
            status: ExitStatus::Code(status.into()),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn a_refusal_is_one_for_its_own_reason() {
        let judged = |answer: &Answer| {
            refused(answer, "is forbidden", "no Secret to be made").map_err(|it| it.cause)
        };
        let forbidden = answer(
            1,
            "",
            "Error: secrets is forbidden: User \"a\" cannot create",
        );
        assert_eq!(judged(&forbidden), Ok(()));
        let gone = answer(1, "", "The connection to the server was refused");
        assert_eq!(judged(&gone), Err(Cause::WrongAnswer));
        // Whatever it says: it was done.
        let done = answer(0, "secret/is forbidden created", "");
        assert_eq!(judged(&done), Err(Cause::Answered));
        let failure = refused(&gone, "is forbidden", "no Secret to be made").unwrap_err();
        assert_eq!(
            failure.expected,
            "no Secret to be made, saying \"is forbidden\""
        );
        assert_eq!(failure.seen, gone.said());
    }

    const STOPPED: &str = "\
[preflight] Running pre-flight checks
\t[WARNING ContainerRuntimeVersion]: You must update your container runtime
[preflight] Some fatal errors occurred:
\t[ERROR FileAvailable--etc-kubernetes-kubelet.conf]: /etc/kubernetes/kubelet.conf already exists
\t[ERROR Port-10250]: Port 10250 is in use
error: error execution phase preflight: preflight checks failed";

    #[test]
    fn kubeadm_is_stopped_by_these_checks_and_no_others() {
        let both = ["FileAvailable--etc-kubernetes-kubelet.conf", "Port-10250"];
        let judged =
            |answer: &Answer, checks: &[&str]| stopped_by(answer, checks).map_err(|it| it.cause);
        let stopped = answer(1, "", STOPPED);
        assert_eq!(judged(&stopped, &both), Ok(()));
        assert_eq!(judged(&stopped, &both[..1]), Err(Cause::WrongAnswer));
        assert_eq!(judged(&stopped, &["Port-6443"]), Err(Cause::Absent));
        // Names in its warnings stop nothing.
        let warned = answer(0, &STOPPED.replace("ERROR", "WARNING"), "");
        assert_eq!(judged(&warned, &both), Err(Cause::Answered));
        let other = answer(1, "", "error: unknown flag: --tokn");
        assert_eq!(judged(&other, &both), Err(Cause::Absent));
    }

    #[test]
    fn checks_that_pass_warn_of_these_alone() {
        let judged = |answer: &Answer, wanted: &[&str]| {
            let wanted = wanted.iter().copied().collect();
            passed_warning_of(answer, &wanted).map_err(|it| it.cause)
        };
        let warned = answer(0, &STOPPED[..STOPPED.find("[preflight] Some").unwrap()], "");
        assert_eq!(judged(&warned, &["ContainerRuntimeVersion"]), Ok(()));
        assert_eq!(judged(&warned, &[]), Err(Cause::WrongAnswer));
        assert_eq!(
            judged(&warned, &["ContainerRuntimeVersion", "Swap"]),
            Err(Cause::WrongAnswer)
        );
        assert_eq!(
            judged(&answer(1, "", STOPPED), &["ContainerRuntimeVersion"]),
            Err(Cause::Absent)
        );
    }
}
