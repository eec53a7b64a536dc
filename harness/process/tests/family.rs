//! What becomes of all that a program of the user's starts. In a process of its own: other tests' children would be
//! taken for the program's.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::time::Duration;

use podwire_process::{ChildCommand, Family, Spawner, StartError, Stream, descendants, when_ended};
use rustix::process::{Pid, test_kill_process};

const LONG: Duration = Duration::from_secs(60);

/// Runs a script to its end; gives what it said, and its family.
fn ran(spawner: &Spawner, script: &str) -> (String, Family) {
    let family = Family::to_come().unwrap();
    let mut command = ChildCommand::new("sh").args(["-c", script]);
    command.stdout = Stream::Piped;
    let mut child = family.start(spawner, command).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    when_ended(child, move |ended| tell.send(ended).unwrap()).unwrap();
    assert!(told.recv_timeout(LONG).unwrap().unwrap().success());
    // It may be that nobody closes it.
    let mut said = [0; 100];
    let length = stdout.read(&mut said).unwrap();
    (
        String::from_utf8_lossy(&said[..length]).into_owned(),
        family,
    )
}

/// The processes whose numbers a script has said.
fn pids(said: &str) -> Vec<Pid> {
    let numbers = said.split_whitespace().map(|it| it.parse().unwrap());
    numbers.filter_map(Pid::from_raw).collect()
}

#[test]
fn all_that_a_program_starts_ends_with_it_and_nothing_else() {
    let spawner = Spawner::start().unwrap();
    let mut other = spawner
        .spawn(ChildCommand::new("sleep").args(["1000"]))
        .unwrap();

    // In a session of its own, and an orphan by now.
    let (said, family) = ran(&spawner, "setsid sleep 1000 & echo $!");
    let left = pids(&said);
    assert_eq!(left.len(), 1, "{said}");
    assert!(descendants().contains(&left[0]));
    assert_eq!(family.end(LONG), []);
    assert!(!descendants().contains(&left[0]));

    // It is told before it is killed.
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let script = format!(
        r#"sh -c 'trap "echo told >{}; exit" TERM; echo $$; while :; do sleep 0.02; done' &"#,
        told.display()
    );
    let (said, family) = ran(&spawner, &script);
    assert_eq!(pids(&said).len(), 1, "{said}");
    assert_eq!(family.end(LONG), []);
    assert_eq!(fs::read_to_string(&told).unwrap(), "told\n");

    // What takes no notice is killed.
    let script = r#"sh -c 'trap "" TERM; echo $$; while :; do sleep 0.02; done' &"#;
    let (said, family) = ran(&spawner, script);
    let deaf = pids(&said);
    assert_eq!(deaf.len(), 1, "{said}");
    assert_eq!(family.end(Duration::from_millis(200)), []);
    assert!(!descendants().contains(&deaf[0]));

    // So it does where nobody asks for it any more.
    let (said, family) = ran(&spawner, "sleep 1000 & echo $!");
    drop(family);
    assert!(!descendants().contains(&pids(&said)[0]));

    // Nothing was started, and it says what may be wrong with a program of one's own.
    let script = dir.path().join("script");
    fs::write(&script, "#!/of/nobody\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let family = Family::to_come().unwrap();
    let error = family
        .start(&spawner, ChildCommand::new(script))
        .unwrap_err();
    assert!(matches!(error, StartError::Program { .. }), "{error}");
    assert!(
        error.to_string().contains("names its interpreter"),
        "{error}"
    );

    test_kill_process(Pid::from_child(&other)).unwrap();
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}
