//! A worker joins: the hash of the authority, the phases, and what they leave on the worker.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::NodeCondition;
use podwire_cluster::kubeadm::JoinCommand;
use podwire_cluster::{StageName, addresses, cni};
use podwire_scenario::{
    Cause, Cells, Evidence, Failure, Lab, Probe, Profile, Sabotage, Scenario, eventually,
    eventually_unless,
};

use crate::catalogue::{E13, E14, E19, E20, E43};
use crate::prospects;
use crate::steps::{COMMAND, node_ready, nodes, on};

use super::steps::{READY_AFTER_JOIN, join, join_command};

/// E13, E14: the lab's own story, up to a Ready Node.
///
/// The documents pipe the key through `openssl rsa`; these authorities have keys on elliptic
/// curves, hence `openssl pkey`. Their Pod network was a DaemonSet; here the CNI file is written
/// by hand after the join, so that the Node is seen to wait for it.
pub(crate) const JOIN: Scenario = Scenario {
    name: "kubeadm_join",
    about: "A worker joins with a token and the hash of the authority's key: the phases are \
            reported, the files written, the Node appears, and is Ready once it has a CNI file",
    covers: &[E13, E14],
    stage: StageName::Init,
    cells: Cells::Kubeadm,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(180),
    prepare: None,
    run: |lab| Box::pin(joins(lab)),
    sabotages: &[
        Sabotage {
            name: "another-authority",
            about: "pki holds the certificate of another authority than the join command's",
            expects: Cause::WrongAnswer,
            run: |lab| {
                Box::pin(async {
                    lab.step("replace the authority's certificate");
                    on(
                        lab,
                        1,
                        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                         -subj /CN=kubernetes -keyout /dev/null \
                         -out /etc/kubernetes/pki/ca.crt 2>/dev/null",
                    )
                    .await?;
                    let command = join_command(lab).await?;
                    lab.injected();
                    hash_is_the_authoritys(lab, &command).await
                })
            },
        },
        Sabotage {
            name: "port-taken",
            about: "something else listens on the kubelet's port",
            expects: Cause::Absent,
            run: |lab| {
                Box::pin(async {
                    on(lab, JOINING, "systemd-run --quiet probe serve --port 10250").await?;
                    let command = join_command(lab).await?;
                    lab.injected();
                    join(lab, JOINING, &command).await.map(drop)
                })
            },
        },
        Sabotage {
            name: "no-pod-network",
            about: "the node gets no CNI file",
            expects: Cause::NotReady,
            run: |lab| {
                // Node 1 has joined, and has none either.
                Box::pin(async { ready_with_its_cni_file(lab, 1).await })
            },
        },
    ],
    red_when: &[],
};

/// The first worker.
const JOINING: u32 = 2;

async fn joins(lab: &Lab) -> anyhow::Result<()> {
    let name = addresses::node_name(JOINING);
    let printed = join_command(lab).await?;
    hash_is_the_authoritys(lab, &printed).await?;

    lab.step("kubeadm token create --print-join-command prints one with another token");
    let command = on(
        lab,
        1,
        "kubeadm token create --print-join-command 2>/dev/null",
    )
    .await?;
    let command =
        JoinCommand::find(&command).with_context(|| format!("no join command in {command:?}"))?;
    if command.token == printed.token || command.hash != printed.hash {
        let expected = format!("init's join command with a new token: {printed}");
        return Err(Failure::new(Cause::WrongAnswer, expected, command.to_string()).into());
    }

    let said = join(lab, JOINING, &command).await?;
    let own = writes_own_config(&on(lab, JOINING, "kubeadm version -o short").await?);
    phases_reported(&said, own)?;
    lab.step("the files are written, and the token is not left behind");
    let left = on(lab, JOINING, FILES).await?;
    files_written(&left, own)?;
    registered_without_roles(lab, &name).await?;
    waits_for_its_network(lab).await?;

    lab.step(format!("give {name} a CNI file, as the Pod network does"));
    let file = cni::bridge(addresses::pod_range(JOINING));
    let limit = lab.limit(COMMAND);
    let node = lab.cluster().node(JOINING);
    node.write(cni::PATH, file.as_bytes(), 0o644, limit).await?;
    ready_with_its_cni_file(lab, JOINING).await
}

