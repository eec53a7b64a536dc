//! The cases of a program of the user's: what its JUnit file tells.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use podwire_process::plain;
use quick_junit::{Report, TestCase, TestCaseStatus};
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
}

/// The cases of a JUnit file, in its order; nothing where there is no file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Vec<Case>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let report = Report::deserialize_from_str(&text)
        .with_context(|| format!("{} is no JUnit file", path.display()))?;
    let cases = report
        .test_suites
        .iter()
        .flat_map(|suite| &suite.test_cases);
    Ok(Some(cases.map(case).collect()))
}

fn case(case: &TestCase) -> Case {
    let (verdict, message, description) = match &case.status {
        TestCaseStatus::Success { .. } => (Verdict::Passed, None, None),
        TestCaseStatus::NonSuccess {
            message,
            description,
            ..
        } => (Verdict::Failed, message.as_ref(), description.as_ref()),
        TestCaseStatus::Skipped {
            message,
            description,
            ..
        } => (Verdict::Skipped, message.as_ref(), description.as_ref()),
    };
    let said = [message, description].into_iter().flatten();
    let said: Vec<&str> = said.map(|text| text.as_str()).collect();
    let name = match &case.classname {
        Some(class) => format!("{}/{}", class.as_str(), case.name.as_str()),
        None => case.name.as_str().to_owned(),
    };
    Case {
        name: plain::line(&name),
        verdict,
        reason: plain::text(&said.join("\n")),
        seconds: case.time.map_or(0.0, |time| time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_junit_file_is_read_as_other_people_s_programs_write_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cases.xml");
        assert_eq!(read(&path).unwrap(), None);
        // As pytest does it.
        let text = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="0" failures="1" skipped="1" tests="3" time="0.6" timestamp="2026-11-27T08:00:00.000000+00:00" hostname="here"><testcase classname="test_dns" name="test_resolves" time="0.500" /><testcase classname="test_dns" name="test_fails" time="0.100"><failure message="assert 1 == 2">def test_fails():
&gt;       assert 1 == 2</failure></testcase><testcase classname="test_dns" name="test_later" time="0.000"><skipped type="pytest.skip" message="not yet">test_dns.py:9: not yet</skipped></testcase></testsuite></testsuites>"#;
        fs::write(&path, text).unwrap();
        let cases = read(&path).unwrap().unwrap();
        let told: Vec<String> = cases
            .iter()
            .map(|case| {
                format!(
                    "{} {:?} {:?} {}",
                    case.name, case.verdict, case.reason, case.seconds
                )
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        test_dns/test_resolves Passed "" 0.5
        test_dns/test_fails Failed "assert 1 == 2\ndef test_fails():\n>       assert 1 == 2" 0.1
        test_dns/test_later Skipped "not yet\ntest_dns.py:9: not yet" 0
        "#);
        fs::write(&path, "not one").unwrap();
        assert!(read(&path).is_err());
    }
}
