//! kubeadm on a node, as a person types it.

use std::time::Duration;

use anyhow::Context as _;
use podwire_cluster::kubeadm::{self, JoinCommand};
use serde_json::{Value, json};

use crate::check::failure::{Cause, Failure};
use crate::check::typed::preflight_errors;
use crate::lab::Lab;
use crate::lab::command::{Answer, Command};
use crate::lab::node::Node;
use crate::lab::tokens::Token;

/// `kubeadm join` and `kubeadm reset`.
const KUBEADM: Duration = Duration::from_secs(40);

/// A join of a control plane node: certificates, static Pods, and a member of etcd that has learned all there is.
const CONTROL_PLANE: Duration = Duration::from_secs(120);

/// For a Node to be Ready once its join has returned: in the documents' listing it is 88 s old by then, from its
/// registration in the join on.
pub const READY_AFTER_JOIN: Duration = Duration::from_secs(90);

/// What Go's library says of a certificate that it does not trust (crypto/x509).
const UNTRUSTED: &str = "x509: ";

/// What `kubeadm join` is told by [`Kubeadm::write_join_config`].
const TOLD: &str = "/root/join.json";

/// kubeadm on one node.
#[derive(Clone, Copy)]
pub struct Kubeadm<'lab> {
    node: Node<'lab>,
}

impl Lab {
    /// kubeadm on the node with this number.
    pub fn kubeadm(&self, node: u32) -> Kubeadm<'_> {
        Kubeadm {
            node: self.node(node),
        }
    }

    /// From now on the API is reached, as the administrator whose kubeconfig `kubeadm init` has written on node 1: where
    /// the stage had no API server.
    ///
    /// # Errors
    /// When there is none.
    pub async fn reach_api(&self) -> anyhow::Result<()> {
        Ok(self.cluster().reach_api().await?)
    }

    /// The join command at the end of `kubeadm init`'s output.
    ///
    /// # Errors
    /// A [`Failure`] when there is none.
    pub async fn join_command(&self) -> anyhow::Result<JoinCommand> {
        let expected = "a join command at the end of init";
        self.printed_by_init(JoinCommand::find, expected).await
    }

    /// The one for further control plane nodes, where init has uploaded its certificates.
    ///
    /// # Errors
    /// A [`Failure`] when there is none.
    pub async fn join_command_of_a_control_plane(&self) -> anyhow::Result<JoinCommand> {
        let expected = "a join command for control plane nodes at the end of init";
        self.printed_by_init(JoinCommand::find_for_control_planes, expected)
            .await
    }

    async fn printed_by_init(
        &self,
        find: impl Fn(&str) -> Option<JoinCommand>,
        expected: &str,
    ) -> anyhow::Result<JoinCommand> {
        let log = format!("cat {}", kubeadm::INIT_LOG);
        let log = self.node(1).run(log).await?.stdout;
        let found = find(&log).ok_or_else(|| {
            let end: Vec<&str> = log.lines().rev().take(5).collect();
            let seen = format!("none; its last lines, backwards: {}", end.join(" | "));
            Failure::new(Cause::Absent, expected, seen)
        })?;
        Ok(found)
    }
}