/// E13, with the documents' own pipe.
async fn hash_is_the_authoritys(lab: &Lab, command: &JoinCommand) -> anyhow::Result<()> {
    lab.step("hash the authority's public key with openssl (E13)");
    let hash = on(
        lab,
        1,
        "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt \
         | openssl pkey -pubin -outform der | openssl dgst -sha256 -hex | sed 's/^.* //'",
    )
    .await?;
    let hash = format!("sha256:{}", hash.trim());
    if hash == command.hash {
        return Ok(());
    }
    let expected = format!("the hash of the join command, {}", command.hash);
    Err(Failure::new(Cause::WrongAnswer, expected, hash)
        .look("/etc/kubernetes/pki/ca.crt on node1: which authority is it?")
        .into())
}

/// What a join reports, in this order.
const PHASES: [&str; 8] = [
    "[preflight] Running pre-flight checks",
    "[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap",
    "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/instance-config.yaml\"",
    "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"",
    "[kubelet-start] Writing kubelet environment file with flags to file \"/var/lib/kubelet/kubeadm-flags.env\"",
    "[kubelet-start] Starting the kubelet",
    "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap",
    "This node has joined the cluster:",
];

/// What kubeadm writes about the node alone, since 1.34 (the feature gate NodeLocalCRISocket).
const OWN_CONFIG: &str = "instance-config.yaml";

/// Whether this kubeadm, `v1.36.4`, writes [`OWN_CONFIG`].
fn writes_own_config(version: &str) -> bool {
    let mut numbers = version.trim().split('.');
    let minor = numbers.nth(1).and_then(|it| it.parse::<u32>().ok());
    minor.is_none_or(|minor| minor >= 34)
}

fn phases_reported(said: &str, own: bool) -> Result<(), Failure> {
    let mut lines = said.lines();
    for phase in PHASES.iter().filter(|it| own || !it.contains(OWN_CONFIG)) {
        if !lines.any(|line| line.contains(*phase)) {
            let expected = format!("the join to report, after what comes before it: {phase}");
            return Err(Failure::new(Cause::Absent, expected, said));
        }
    }
    Ok(())
}

const FILES: &str = "\
cd /var/lib/kubelet && ls config.yaml instance-config.yaml kubeadm-flags.env 2>/dev/null; \
cd /etc/kubernetes && ls kubelet.conf bootstrap-kubelet.conf pki/ca.crt 2>/dev/null; true";

fn files_written(answer: &str, own: bool) -> Result<(), Failure> {
    let there = |file: &str| answer.lines().any(|line| line == file);
    let expected = "the join's files, without the bootstrap token's kubeconfig";
    let own = own.then_some(OWN_CONFIG);
    for file in [
        "config.yaml",
        "kubeadm-flags.env",
        "kubelet.conf",
        "pki/ca.crt",
    ]
    .into_iter()
    .chain(own)
    {
        if !there(file) {
            return Err(Failure::new(Cause::Absent, expected, format!("no {file}")));
        }
    }
    if there("bootstrap-kubelet.conf") {
        let seen = "bootstrap-kubelet.conf is still there";
        return Err(Failure::new(Cause::Answered, expected, seen));
    }
    Ok(())
}

