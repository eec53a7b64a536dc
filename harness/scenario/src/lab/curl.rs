//! `curl` on a node, and how its request ended.

use std::fmt;
use std::time::Duration;

use crate::check::failure::{Cause, Failure, ensure};
use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::command::Answer;
use crate::lab::node::Node;

/// What comes behind the body: the status, 0 where there was none (curl(1), `--write-out`).
const STATUS: &str = "-sS -m 20 -w '\\n%{http_code}'";

/// For curl to end by its own limit.
const LIMIT: Duration = Duration::from_secs(25);

/// How a request of `curl`'s ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curled {
    /// Its class: `Answered` with status 200.
    pub cause: Cause,
    /// The HTTP status, where there is one.
    pub status: Option<u16>,
    /// The body.
    pub body: String,
    /// curl's own words, where it failed.
    pub error: String,
}

impl Node<'_> {
    /// `curl` with these arguments, as they are typed into a shell; twenty seconds are its limit.
    ///
    /// # Errors
    /// When the node does not answer: how the request ended is in the answer.
    pub async fn curl(self, arguments: impl AsRef<str>) -> anyhow::Result<Curled> {
        let ran = self.run(line(arguments)).within(LIMIT).may_fail().await?;
        Ok(Curled::of(&ran))
    }
}

impl Lab {
    /// The same in a Pod's network, see [`Lab::run_in_network_of`]: `--cacert $root/...` is a file of the
    /// Pod's.
    ///
    /// # Errors
    /// As [`Node::curl`].
    pub async fn curl_in_network_of(
        &self,
        pod: &Party,
        arguments: impl AsRef<str>,
    ) -> anyhow::Result<Curled> {
        let asked = self.run_in_network_of(pod, line(arguments));
        Ok(Curled::of(&asked.within(LIMIT).may_fail().await?))
    }
}

fn line(arguments: impl AsRef<str>) -> String {
    format!("curl {STATUS} {}", arguments.as_ref())
}

impl Curled {
    fn of(answer: &Answer) -> Self {
        let (body, status) = answer.stdout.rsplit_once('\n').unwrap_or_default();
        let status = status.parse().ok().filter(|it| *it != 0);
        // curl(1), "Exit codes".
        let cause = match answer.code() {
            Some(0) if status == Some(200) => Cause::Answered,
            Some(0) if status.is_some() => Cause::HttpStatus,
            Some(6) => Cause::NameNotFound,
            Some(7) => Cause::Refused,
            Some(28) => Cause::TimedOut,
            Some(35 | 51 | 53 | 54 | 58 | 59 | 60 | 66 | 77 | 80 | 82 | 83 | 90 | 91 | 98) => {
                Cause::Tls
            }
            _ => Cause::Other,
        };
        Self {
            cause,
            status,
            body: body.to_owned(),
            error: answer.stderr.trim().to_owned(),
        }
    }

    /// That it ended like this; `expected` completes "expected ...".
    ///
    /// # Errors
    /// A [`Failure`] of the class that it ended with.
    pub fn ends(&self, cause: Cause, expected: impl Into<String>) -> Result<(), Failure> {
        match self.cause == cause {
            true => Ok(()),
            false => Err(Failure::new(self.cause, expected, self.to_string())),
        }
    }

    /// That it was answered with this status.
    ///
    /// # Errors
    /// A [`Failure`] of the class that it ended with.
    pub fn has_status(&self, status: u16, expected: impl Into<String>) -> Result<(), Failure> {
        match self.status == Some(status) {
            true => Ok(()),
            false => Err(Failure::new(self.cause, expected, self.to_string())),
        }
    }

    /// The same, and that the body is a Status object of the API with this code.
    ///
    /// # Errors
    /// As [`Curled::has_status`]; `WrongAnswer` where only the body is another.
    pub fn refuses_with(&self, status: u16, expected: impl Into<String>) -> Result<(), Failure> {
        self.has_status(status, expected)?;
        let object: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let says_so = object["kind"] == "Status" && object["code"] == status;
        ensure!(
            says_so,
            WrongAnswer,
            "a Status object with the code {status}",
            "{self}"
        );
        Ok(())
    }

    /// Status 403, for this user: the API server knows who asks, and that user may not.
    ///
    /// # Errors
    /// As [`Curled::refuses_with`]; `WrongAnswer` where it is forbidden to another.
    pub fn forbids(&self, user: &str) -> Result<(), Failure> {
        self.refuses_with(403, format!("status 403 for {user}"))?;
        let object: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let message = object["message"].as_str().unwrap_or_default();
        let named = message.contains(&format!("User \"{user}\" cannot get path"));
        ensure!(named, WrongAnswer, "it to forbid that to {user}", "{self}");
        Ok(())
    }
}

impl fmt::Display for Curled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(status) = self.status {
            write!(f, "status {status}: {}", self.body.trim())?;
        }
        f.write_str(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use podwire_vm::ExitStatus;

    use super::*;

    fn curled(code: u8, stdout: &str, stderr: &str) -> Curled {
        Curled::of(&Answer {
            status: ExitStatus::Code(code.into()),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        })
    }

    const DENIED: &str = r#"{ "kind": "Status", "code": 401 }"#;

    #[test]
    fn each_end_has_its_class() {
        let ends = |code, stdout| curled(code, stdout, "").cause;
        assert_eq!(ends(0, "ok\n200"), Cause::Answered);
        assert_eq!(ends(0, "no\n403"), Cause::HttpStatus);
        assert_eq!(ends(7, "\n000"), Cause::Refused);
        assert_eq!(ends(28, "\n000"), Cause::TimedOut);
        assert_eq!(ends(60, "\n000"), Cause::Tls);
        assert_eq!(ends(52, "\n000"), Cause::Other);
        // Of a curl that did not run nothing is known.
        assert_eq!(ends(127, ""), Cause::Other);
    }

    #[test]
    fn a_body_may_have_lines() {
        let two = curled(0, "a\nb\n\n200", "");
        assert_eq!((two.body.as_str(), two.status), ("a\nb\n", Some(200)));
    }

    #[test]
    fn what_failed_says_how_it_ended() {
        let refused = curled(7, "\n000", "curl: (7) Failed to connect\n");
        assert!(refused.ends(Cause::Refused, "").is_ok());
        let failure = refused.ends(Cause::Tls, "a proof").unwrap_err();
        assert_eq!(failure.cause, Cause::Refused);
        assert_eq!(failure.seen, "curl: (7) Failed to connect");
    }

    #[test]
    fn a_refusal_is_a_status_and_an_object_that_says_so() {
        let denied = curled(0, &format!("{DENIED}\n401"), "");
        assert!(denied.refuses_with(401, "").is_ok());
        let cause = |it: Curled| it.refuses_with(401, "").unwrap_err().cause;
        assert_eq!(cause(curled(0, "ok\n200", "")), Cause::Answered);
        assert_eq!(
            cause(curled(0, &format!("{DENIED}\n403"), "")),
            Cause::HttpStatus
        );
        assert_eq!(cause(curled(0, "no\n401", "")), Cause::WrongAnswer);
        assert_eq!(cause(curled(7, "\n000", "")), Cause::Refused);
    }
}
