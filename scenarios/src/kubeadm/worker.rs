//! What a join leaves on a worker: files, and a kubelet that systemd keeps.

use anyhow::Context as _;
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Profile, Sabotage, Scenario, StageName, ensure, ensure_none,
    secs, steps,
};

use crate::catalogue::{E19, E20, E43};

/// E19, E20: the files and the service that a join leaves on a worker.
///
/// The seed's kubelet had its CRI and CNI settings in flags; today they are in its config file.
pub(crate) const WORKER: Scenario = Scenario {
    about: "A worker has its own certificates and the authority's, and nothing of the \
            administrator's; systemd runs its kubelet with kubeadm's drop-in, and again after a kill",
    covers: &[E19, E20, E43],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("readable-for-all")
            .about("the kubelet's kubeconfig is readable for everybody")
            .inject(steps!(|lab| {
                let change = "chmod 644 /etc/kubernetes/kubelet.conf";
                lab.node(WORKER_NODE).run(change).await
            }))
            .caught_by(steps!(files_of_a_worker), Cause::WrongAnswer),
        Sabotage::new("administrator-on-the-worker")
            .about("an admin.conf lies on the worker")
            .inject(steps!(|lab| {
                let touch = "touch /etc/kubernetes/admin.conf";
                lab.node(WORKER_NODE).run(touch).await
            }))
            .caught_by(steps!(files_of_a_worker), Cause::Answered),
        Sabotage::new("network-lost")
            .about("its CNI files are moved away after its Node was Ready")
            .inject(steps!(lose_the_network))
            .caught_by(steps!(|lab| no_network_error(lab, lab.kept()?).await), Cause::WrongAnswer),
        Sabotage::new("not-enabled")
            .about("node 1's kubelet runs, and is not enabled")
            .inject(steps!(|lab| lab.node(1).run("systemctl disable kubelet").await))
            .caught_by(steps!(kubelet_unit), Cause::WrongAnswer),
        Sabotage::new("not-restarted")
            .about("the kubelet's unit says Restart=no")
            .inject(steps!(|lab| {
                lab.step("set Restart=no");
                lab.node(WORKER_NODE).run(NO_RESTART).await
            }))
            .caught_by(steps!(back_after_a_kill), Cause::Died),
    ],
    ..Scenario::new("worker_after_join", StageName::PodNetwork, steps!(worker))
};

/// Any node but the control plane's.
const WORKER_NODE: u32 = 2;

async fn worker(lab: &Lab) -> anyhow::Result<()> {
    files_of_a_worker(lab).await?;
    kubelet_unit(lab).await?;
    no_network_error(lab, ready_since(lab).await?).await?;
    back_after_a_kill(lab).await
}

/// One line each: `mode FILE 600`, `link TARGET`, `pki FILE`, `conf FILE`, `authority SHA256`.
const FILES: &str = "\
cd /var/lib/kubelet/pki && stat -c 'mode %n %a' kubelet.crt kubelet.key; \
echo link $(readlink kubelet-client-current.pem); \
cd /etc/kubernetes && stat -c 'mode %n %a' kubelet.conf; \
find pki -type f | sed 's/^/pki /'; ls -d *.conf | sed 's/^/conf /'; \
echo authority $(sha256sum <pki/ca.crt)";

async fn files_of_a_worker(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the worker's files (E19)");
    let answer = lab.node(WORKER_NODE).run(FILES).await?;
    let of_node1 = "echo authority $(sha256sum </etc/kubernetes/pki/ca.crt)";
    let authority = lab.node(1).run(of_node1).await?;
    Ok(as_a_join_leaves_them(&answer.stdout, authority.text())?)
}

fn as_a_join_leaves_them(answer: &str, authority: &str) -> Result<(), Failure> {
    let lines: Vec<&str> = answer.lines().collect();
    for line in ["mode kubelet.crt 644", "mode kubelet.key 600", "mode kubelet.conf 600", authority]
    {
        let there = lines.contains(&line);
        ensure!(there, WrongAnswer, "{line:?} of a worker", "{answer}");
    }
    let current = lines.iter().find_map(|line| line.strip_prefix("link "));
    let own = current.is_some_and(|to| to.starts_with("/var/lib/kubelet/pki/kubelet-client-20"));
    ensure!(own, Absent, "a current certificate", "{current:?}");
    let allowed = ["conf kubelet.conf", "pki pki/ca.crt"];
    let of_kind = |line: &&&str| line.starts_with("conf ") || line.starts_with("pki ");
    let found = lines.iter().filter(of_kind);
    let surplus = found.filter(|line| !allowed.contains(line));
    ensure_none!(surplus, Answered, "nothing beside {allowed:?}");
    Ok(())
}