async fn registered_without_roles(lab: &Lab, name: &str) -> anyhow::Result<()> {
    lab.step(format!("{name} is listed: no role, node1's version"));
    let node = eventually_unless(
        &format!("a Node {name}"),
        lab.limit(Duration::from_secs(20)),
        async || prospects::kubelet(lab, JOINING).await,
        async || {
            Ok(match nodes(lab).get_opt(name).await? {
                Some(node) => Probe::Done(node),
                None => Probe::not_yet(Cause::Absent, "not listed"),
            })
        },
    )
    .await?;
    let labels = node.metadata.labels.unwrap_or_default();
    if let Some(role) = labels
        .keys()
        .find(|it| it.starts_with("node-role.kubernetes.io/"))
    {
        let expected = format!("{name} without a role");
        return Err(Failure::new(Cause::WrongAnswer, expected, role).into());
    }
    let version = |status: Option<k8s_openapi::api::core::v1::NodeStatus>| {
        status
            .and_then(|it| it.node_info)
            .map(|info| info.kubelet_version)
    };
    let node1 = nodes(lab).get(&addresses::node_name(1)).await?;
    let (own, first) = (version(node.status), version(node1.status));
    if own.is_none() || own != first {
        let expected = format!("{name} to run node1's version, {first:?}");
        return Err(Failure::new(Cause::WrongAnswer, expected, format!("{own:?}")).into());
    }
    Ok(())
}

/// A Node that is not Ready for the one reason that its network is missing.
async fn waits_for_its_network(lab: &Lab) -> anyhow::Result<()> {
    let name = addresses::node_name(JOINING);
    lab.step(format!("{name} is not Ready: there is no Pod network yet"));
    eventually_unless(
        &format!("{name} to say that its network plugin is not initialized"),
        lab.limit(Duration::from_secs(20)),
        async || prospects::kubelet(lab, JOINING).await,
        async || {
            let Some(ready) = ready_condition(lab).await? else {
                return Ok(Probe::not_yet(Cause::Absent, "no Ready condition"));
            };
            let message = ready.message.unwrap_or_default();
            Ok(if ready.status == "True" {
                Probe::hopeless(Cause::Answered, "it is Ready")
            } else if message.contains("NetworkPluginNotReady") {
                Probe::Done(())
            } else {
                Probe::not_yet(Cause::NotReady, message)
            })
        },
    )
    .await
}

/// The condition Ready of the worker's Node.
async fn ready_condition(lab: &Lab) -> anyhow::Result<Option<NodeCondition>> {
    let node = nodes(lab)
        .get_status(&addresses::node_name(JOINING))
        .await?;
    let conditions = node.status.and_then(|it| it.conditions).unwrap_or_default();
    Ok(conditions.into_iter().find(|it| it.type_ == "Ready"))
}

async fn ready_with_its_cni_file(lab: &Lab, number: u32) -> anyhow::Result<()> {
    lab.step(format!("{} is Ready (E14)", addresses::node_name(number)));
    node_ready(lab, number, READY_AFTER_JOIN, async || {
        let files = on(lab, number, "ls -A /etc/cni/net.d 2>/dev/null || true").await?;
        let none = files.trim().is_empty();
        Ok(
            none.then(|| {
                Evidence::certain("it has no CNI file").look("/etc/cni/net.d of the node")
            }),
        )
    })
    .await
}

