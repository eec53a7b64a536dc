//! The cases of a program of the user's: what its JUnit file tells.

use std::fs::File;
use std::io::{self, Read as _};
use std::mem;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use podwire_process::plain;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed, or could not be carried out.
    Failed,
    /// It was not run.
    Skipped,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Its name, behind that of its class where it has one: `dns/resolves`.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it did not pass; empty where nothing is said.
    pub reason: String,
    /// How long it took, as the file says.
    pub seconds: f64,
}

impl Case {
    pub(crate) fn has_failed(&self) -> bool {
        self.verdict == Verdict::Failed
    }

    /// Takes one more reason why it did not pass; one that failed as well as skipped has failed.
    fn ended(&mut self, verdict: Verdict, why: &str) {
        if !self.has_failed() {
            self.verdict = verdict;
        }
        if !self.reason.is_empty() && !why.is_empty() {
            self.reason.push('\n');
        }
        self.reason.push_str(why);
    }
}

/// How long a JUnit file may be, in octets.
const LONGEST: u64 = 16 << 20;

/// The cases of a JUnit file of 16 MiB at most, in its order; none where there is no file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Case>> {
    let text = text(path).with_context(|| format!("cannot read {}", path.display()))?;
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    told(&text).with_context(|| format!("{} is no JUnit file", path.display()))
}

/// What a file says that somebody else has put there, or has not.
fn text(path: &Path) -> anyhow::Result<Option<String>> {
    // A pipe without a writer would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    ensure!(file.metadata()?.is_file(), "it is no regular file");
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text)?;
    ensure!(
        read as u64 <= LONGEST,
        "it has more than {} MiB",
        LONGEST >> 20
    );
    Ok(Some(text))
}

/// What is open at a place of the text.
enum Element {
    Case(Case),
    /// Why the case around it did not pass: its message, and then its text.
    Why(Verdict, String),
    Other,
}

