//! Programs on this host that use a cluster: one that is up, or one of their own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use podwire_images::oci::{OciFile, OciImage, Program};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Running, bundle, done, latest, output, results, workspace, xtask};

const WITH: &str = "with --yes --nodes 2 --bootstrap by-hand";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The line of a command that has this part.
fn heard(running: &mut Running, part: &str) -> String {
    running.wait_for(part);
    running.heard.last().unwrap().clone()
}

/// What a server says to a line, until it ends.
fn asked(address: SocketAddr, line: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(line.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(text(&answer))
}

/// A node's port is on this host while the command runs, and then no more.
pub(crate) fn is_forwarded() {
    let mut forward = Running::start("forward node1:6443");
    let address: SocketAddr = heard(&mut forward, "127.0.0.1:").parse().unwrap();
    for _ in 0..2 {
        let answer = asked(address, "GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(
            answer.contains("HTTP request to an HTTPS server"),
            "{answer}"
        );
    }
    let (code, heard_all) = forward.interrupt();
    assert_eq!(code, Some(0), "{heard_all:#?}");
    assert!(TcpStream::connect(address).is_err());

    // Where it is asked to be, and where nobody listens behind it.
    let port = address.port();
    let mut forward = Running::start(&format!("forward node2:81 --local {port}"));
    forward.wait_for(&format!("127.0.0.1:{port}"));
    assert!(asked(address, "GET / HTTP/1.0\r\n\r\n").is_err());
    forward.wait_for("connection to 172.30.0.12:81 refused");
    let taken = done(&format!("forward node2:22 --local {port}"));
    assert_eq!(taken.status.code(), Some(3));
    assert_eq!(forward.interrupt().0, Some(0));
    assert_eq!(done("forward node9:22").status.code(), Some(2));
}

/// The cluster's own kubectl, on this host.
fn kubectl(kubeconfig: &Path, words: &str) -> Output {
    Command::new(bundle().join("bin/kubectl"))
        .args(words.split(' '))
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap()
}

/// A client on this host is led to the API, and knows whom it talks to.
pub(crate) fn has_a_kubeconfig() {
    let mut running = Running::start("kubeconfig");
    let line = heard(&mut running, "export ");
    let path = PathBuf::from(line.split_once("KUBECONFIG=").unwrap().1);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let nodes = kubectl(&path, "get nodes -o name");
    assert_eq!(
        text(&nodes.stdout),
        "node/node1\nnode/node2\n",
        "{}",
        text(&nodes.stderr)
    );

    let of_another = path.with_extension("another");
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written.contains(r#""tls-server-name": "node1""#),
        "{written}"
    );
    let name = written.replace(r#""node1""#, r#""node9""#);
    fs::write(&of_another, name).unwrap();
    let refused = kubectl(&of_another, "get nodes");
    let told = text(&refused.stderr);
    assert!(!refused.status.success(), "{told}");
    assert!(
        told.contains("x509: certificate is valid for") && told.contains("not node9"),
        "{told}"
    );
    fs::remove_file(&of_another).unwrap();

    let (code, heard) = running.interrupt();
    assert_eq!(code, Some(0), "{heard:#?}");
    assert!(!path.exists());
    let server = written.split_once("https://").unwrap().1;
    let address: SocketAddr = server.split_once('"').unwrap().0.parse().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

/// Runs' folders; a clone's goes with it.
fn runs() -> usize {
    fs::read_dir(output().join("runs")).map_or(0, Iterator::count)
}

#[test]
#[ignore = "runs a cluster of machines"]
fn a_program_runs_beside_a_cluster_of_its_own_and_has_the_last_word() {
    let before = runs();
    let script = r#"
        read typed && echo "$typed"
        kubectl get nodes -o name
        echo "$PODWIRE_NODES, $PODWIRE_NODE2, $PODWIRE_STAGE"
        "$XTASK" ssh node2 hostname
        exit 7
    "#;
    let mut program = xtask(&format!("{WITH} -- sh -c"))
        .arg(script)
        .env("XTASK", env!("CARGO_BIN_EXE_xtask"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let ended = program.wait_with_output().unwrap();
    let errors = text(&ended.stderr);
    let expected = "typed\nnode/node1\nnode/node2\nnode1 node2, 172.30.0.12, workload\nnode2\n";
    assert_eq!(text(&ended.stdout), expected, "{errors}");
    assert_eq!(ended.status.code(), Some(7), "{errors}");
    assert_eq!(runs(), before);

    let none = done(&format!("{WITH} -- kubctl get nodes"));
    assert_eq!(none.status.code(), Some(2));
}

/// Whether a process is there and runs.
fn runs_still(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

#[test]
#[ignore = "runs a cluster of machines"]
fn what_a_program_leaves_ends_with_its_cluster_and_knows_no_other() {
    let before = runs();
    // One that has gone from its group, and its session, and says why it ends.
    let script = r#"
        setsid sh -c 'trap "echo told >&2; exit" TERM; while :; do sleep 0.1; done' & echo $!
        env | grep -E '^(CARGO_PKG_NAME|RUSTUP_TOOLCHAIN_SOURCE|KUBERNETES_MASTER|HELM_KUBETOKEN)='
        sleep 1
    "#;
    let ended = xtask(&format!("{WITH} -- sh -c"))
        .arg(script)
        .envs([
            ("CARGO_PKG_NAME", "xtask"),
            ("RUSTUP_TOOLCHAIN_SOURCE", "none"),
            ("KUBERNETES_MASTER", "https://192.0.2.1"),
            ("HELM_KUBETOKEN", "x"),
        ])
        .output()
        .unwrap();
    let (said, errors) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0), "{errors}");
    let [left] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("{said}{errors}");
    };
    assert!(!runs_still(left), "{errors}");
    assert!(errors.contains("\ntold\n"), "{errors}");
    assert!(errors.contains(" and ready for a program "), "{errors}");
    assert_eq!(runs(), before);

    // It is told to end while a program of its own runs.
    let mut with = xtask(&format!("{WITH} -- sh -c"))
        .arg("sleep 1000 & echo $!; wait")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(with.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert!(runs_still(line.trim()), "{line}");
    let pid = Pid::from_child(&with);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(with.wait().unwrap().code(), Some(143));
    assert!(!runs_still(line.trim()));
}

#[test]
#[ignore = "runs a cluster of machines"]
fn a_program_beside_nodes_without_kubernetes_is_led_to_no_other_cluster() {
    let ended = xtask(&format!("{WITH} --stage identified -- sh -c"))
        .arg("echo $KUBECONFIG; kubectl get nodes")
        .output()
        .unwrap();
    let errors = text(&ended.stderr);
    assert_eq!(text(&ended.stdout), "/dev/null\n", "{errors}");
    assert_eq!(ended.status.code(), Some(1), "{errors}");
    assert!(errors.contains("no API server yet"), "{errors}");
}

/// Writes a program.
fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
#[ignore = "runs clusters of machines"]
fn a_folder_of_programs_is_a_run_of_scenarios() {
    let tests = tempfile::tempdir().unwrap();
    program(
        tests.path(),
        "sees-nodes.sh",
        r#"echo "$TMPDIR" >temporary; touch "$TMPDIR/left"
        test "$(kubectl get nodes -o name | wc -l)" = 2 && cat here.xml >"$PODWIRE_JUNIT""#,
    );
    let suite = r#"<testsuites><testsuite name="own" tests="2" failures="0">
        <testcase classname="own" name="a" time="0.5"/>
        <testcase classname="own" name="b" time="0.5"><skipped message="later"/></testcase>
        </testsuite></testsuites>"#;
    fs::write(tests.path().join("here.xml"), suite).unwrap();
    program(
        tests.path(),
        "breaks.sh",
        r"kubectl delete node node2; env | grep PODWIRE_; setsid sleep 1000 & echo $! >left
        printf '\033[2Jlast words\n'; exit 3",
    );
    let words = "test --yes --nodes 2 --bootstrap by-hand --tests";
    let ran = xtask(words).arg(tests.path()).output().unwrap();
    let told = text(&ran.stdout) + &text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{told}");
    assert!(told.contains("not executable: here.xml"), "{told}");

    let results = results(&latest());
    let scenarios = results["scenarios"].as_array().unwrap();
    let outcomes: Vec<String> = scenarios
        .iter()
        .map(|it| format!("{} {}", it["name"], it["outcome"]))
        .collect();
    let expected = [r#""breaks" "failed""#, r#""sees_nodes" "passed""#];
    assert_eq!(outcomes, expected, "{results:#}");
    let reason = scenarios[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("it ended with 3") && reason.contains("last words"),
        "{reason}"
    );
    assert_eq!(
        scenarios[1]["cases"].as_array().unwrap().len(),
        2,
        "{results:#}"
    );

    let left = fs::read_to_string(tests.path().join("left")).unwrap();
    assert!(!runs_still(left.trim()));
    let temporary = fs::read_to_string(tests.path().join("temporary")).unwrap();
    assert!(temporary.contains("podwire-"), "{temporary}");
    assert!(!Path::new(temporary.trim()).exists(), "{temporary}");

    let attempt = latest().join("by-hand-nftables-routes/scenarios/breaks/attempt-1");
    let page = fs::read_to_string(attempt.join("first-page.md")).unwrap();
    assert!(page.contains("\\u001b[2Jlast words"), "{page}");
    assert!(attempt.join("evidence/node2/journal.txt").exists());
    let said = fs::read_to_string(attempt.join("output.txt")).unwrap();
    assert!(said.contains("node \"node2\" deleted"), "{said}");
    assert!(
        said.contains("PODWIRE_CELL=by-hand/nftables/routes\n"),
        "{said}"
    );
    // What a podwire that the program starts would take for its own.
    for hidden in ["PODWIRE_CELL_FOLDER", "PODWIRE_ANCESTOR", "PODWIRE_HEALTHY"] {
        assert!(!said.contains(hidden), "{said}");
    }
    let junit = fs::read_to_string(latest().join("junit.xml")).unwrap();
    assert!(junit.contains(r#"name="own/b""#), "{junit}");
}

/// A program that runs alone in its image: the cluster's own kubectl, which needs nothing.
#[test]
#[ignore = "runs clusters of machines"]
fn pods_run_images_of_one_s_own_archives() {
    let dir = tempfile::tempdir().unwrap();
    let kubectl = dir.path().join("kubectl");
    let took = xtask(&format!("{WITH} -- sh -c"))
        .arg(format!(
            "cp \"$(command -v kubectl)\" {}",
            kubectl.display()
        ))
        .output()
        .unwrap();
    assert_eq!(took.status.code(), Some(0), "{}", text(&took.stderr));
    let image = OciImage {
        reference: "own.invalid/tool:1".to_owned(),
        files: vec![OciFile {
            path: "/kubectl".into(),
            program: Program::Apart("kubectl".to_owned()),
            capability: None,
        }],
        debian: false,
        entrypoint: vec!["/kubectl"],
        user: None,
    };
    let archive = dir.path().join("tool.tar");
    let bytes = image.archive(&[], |_| fs::read(&kubectl)).unwrap();
    fs::write(&archive, bytes).unwrap();
    let script = "kubectl run own --image own.invalid/tool:1 --restart Never -- version --client && \
                  kubectl wait --for jsonpath={.status.phase}=Succeeded pod/own --timeout 5m";
    let ran = xtask(&format!(
        "{WITH} --pod-images {} -- sh -c",
        archive.display()
    ))
    .arg(script)
    .output()
    .unwrap();
    let told = text(&ran.stdout) + &text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    assert!(told.contains("pod/own condition met"), "{told}");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn a_cluster_by_hand_has_names_where_they_are_asked_for() {
    let script = "kubectl run asker --image podwire.invalid/probe:1 --image-pull-policy Never --restart Never \
                    --command -- /probe resolve '{\"name\":\"blue.default.svc.cluster.local\",\"limit_ms\":60000}' && \
                  kubectl wait --for jsonpath={.status.phase}=Succeeded pod/asker --timeout 5m && \
                  kubectl logs asker && kubectl get service blue -o jsonpath='led to {.spec.clusterIP}'";
    let ran = xtask(&format!("{WITH} --cluster-dns -- sh -c"))
        .arg(script)
        .output()
        .unwrap();
    let told = text(&ran.stdout) + &text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    let answered = text(&ran.stdout);
    let (answer, service) = answered.split_once("led to ").unwrap();
    assert!(answer.contains("\"answered\""), "{told}");
    assert!(
        answer.contains(&format!("\"data\":\"{service}\"")),
        "{told}"
    );
}

/// Helm, which nobody here wrote, of its Go module: built once.
fn helm() -> PathBuf {
    let folder = workspace().join("target/tmp/helm");
    let built = Command::new("go")
        .args(["install", "helm.sh/helm/v4/cmd/helm@v4.3.2"])
        .env("GOBIN", &folder)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    folder.join("helm")
}

/// A Service, the Pod behind it, and a test that ends well only if somebody answers at a name.
const CHART: &[(&str, &str)] = &[
    ("Chart.yaml", "apiVersion: v2\nname: web\nversion: 0.1.0\n"),
    ("values.yaml", "asked: web\nreplicas: 2\n"),
    (
        "templates/web.yaml",
        r"
apiVersion: apps/v1
kind: Deployment
metadata: { name: {{ .Release.Name }} }
spec:
  replicas: {{ .Values.replicas }}
  selector: { matchLabels: { app: {{ .Release.Name }} } }
  template:
    metadata: { labels: { app: {{ .Release.Name }} } }
    spec:
      containers:
        - { name: probe, image: 'podwire.invalid/probe:1', imagePullPolicy: Never, command: [/probe, serve] }
---
apiVersion: v1
kind: Service
metadata: { name: {{ .Release.Name }} }
spec: { selector: { app: {{ .Release.Name }} }, ports: [{ port: 80 }] }
",
    ),
    (
        "templates/tests/asked.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations: { helm.sh/hook: test, helm.sh/hook-delete-policy: before-hook-creation }
spec:
  restartPolicy: Never
  containers:
    - name: probe
      image: podwire.invalid/probe:1
      imagePullPolicy: Never
      command: [/probe, fetch, --via, 'http://{{ .Values.asked }}.default.svc.cluster.local', '{"targets":["127.0.0.1"]}']
"#,
    ),
];

#[test]
#[ignore = "builds Helm and runs a cluster of machines"]
fn helm_installs_a_chart_and_its_tests_ask_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in CHART {
        let path = dir.path().join("chart").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let script = r#"
        "$HELM" install web ./chart --wait --timeout 10m && "$HELM" test web --timeout 10m || exit 1
        kubectl get deployment web -o jsonpath='{.status.readyReplicas} are ready'
        "$HELM" upgrade web ./chart --set asked=nobody --timeout 10m && "$HELM" test web --timeout 10m
        echo "and of nobody $?"
    "#;
    let ran = xtask(&format!("{WITH} --cluster-dns -- sh -c"))
        .arg(format!("cd '{}'; {script}", dir.path().display()))
        .env("HELM", helm())
        .env("HELM_CACHE_HOME", dir.path().join("cache"))
        .env("HELM_CONFIG_HOME", dir.path().join("config"))
        .env("HELM_DATA_HOME", dir.path().join("data"))
        .output()
        .unwrap();
    let told = text(&ran.stdout) + &text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    let said = text(&ran.stdout);
    assert!(said.contains("2 are ready"), "{told}");
    assert!(said.contains("Phase:          Succeeded"), "{told}");
    assert!(said.contains("and of nobody 1"), "{told}");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn a_network_conformance_test_of_kubernetes_own_is_a_scenario() {
    // By names, in a cluster by hand, which has them for such tests.
    let name = "dns_should_provide_dns_for_services";
    let words = "test --yes --nodes 2 --bootstrap by-hand --tests conformance --filter";
    let ran = xtask(words).arg(name).output().unwrap();
    let told = text(&ran.stdout) + &text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    let results = results(&latest());
    let scenarios = results["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 1, "{results:#}");
    assert_eq!(scenarios[0]["name"], name, "{results:#}");
    assert_eq!(scenarios[0]["outcome"], "passed", "{results:#}");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn a_signal_is_the_program_s_and_ends_the_clone_with_it() {
    let before = runs();
    let mut program = xtask(&format!("{WITH} -- sh -c"))
        .arg("echo started; exec sleep 1000")
        // As under a CI service: no terminal tells the program.
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "started");
    let pid = rustix::process::Pid::from_child(&program);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // By that signal, and not because `with` was ended.
    assert_eq!(program.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(runs(), before);
}

#[test]
#[ignore = "runs a cluster of machines"]
fn ctrl_c_at_a_terminal_reaches_the_program_once_and_it_may_go_on() {
    // The command line is shown before, and is not to be taken for what it says.
    let script = "trap 'echo caught' INT; echo rea''dy; read line; echo \"has $line\"; \
                  read line || read line; echo \"got $line\"; exit 5";
    let command = format!(
        "exec {} {WITH} -- sh -c '{}'",
        env!("CARGO_BIN_EXE_xtask"),
        script.replace('\'', r"'\''")
    );
    // script(1) is the terminal; what it is told was typed.
    let mut terminal = Command::new("script")
        .args([
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &command,
            "/dev/null",
        ])
        .current_dir(workspace())
        .env_remove("CI")
        .env("PODWIRE_OUTPUT", output())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typed = terminal.stdin.take().unwrap();
    let mut shown = BufReader::new(terminal.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut until = |part: &str| {
        let mut all = Vec::new();
        let found = shown.by_ref().find(|line| {
            all.push(line.clone());
            line.contains(part)
        });
        assert!(found.is_some(), "never shown: {part}\n{all:#?}");
        all
    };
    until("ready");
    typed.write_all(b"one\n").unwrap();
    // Ctrl-C throws away what was typed and not read.
    until("has one");
    typed.write_all(b"\x03").unwrap();
    until("caught");
    typed.write_all(b"two\n").unwrap();
    let after = until("got two");
    assert!(
        !after.iter().any(|line| line.contains("caught")),
        "{after:#?}"
    );
    assert_eq!(terminal.wait().unwrap().code(), Some(5));
}