/// E19, E20: the files and the service that a join leaves on a worker.
///
/// The seed's kubelet had its CRI and CNI settings in flags; today they are in its config file.
pub(crate) const WORKER: Scenario = Scenario {
    name: "worker_after_join",
    about: "A worker has its own certificates and the authority's, and nothing of the \
            administrator's; systemd runs its kubelet with kubeadm's drop-in, and again after a kill",
    covers: &[E19, E20, E43],
    stage: StageName::PodNetwork,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(120),
    prepare: None,
    run: |lab| Box::pin(worker(lab)),
    sabotages: &[
        Sabotage {
            name: "readable-for-all",
            about: "the kubelet's kubeconfig is readable for everybody",
            expects: Cause::WrongAnswer,
            run: |lab| {
                Box::pin(async {
                    on(lab, JOINING, "chmod 644 /etc/kubernetes/kubelet.conf").await?;
                    lab.injected();
                    files_of_a_worker(lab).await
                })
            },
        },
        Sabotage {
            name: "administrator-on-the-worker",
            about: "an admin.conf lies on the worker",
            expects: Cause::Answered,
            run: |lab| {
                Box::pin(async {
                    on(lab, JOINING, "touch /etc/kubernetes/admin.conf").await?;
                    lab.injected();
                    files_of_a_worker(lab).await
                })
            },
        },
        Sabotage {
            name: "network-lost",
            about: "its CNI files are moved away after its Node was Ready",
            expects: Cause::WrongAnswer,
            run: |lab| {
                Box::pin(async {
                    let since = ready_since(lab).await?;
                    lab.step("move its CNI files away");
                    let away = "mkdir /etc/cni/away && mv /etc/cni/net.d/* /etc/cni/away/";
                    on(lab, JOINING, away).await?;
                    lab.injected();
                    let limit = lab.limit(Duration::from_secs(20));
                    eventually_unless(
                        "its Node not to be Ready",
                        limit,
                        async || prospects::kubelet(lab, JOINING).await,
                        async || {
                            let ready = ready_condition(lab).await?;
                            Ok(match ready.is_some_and(|it| it.status == "True") {
                                true => Probe::not_yet(Cause::Answered, "it is Ready"),
                                false => Probe::Done(()),
                            })
                        },
                    )
                    .await?;
                    no_network_error(lab, since).await
                })
            },
        },
        Sabotage {
            name: "not-restarted",
            about: "the kubelet's unit says Restart=no",
            expects: Cause::Died,
            run: |lab| {
                Box::pin(async {
                    lab.step("set Restart=no");
                    on(
                        lab,
                        JOINING,
                        "printf '[Service]\\nRestart=no\\n' | install -D -m 644 /dev/stdin \
                         /etc/systemd/system/kubelet.service.d/99-sabotage.conf && \
                         systemctl daemon-reload",
                    )
                    .await?;
                    lab.injected();
                    back_after_a_kill(lab).await
                })
            },
        },
    ],
    red_when: &[],
};

async fn worker(lab: &Lab) -> anyhow::Result<()> {
    files_of_a_worker(lab).await?;
    kubelet_unit(lab).await?;
    no_network_error(lab, ready_since(lab).await?).await?;
    back_after_a_kill(lab).await
}

/// One line each: `mode FILE 600`, `link TARGET`, `pki FILE`, `conf FILE`, `authority SHA256`.
const WORKER_FILES: &str = "\
cd /var/lib/kubelet/pki && stat -c 'mode %n %a' kubelet.crt kubelet.key; \
echo link $(readlink kubelet-client-current.pem); \
cd /etc/kubernetes && stat -c 'mode %n %a' kubelet.conf; \
find pki -type f | sed 's/^/pki /'; ls -d *.conf | sed 's/^/conf /'; \
echo authority $(sha256sum <pki/ca.crt)";

async fn files_of_a_worker(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the worker's files (E19)");
    let answer = on(lab, JOINING, WORKER_FILES).await?;
    let of_node1 = "echo authority $(sha256sum </etc/kubernetes/pki/ca.crt)";
    let authority = on(lab, 1, of_node1).await?;
    Ok(as_a_join_leaves_them(&answer, authority.trim())?)
}

fn as_a_join_leaves_them(answer: &str, authority: &str) -> Result<(), Failure> {
    let expected = "a worker's files as a join leaves them";
    let lines: Vec<&str> = answer.lines().collect();
    for (line, why) in [
        ("mode kubelet.crt 644", "the kubelet's serving certificate"),
        ("mode kubelet.key 600", "its key, for root alone"),
        ("mode kubelet.conf 600", "its kubeconfig, for root alone"),
        (authority, "the control plane's authority, byte for byte"),
    ] {
        if !lines.contains(&line) {
            let seen = format!("no {line:?} ({why}) in:\n{answer}");
            return Err(Failure::new(Cause::WrongAnswer, expected, seen));
        }
    }
    let current = lines.iter().find_map(|line| line.strip_prefix("link "));
    if !current.is_some_and(|to| to.starts_with("/var/lib/kubelet/pki/kubelet-client-20")) {
        let seen = format!("kubelet-client-current.pem leads to {current:?}");
        return Err(Failure::new(Cause::Absent, expected, seen));
    }
    let allowed = ["conf kubelet.conf", "pki pki/ca.crt"];
    let of_kind = |line: &&&str| line.starts_with("conf ") || line.starts_with("pki ");
    if let Some(surplus) = lines
        .iter()
        .filter(of_kind)
        .find(|it| !allowed.contains(*it))
    {
        let seen = format!("also {surplus}");
        return Err(Failure::new(Cause::Answered, expected, seen));
    }
    Ok(())
}