/// All cases, wherever they are: some reporters put suites into suites (PHPUnit's), others cases beside them
/// (Node's), or have one suite alone.
fn told(text: &str) -> anyhow::Result<Vec<Case>> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let (mut cases, mut open) = (Vec::new(), Vec::new());
    let mut has_begun = false;
    loop {
        match reader.read_event()? {
            Event::Start(element) => {
                let name = element.local_name();
                if !mem::replace(&mut has_begun, true) {
                    begins(name.as_ref())?;
                }
                open.push(match (name.as_ref(), open.last()) {
                    (b"testcase", _) => Element::Case(case(&element)?),
                    (b"failure" | b"error", Some(Element::Case(_))) => {
                        Element::Why(Verdict::Failed, message(&element)?)
                    }
                    (b"skipped", Some(Element::Case(_))) => {
                        Element::Why(Verdict::Skipped, message(&element)?)
                    }
                    _ => Element::Other,
                });
            }
            Event::End(_) => match (open.pop(), open.last_mut()) {
                (Some(Element::Case(case)), _) => cases.push(plainly(case)),
                (Some(Element::Why(verdict, why)), Some(Element::Case(case))) => {
                    case.ended(verdict, why.trim());
                }
                _ => {}
            },
            Event::Text(said) => say(&mut open, &said.xml10_content()?),
            Event::CData(said) => say(&mut open, &said.xml10_content()?),
            Event::GeneralRef(reference) => {
                let name = reference.decode()?;
                match (
                    reference.resolve_char_ref()?,
                    resolve_predefined_entity(&name),
                ) {
                    (Some(one), _) => say(&mut open, one.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => say(&mut open, text),
                    (None, None) => bail!("nothing says what &{name}; is"),
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    ensure!(has_begun, "there is no <testsuites> and no <testsuite>");
    ensure!(open.is_empty(), "its end is missing");
    Ok(cases)
}

fn begins(name: &[u8]) -> anyhow::Result<()> {
    ensure!(
        matches!(name, b"testsuites" | b"testsuite"),
        "it begins with <{}>, not with <testsuites> or <testsuite>",
        String::from_utf8_lossy(name)
    );
    Ok(())
}

/// Adds to what says why a case did not pass; what else stands in a file says nothing about it.
fn say(open: &mut [Element], said: &str) {
    if let Some(Element::Why(_, why)) = open.last_mut() {
        why.push_str(said);
    }
}

/// One of which nothing is known yet but that it was run.
fn case(element: &BytesStart<'_>) -> anyhow::Result<Case> {
    let name = attribute(element, "name")?.context("a <testcase> has no name")?;
    let seconds = attribute(element, "time")?.and_then(|time| time.parse().ok());
    Ok(Case {
        name: match attribute(element, "classname")? {
            Some(class) => format!("{class}/{name}"),
            None => name,
        },
        verdict: Verdict::Passed,
        reason: String::new(),
        seconds: seconds
            .filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
            .unwrap_or_default(),
    })
}

/// A message, which has a line of its own before the text.
fn message(element: &BytesStart<'_>) -> anyhow::Result<String> {
    let message = attribute(element, "message")?.filter(|message| !message.is_empty());
    Ok(message.map_or(String::new(), |message| message + "\n"))
}

fn attribute(element: &BytesStart<'_>, name: &str) -> anyhow::Result<Option<String>> {
    let Some(found) = element.try_get_attribute(name)? else {
        return Ok(None);
    };
    let value = found.normalized_value(XmlVersion::Implicit1_0)?;
    Ok(Some(value.into_owned()))
}

/// As it may be shown.
fn plainly(case: Case) -> Case {
    Case {
        name: plain::line(&case.name),
        reason: plain::text(&case.reason),
        ..case
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    fn lines(cases: &[Case]) -> String {
        let lines = cases.iter().map(|case| {
            let Case {
                name,
                verdict,
                reason,
                seconds,
            } = case;
            format!("{name} {verdict:?} {reason:?} {seconds}")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_junit_file_is_read_as_other_people_s_programs_write_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cases.xml");
        assert_eq!(read(&path).unwrap(), []);
        // As pytest does it.
        let text = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="0" failures="1" skipped="1" tests="3" time="0.6" timestamp="2026-11-27T08:00:00.000000+00:00" hostname="here"><testcase classname="test_dns" name="test_resolves" time="0.500" /><testcase classname="test_dns" name="test_fails" time="0.100"><failure message="assert 1 == 2">def test_fails():
&gt;       assert 1 == 2</failure></testcase><testcase classname="test_dns" name="test_later" time="0.000"><skipped type="pytest.skip" message="not yet">test_dns.py:9: not yet</skipped></testcase></testsuite></testsuites>"#;
        fs::write(&path, text).unwrap();
        let cases = read(&path).unwrap();
        insta::assert_snapshot!(lines(&cases), @r#"
        test_dns/test_resolves Passed "" 0.5
        test_dns/test_fails Failed "assert 1 == 2\ndef test_fails():\n>       assert 1 == 2" 0.1
        test_dns/test_later Skipped "not yet\ntest_dns.py:9: not yet" 0
        "#);
        fs::write(&path, "not one").unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn what_is_no_file_or_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cases.xml");
        let refused = || {
            let error = read(&path).unwrap_err();
            format!("{error:#}").replace(&dir.path().display().to_string(), "")
        };
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        insta::assert_snapshot!(refused(), @"cannot read /cases.xml: it is no regular file");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        insta::assert_snapshot!(refused(), @"cannot read /cases.xml: it is no regular file");
        fs::remove_dir(&path).unwrap();

        let spaces =
            |length: usize| format!("<testsuites>{}</testsuites>", " ".repeat(length - 25));
        let longest = usize::try_from(LONGEST).unwrap();
        fs::write(&path, spaces(longest)).unwrap();
        assert_eq!(read(&path).unwrap(), []);
        fs::write(&path, spaces(longest + 1)).unwrap();
        insta::assert_snapshot!(refused(), @"cannot read /cases.xml: it has more than 16 MiB");
    }

    #[test]
    fn no_case_of_a_junit_file_is_left_out_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cases.xml");
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            match read(&path) {
                Ok(cases) => lines(&cases),
                Err(error) => format!("{error:#}").replace(&dir.path().display().to_string(), ""),
            }
        };
        // As PHPUnit does it: suites in suites.
        insta::assert_snapshot!(told(r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="CLI" tests="2" failures="1">
    <testsuite name="DnsTest" file="/t/DnsTest.php">
      <testcase name="testResolves" class="DnsTest" classname="DnsTest" time="0.001"/>
      <testsuite name="DnsTest::testAll">
        <testcase name="testAll with data set #0" classname="DnsTest" time="0.002">
          <failure type="PHPUnit\Framework\ExpectationFailedException">no answer&#10;for <![CDATA[a & b]]>&lt;1&gt;</failure>
        </testcase>
      </testsuite>
    </testsuite>
  </testsuite>
</testsuites>"#), @r#"
        DnsTest/testResolves Passed "" 0.001
        DnsTest/testAll with data set #0 Failed "no answer\nfor a & b<1>" 0.002
        "#);
        // As Node's reporter does it: cases beside suites.
        insta::assert_snapshot!(told(r#"<?xml version="1.0" encoding="utf-8"?>
<testsuites>
	<testcase name="resolves" time="0.5" classname="test"/>
	<testcase name="fails" time="1" classname="test" failure="is not 2">
		<failure type="testCodeFailure" message="is not 2"></failure>
	</testcase>
	<testcase name="later" time="0" classname="test">
		<skipped type="skipped" message="true"/>
	</testcase>
	<testsuite name="all" time="0.1" tests="1"><testcase name="inner" time="a while"/></testsuite>
	<!-- tests 4 -->
</testsuites>"#), @r#"
        test/resolves Passed "" 0.5
        test/fails Failed "is not 2" 1
        test/later Skipped "true" 0
        inner Passed "" 0
        "#);
        // With one suite alone, and what says why more than once.
        insta::assert_snapshot!(told(r#"<testsuite name="pkg"><properties><property name="a" value="b"/></properties><testcase name="a"><skipped/><error message="1">x<system-out>unseen</system-out></error><failure message="2"/><system-out>said</system-out></testcase></testsuite>"#), @r#"a Failed "1\nx\n2" 0"#);
        insta::assert_snapshot!(told("<testsuites/>"), @"");
        for (broken, said) in [
            ("", "there is no <testsuites>"),
            ("not one", "there is no <testsuites>"),
            ("<html></html>", "it begins with <html>"),
            ("<testsuites", "syntax error"),
            ("<testsuites><testsuite name='a'>", "its end is missing"),
            ("<testsuites></testsuite>", "expected"),
            ("<testsuite><testcase time='1'/></testsuite>", "has no name"),
        ] {
            let error = told(broken);
            assert!(
                error.starts_with("/cases.xml is no JUnit file: "),
                "{error}"
            );
            assert!(error.contains(said), "{error}");
        }
    }
}