impl<'lab> Kubeadm<'lab> {
    pub(super) fn node(self) -> Node<'lab> {
        self.node
    }

    /// `kubeadm ARGUMENTS`.
    pub fn run(self, arguments: &str) -> Command<'lab> {
        self.node
            .run(format!("kubeadm {arguments}"))
            .within(KUBEADM)
    }

    /// The minor of its version: 36 of `v1.36.4`.
    ///
    /// # Errors
    /// When it does not tell.
    pub async fn minor(self) -> anyhow::Result<u32> {
        let told = self.run("version -o short").await?;
        let none = || format!("no version in {:?}", told.text());
        minor(told.text()).with_context(none)
    }

    /// Types the join command, which may be refused.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn try_to_join(self, command: &JoinCommand) -> anyhow::Result<Answer> {
        self.try_to_join_by(&command.arguments()).await
    }

    /// Joins as a further control plane node by the command that init has printed for that; what kubeadm said. The
    /// command is told in a file, with what a small and emulated machine needs beside it.
    ///
    /// # Errors
    /// As [`Kubeadm::join`].
    pub async fn join_as_control_plane(self, command: &JoinCommand) -> anyhow::Result<String> {
        let node = self.node;
        let cluster = node.lab().cluster();
        node.lab()
            .step(format!("kubeadm join --control-plane on {node}"));
        let (cell, settings) = (cluster.plan().cell, cluster.settings());
        let told = kubeadm::control_plane_join_config(node.number(), cell, command, settings);
        node.write_secret(kubeadm::JOIN_CONFIG, told).await?;
        let answer = node.run(kubeadm::JOIN).within(CONTROL_PLANE).may_fail();
        self.has_joined(&answer.await?)
    }

    /// Types `kubeadm join ARGUMENTS`, which may be refused.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn try_to_join_by(self, arguments: &str) -> anyhow::Result<Answer> {
        let node = self.node;
        node.lab().step(format!("kubeadm join on {node}"));
        self.run(&format!("join {arguments}")).may_fail().await
    }

    /// Joins; what kubeadm said.
    ///
    /// # Errors
    /// A [`Failure`] when it is refused, naming the checks that stopped it.
    pub async fn join(self, command: &JoinCommand) -> anyhow::Result<String> {
        self.has_joined(&self.try_to_join(command).await?)
    }

    /// Joins by `kubeadm join ARGUMENTS`; what kubeadm said.
    ///
    /// # Errors
    /// As [`Kubeadm::join`]; of the class `Tls` where it met a certificate that it does not trust.
    pub async fn join_by(self, arguments: &str) -> anyhow::Result<String> {
        self.has_joined(&self.try_to_join_by(arguments).await?)
    }

    fn has_joined(self, answer: &Answer) -> anyhow::Result<String> {
        let said = answer.said();
        if answer.succeeded() {
            return Ok(said);
        }
        let stopped = preflight_errors(&said);
        let cause = match said.contains(UNTRUSTED) {
            true => Cause::Tls,
            false => Cause::Absent,
        };
        let seen = if stopped.is_empty() {
            said
        } else {
            let names: Vec<&str> = stopped.into_iter().collect();
            format!("stopped by the checks {}", names.join(", "))
        };
        let expected = format!("{} to join", self.node);
        Err(Failure::new(cause, expected, seen)
            .look("the node's journal: `journalctl -u kubelet`")
            .into())
    }

    /// `kubeadm token create ARGUMENTS`; the token that it prints at last.
    ///
    /// # Errors
    /// When it fails, or prints none.
    pub async fn create_token(self, arguments: &str) -> anyhow::Result<Token> {
        let created = self.run(&format!("token create {arguments}")).await?;
        let last = created.stdout.lines().last().and_then(Token::parse);
        last.with_context(|| format!("kubeadm token create printed no token: {created}"))
    }

    /// Writes what `kubeadm join` is told in a file: this command, where another token is for TLS
    /// bootstrap that one, and `timeouts` of kubeadm.k8s.io/v1beta4, which no flag has:
    /// `{ "discovery": "5s" }`.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn write_join_config(
        self,
        command: &JoinCommand,
        second: Option<&Token>,
        timeouts: Value,
    ) -> anyhow::Result<()> {
        let mut told = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "JoinConfiguration",
            "discovery": command.discovery(),
            "timeouts": timeouts,
        });
        if let Some(second) = second {
            told["discovery"]["tlsBootstrapToken"] = second.to_string().into();
        }
        self.node.write_secret(TOLD, format!("{told:#}\n")).await
    }

    /// Types `kubeadm join` with that file, so that it tells each of its looks at `cluster-info`
    /// ([`looks_at_cluster_info`]).
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn try_to_join_as_told(self) -> anyhow::Result<Answer> {
        self.try_to_join_by(&format!("--config {TOLD} -v=1")).await
    }

    /// Puts a script before kubeadm that changes what is typed, by a command of sed(1):
    /// `s/ --dry-run//`.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn types_otherwise(self, change: &str) -> anyhow::Result<()> {
        let script = format!(
            "#!/bin/sh\nset -f\nexec /usr/bin/kubeadm.real $(echo \"$*\" | sed '{change}')\n"
        );
        self.node
            .run("mv /usr/bin/kubeadm /usr/bin/kubeadm.real")
            .await?;
        self.node.write("/usr/bin/kubeadm", script).await?;
        self.node.run("chmod 755 /usr/bin/kubeadm").await.map(drop)
    }

    /// `kubeadm reset`, with this answer to its question.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn reset_answered(self, answer: &str) -> anyhow::Result<Answer> {
        let node = self.node;
        node.lab()
            .step(format!("kubeadm reset on {node}, answered {answer:?}"));
        let typed = node.run(format!("echo {answer} | kubeadm reset"));
        typed.within(KUBEADM).may_fail().await
    }

    /// `kubeadm reset`, answered with y; what it said. It waits two seconds for each container to end, and warns of
    /// those that took longer: then it is typed once more, as a person would, and what it said is of both times.
    ///
    /// # Errors
    /// When it fails.
    pub async fn reset(self) -> anyhow::Result<String> {
        let said = self.reset_once().await?;
        if !leaves_containers(&said) {
            return Ok(said);
        }
        (self.node.lab()).step("it warns that containers took too long to end: once more");
        Ok(said + &self.reset_once().await?)
    }

    async fn reset_once(self) -> anyhow::Result<String> {
        let answer = self.reset_answered("y").await?;
        anyhow::ensure!(answer.succeeded(), "kubeadm reset failed: {answer}");
        Ok(answer.said())
    }
}

/// Whether a reset said that not every container was gone (kubeadm's `cmd/phases/reset/cleanupnode.go`).
fn leaves_containers(said: &str) -> bool {
    said.contains("[reset] Failed to remove containers: ")
}

fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}

/// How often a join looked for a token's signature in `cluster-info`, by what it said with `-v=1`: until
/// discovery ends, every five seconds; where there is one, once, and once more with the authority that it
/// then trusts.
pub fn looks_at_cluster_info(said: &str) -> usize {
    said.matches("[discovery] Waiting for the cluster-info ConfigMap")
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_that_left_containers_says_so() {
        let left = "[reset] Unmounting mounted directories in \"/var/lib/kubelet\"
W1129 15:48:43.000001    4021 cleanupnode.go:105] [reset] Failed to remove containers: failed to remove pod 998ebe";
        assert!(leaves_containers(left));
        let done = "[reset] Deleting contents of directories: [/etc/kubernetes/manifests]";
        assert!(!leaves_containers(done));
    }

    #[test]
    fn a_version_s_minor_is_its_second_number() {
        assert_eq!(minor("v1.36.4"), Some(36));
        assert_eq!(minor("v1.33.0-rc.1"), Some(33));
        assert_eq!(minor("unknown"), None);
    }
}