const DROP_IN: &str = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";

async fn kubelet_unit(lab: &Lab) -> anyhow::Result<()> {
    lab.step("its kubelet: enabled, active, with kubeadm's drop-in and flags (E20)");
    let answer = on(
        lab,
        JOINING,
        "systemctl show -p UnitFileState,ActiveState,DropInPaths kubelet; \
         tr '\\0' '\\n' </proc/$(systemctl show -P MainPID kubelet)/cmdline",
    )
    .await?;
    Ok(runs_as_kubeadm_wants(&answer)?)
}

fn runs_as_kubeadm_wants(answer: &str) -> Result<(), Failure> {
    let wanted = [
        "UnitFileState=enabled",
        "ActiveState=active",
        "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
        "--kubeconfig=/etc/kubernetes/kubelet.conf",
        "--config=/var/lib/kubelet/config.yaml",
    ];
    let lines: Vec<&str> = answer.lines().collect();
    let missing = wanted.into_iter().find(|line| !lines.contains(line));
    let drop_in = lines.iter().any(|line| {
        let paths = line.strip_prefix("DropInPaths=");
        paths.is_some_and(|paths| paths.split(' ').any(|path| path == DROP_IN))
    });
    let missing = missing.or((!drop_in).then_some(DROP_IN));
    let Some(missing) = missing else {
        return Ok(());
    };
    let expected = format!("the kubelet's unit to have {missing}");
    Err(Failure::new(Cause::WrongAnswer, expected, answer))
}

/// When the worker's Node became Ready: seconds since 1970 by the node's own clock, which are cut in the
/// Node's status, so the next full one.
async fn ready_since(lab: &Lab) -> anyhow::Result<i64> {
    let ready = ready_condition(lab).await?.filter(|it| it.status == "True");
    let since = ready.and_then(|it| it.last_transition_time);
    Ok(since.context("its Node is not Ready")?.0.as_second() + 1)
}

/// The kubelet logs a missing network again and again, but for a node's first two minutes
/// (`nodeReadyGracePeriod` in its source): whether it did before the Node was Ready says only how long
/// that took.
async fn no_network_error(lab: &Lab, since: i64) -> anyhow::Result<()> {
    let expected = "no CNI error in the kubelet's log since its Node became Ready";
    lab.step(expected);
    let ask = format!(
        "journalctl -u kubelet -o cat --since @{since} | grep -m 1 reason:NetworkPluginNotReady; true"
    );
    let said = on(lab, JOINING, &ask).await?;
    match said.trim() {
        "" => Ok(()),
        said => Err(Failure::new(Cause::WrongAnswer, expected, said).into()),
    }
}

async fn back_after_a_kill(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kill the kubelet: systemd starts another");
    let ask = "systemctl show -P MainPID,ActiveState,SubState kubelet | tr '\\n' ' '";
    let before = on(
        lab,
        JOINING,
        &format!("{ask}; systemctl kill -s KILL kubelet"),
    )
    .await?;
    let old = main_pid(&before).to_owned();
    eventually(
        "the kubelet to run again, as another process",
        lab.limit(Duration::from_secs(30)),
        async || {
            let state = on(lab, JOINING, ask).await?;
            let words: Vec<&str> = state.split_whitespace().collect();
            Ok(if words.contains(&"failed") {
                Probe::hopeless(Cause::Died, format!("systemd leaves it: {state}"))
            } else if words.contains(&"running") && main_pid(&state) != old {
                Probe::Done(())
            } else {
                Probe::not_yet(Cause::NotReady, state)
            })
        },
    )
    .await
}

