//! What a person installs before anything else.

use podwire_scenario::{
    Cause, Failure, Lab, Profile, Sabotage, Scenario, StageName, ensure, secs, steps,
};

use crate::catalogue::E2;

/// E2: what a person installs before anything else.
pub(crate) const PACKAGES: Scenario = Scenario {
    about: "kubelet, kubeadm, kubectl, the CNI plugins and crictl are installed as packages of the \
            version under test, and on hold, on every node",
    covers: &[E2],
    profile: Profile::Full,
    limit: secs(60),
    sabotages: &[
        Sabotage::new("not-held")
            .about("kubeadm is no longer on hold")
            .inject(steps!(|lab| lab.node(1).run("apt-mark unhold kubeadm").await))
            .caught_by(steps!(packages), Cause::WrongAnswer),
        Sabotage::new("package-removed")
            .about("the package of crictl is gone from the last node")
            .inject(steps!(|lab| {
                let purge = "dpkg --force-all --purge cri-tools 2>&1";
                lab.last_node().run(purge).await
            }))
            .caught_by(steps!(packages), Cause::Absent),
    ],
    ..Scenario::new("packages_are_held", StageName::Init, steps!(packages))
};

/// The packages, as upstream names them.
const NAMES: &str = "kubelet kubeadm kubectl kubernetes-cni cri-tools";

async fn packages(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask dpkg and apt-mark, and the programs themselves");
    let ask = format!(
        "dpkg-query -W -f 'package ${{Package}}=${{Version}} ${{db:Status-Status}}\\n' {NAMES} 2>/dev/null; \
         apt-mark showhold | sed 's/.*/held &=/'; \
         echo runs kubelet=$(kubelet --version | cut -d' ' -f2); \
         echo runs kubeadm=$(kubeadm version -o short)"
    );
    for (node, answer) in lab.run_everywhere(&ask).await? {
        lab.step(format!("installed and on hold on {node}"));
        installed_and_held(&answer.stdout)?;
    }
    Ok(())
}

fn installed_and_held(answer: &str) -> Result<(), Failure> {
    for name in NAMES.split(' ') {
        let says = |what: &str| {
            let prefix = format!("{what} {name}=");
            answer.lines().find_map(|line| line.strip_prefix(&prefix))
        };
        let version = says("package").and_then(|it| it.strip_suffix(" installed"));
        let (installed, held) = (version.is_some(), says("held").is_some());
        ensure!(installed, Absent, "{name} installed", "{answer}");
        ensure!(held, WrongAnswer, "{name} on hold", "{answer}");
        let (version, runs) = (version.unwrap_or_default(), says("runs"));
        let same = runs.is_none_or(|it| version.starts_with(it.trim_start_matches('v')));
        ensure!(same, WrongAnswer, "{name} to be {version}", "{runs:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_there_held_and_what_it_says() {
        let good: String = NAMES
            .split(' ')
            .map(|name| format!("package {name}=1.36.4-1 installed\nheld {name}=\n"))
            .chain(["runs kubelet=v1.36.4\n".to_owned(), "runs kubeadm=v1.36.4\n".to_owned()])
            .collect();
        assert_eq!(installed_and_held(&good), Ok(()));
        let cause = |from: &str, to: &str| {
            installed_and_held(&good.replacen(from, to, 1)).unwrap_err().cause
        };
        assert_eq!(cause("held kubectl=\n", ""), Cause::WrongAnswer);
        assert_eq!(cause("package cri-tools", "package other"), Cause::Absent);
        assert_eq!(cause("1.36.4-1 installed", "1.36.4-1 config-files"), Cause::Absent);
        assert_eq!(cause("kubeadm=v1.36.4", "kubeadm=v1.36.3"), Cause::WrongAnswer);
    }
}