const UNIT: &str = "\
systemctl show -p UnitFileState,ActiveState,DropInPaths kubelet; \
tr '\\0' '\\n' </proc/$(systemctl show -P MainPID kubelet)/cmdline";

const DROP_IN: &str = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";

async fn kubelet_unit(lab: &Lab) -> anyhow::Result<()> {
    for node in [lab.node(WORKER_NODE), lab.node(1)] {
        lab.step(format!(
            "{node}'s kubelet: enabled, active, with kubeadm's drop-in and flags (E20)"
        ));
        let answer = node.run(UNIT).await?;
        runs_as_kubeadm_wants(&answer.stdout)?;
    }
    Ok(())
}

fn runs_as_kubeadm_wants(answer: &str) -> Result<(), Failure> {
    let lines: Vec<&str> = answer.lines().collect();
    for line in [
        "UnitFileState=enabled",
        "ActiveState=active",
        "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
        "--kubeconfig=/etc/kubernetes/kubelet.conf",
        "--config=/var/lib/kubelet/config.yaml",
    ] {
        let there = lines.contains(&line);
        ensure!(there, WrongAnswer, "its unit to have {line}", "{answer}");
    }
    let mut paths = lines.iter().filter_map(|it| it.strip_prefix("DropInPaths="));
    let there = paths.any(|paths| paths.split(' ').any(|path| path == DROP_IN));
    ensure!(there, WrongAnswer, "its unit to have {DROP_IN}", "{answer}");
    Ok(())
}

/// When the worker's Node became Ready: seconds since 1970 by the node's own clock, which are cut in the
/// Node's status, so the next full one.
async fn ready_since(lab: &Lab) -> anyhow::Result<i64> {
    let listed = lab.node(WORKER_NODE).listed().await?;
    let ready = listed.as_ref().and_then(|it| it.condition("Ready"));
    let ready = ready.filter(|it| it.status == "True");
    let since = ready.and_then(|it| it.last_transition_time.as_ref());
    Ok(since.context("its Node is not Ready")?.0.as_second() + 1)
}

/// The kubelet logs a missing network again and again, but for a node's first two minutes
/// (`nodeReadyGracePeriod` in its source): whether it did before the Node was Ready says only how long
/// that took.
async fn no_network_error(lab: &Lab, since: i64) -> anyhow::Result<()> {
    lab.step("no CNI error in the kubelet's log since its Node became Ready");
    let ask = format!(
        "journalctl -u kubelet -o cat --since @{since} | grep -m 1 reason:NetworkPluginNotReady; true"
    );
    let answer = lab.node(WORKER_NODE).run(ask).await?;
    ensure_none!(answer.text().lines(), WrongAnswer, "no CNI error in its log");
    Ok(())
}

async fn lose_the_network(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(WORKER_NODE);
    lab.keep(ready_since(lab).await?);
    lab.step("move its CNI files away");
    let away = "mkdir /etc/cni/away && mv /etc/cni/net.d/* /etc/cni/away/";
    node.run(away).await?;
    node.until("its Node not to be Ready", secs(20), |listed| {
        let ready = listed.is_some_and(|it| it.holds("Ready"));
        Probe::when(!ready, Cause::Answered, "it is Ready")
    })
    .await
}

/// The kubelet's process, and what systemd thinks of it: `528 active running`.
const STATE: &str = "systemctl show -P MainPID,ActiveState,SubState kubelet | tr '\\n' ' '";

async fn back_after_a_kill(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kill the kubelet: systemd starts another");
    let node = lab.node(WORKER_NODE);
    let kill = format!("{STATE}; systemctl kill -s KILL kubelet");
    let before = node.run(kill).await?.stdout;
    let expected = "the kubelet to run again, as another process";
    lab.eventually(expected, secs(30), async || {
        let state = node.run(STATE).await?.stdout;
        let is = |word: &str| state.split_whitespace().any(|it| it == word);
        if is("failed") {
            let state = format!("systemd leaves it: {state}");
            return Ok(Probe::hopeless(Cause::Died, state));
        }
        let back = is("running") && main_pid(&state) != main_pid(&before);
        Ok(Probe::when(back, Cause::NotReady, state))
    })
    .await
}

fn main_pid(state: &str) -> &str {
    let number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    state.split_whitespace().find(number).unwrap_or_default()
}

const NO_RESTART: &str = "\
printf '[Service]\\nRestart=no\\n' | install -D -m 644 /dev/stdin \
/etc/systemd/system/kubelet.service.d/99-sabotage.conf && systemctl daemon-reload";

#[cfg(test)]
mod tests {
    use super::*;

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