fn main_pid(state: &str) -> &str {
    state
        .split_whitespace()
        .find(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_wanted_in_their_order() {
        let good = PHASES.join("\nmore\n");
        assert_eq!(phases_reported(&good, true), Ok(()));
        let mut swapped = PHASES;
        swapped.swap(3, 4);
        assert!(phases_reported(&swapped.join("\n"), true).is_err());
        let failure = phases_reported(PHASES[0], true).unwrap_err();
        assert!(failure.expected.contains("kubeadm-config"), "{failure}");
        let without = good.replace(OWN_CONFIG, "");
        assert!(phases_reported(&without, true).is_err());
        assert_eq!(phases_reported(&without, false), Ok(()));
    }

    #[test]
    fn a_bootstrap_kubeconfig_that_stays_is_told_from_a_missing_file() {
        let good =
            "config.yaml\ninstance-config.yaml\nkubeadm-flags.env\nkubelet.conf\npki/ca.crt\n";
        assert_eq!(files_written(good, true), Ok(()));
        let stays = files_written(&format!("{good}bootstrap-kubelet.conf\n"), true).unwrap_err();
        assert_eq!(stays.cause, Cause::Answered);
        let none = files_written(&good.replace("pki/ca.crt", ""), true).unwrap_err();
        assert_eq!(none.cause, Cause::Absent);
    }

    #[test]
    fn a_config_of_the_nodes_own_is_wanted_since_1_34() {
        assert!(!writes_own_config("v1.33.13\n"));
        assert!(writes_own_config("v1.34.0"));
        assert!(writes_own_config("v1.36.4"));
        let before = "config.yaml\nkubeadm-flags.env\nkubelet.conf\npki/ca.crt\n";
        assert_eq!(files_written(before, false), Ok(()));
        assert_eq!(
            files_written(before, true).unwrap_err().cause,
            Cause::Absent
        );
    }

    #[test]
    fn a_workers_files_are_these_and_no_others() {
        let good = "mode kubelet.crt 644\nmode kubelet.key 600\n\
                    link /var/lib/kubelet/pki/kubelet-client-2026-01-01.pem\n\
                    mode kubelet.conf 600\npki pki/ca.crt\nconf kubelet.conf\nauthority 00 -\n";
        assert_eq!(as_a_join_leaves_them(good, "authority 00 -"), Ok(()));
        let cause = |answer: &str, authority: &str| {
            as_a_join_leaves_them(answer, authority).unwrap_err().cause
        };
        assert_eq!(cause(good, "authority 11 -"), Cause::WrongAnswer);
        let more = format!("{good}pki pki/ca.key\n");
        assert_eq!(cause(&more, "authority 00 -"), Cause::Answered);
        let no_link = good.replace("kubelet-client-2026-01-01.pem", "");
        assert_eq!(cause(&no_link, "authority 00 -"), Cause::Absent);
    }

    #[test]
    fn the_unit_needs_its_drop_in_and_its_flags() {
        let good = format!(
            "UnitFileState=enabled\nActiveState=active\nDropInPaths=/a.conf {DROP_IN}\n\
             /usr/bin/kubelet\n--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf\n\
             --kubeconfig=/etc/kubernetes/kubelet.conf\n--config=/var/lib/kubelet/config.yaml\n"
        );
        assert_eq!(runs_as_kubeadm_wants(&good), Ok(()));
        assert!(runs_as_kubeadm_wants(&good.replace("10-kubeadm", "10-other")).is_err());
        assert!(runs_as_kubeadm_wants(&good.replace("enabled", "disabled")).is_err());
    }

    #[test]
    fn the_process_id_is_the_number_wherever_systemd_puts_it() {
        assert_eq!(main_pid("active running 528"), "528");
        assert_eq!(main_pid("528 active running"), "528");
        assert_eq!(main_pid("failed"), "");
    }
}
