//! Carries out what a step's data says, and knows nothing else of it.

use std::time::Duration;

use futures::future::try_join_all;
use podwire_process::Report;
use serde_json::Value;

use super::api::{chain, ready};
use super::apply::apply;
use super::cluster::Cluster;
use super::gates::{Prospect, nodes_missing};
use super::node::Node;
use crate::parts::credentials::Access;
use crate::parts::file::{NodeFile, UNPACK, archive};
use crate::parts::kubeadm::JoinCommand;
use crate::parts::units;
use crate::plan::error::ClusterError;
use crate::steps::step::{Action, Ask, Gate, Hole, OnNode, OnNodes, Step};

/// What has filled the holes so far.
#[derive(Default)]
struct Known(Vec<(Hole, String)>);

impl Known {
    fn filled(&self, files: &[NodeFile]) -> Vec<NodeFile> {
        let mut files = files.to_vec();
        for (hole, text) in &self.0 {
            for file in &mut files {
                file.text = file.text.replace(hole.name(), text);
            }
        }
        files
    }
}

impl Cluster {
    /// Does what a step says, and lets the cluster settle: what was still missing when the time for
    /// that ran out.
    pub(crate) async fn carry_out(
        &mut self,
        step: &Step,
        report: &dyn Report,
    ) -> Result<Option<String>, ClusterError> {
        let mut known = Known::default();
        for part in &step.parts {
            report.step(&part.says);
            for action in &part.does {
                self.act(action, &mut known, report).await?;
            }
        }
        if step.settles.when.is_empty() {
            return Ok(None);
        }
        report.step("let the cluster settle");
        self.settle(&step.settles, report).await
    }

    async fn act(
        &mut self,
        action: &Action,
        known: &mut Known,
        report: &dyn Report,
    ) -> Result<(), ClusterError> {
        match action {
            Action::OnNodes(on) => self.set_up(on, known).await,
            Action::OnRouter { command, limit } => self.on_router(command, *limit).await,
            Action::Reboot { nodes } => {
                try_join_all(nodes.iter().map(|node| self.reboot(*node))).await?;
                Ok(())
            }
            Action::Kubeadm { phase, on } => self.kubeadm(phase, on, known, report).await,
            Action::Apply { objects, limit } => self.apply(objects, *limit, report).await,
            Action::Wait { gate, limit } => self.pass(gate, *limit, report).await,
            Action::Reach(access) => self.reach_api_with(access.clone()),
            Action::ReachAs(ask) => self.reach_api_as(ask).await,
            Action::Fill(hole, ask) => {
                let said = self.ask(ask).await?;
                let (what, found) = match hole {
                    Hole::CaHash => ("join command", JoinCommand::find(&said).map(|it| it.hash)),
                };
                let found = found.ok_or_else(|| self.unreadable(ask.node, what, &said))?;
                known.0.push((*hole, found));
                Ok(())
            }
        }
    }

    /// Does what needs nothing that is only known while a step is carried out.
    pub(crate) async fn on_nodes(&self, on: &OnNodes) -> Result<(), ClusterError> {
        self.set_up(on, &Known::default()).await
    }

    pub(crate) async fn on_router(
        &self,
        command: &str,
        limit: Duration,
    ) -> Result<(), ClusterError> {
        let router = self.router().ok_or(ClusterError::NoRouter)?;
        router.run_ok(command, self.host().limit(limit)).await?;
        Ok(())
    }

    async fn set_up(&self, on: &OnNodes, known: &Known) -> Result<(), ClusterError> {
        let limit = self.host().limit(on.limit);
        let each = on.nodes.iter().map(|it| async move {
            let (node, command) = (self.node(it.node), it.command.as_deref());
            if it.files.is_empty() {
                if let Some(command) = command {
                    node.run_ok(command, limit).await?;
                }
                return Ok::<_, ClusterError>(());
            }
            let files = archive(&known.filled(&it.files));
            let files = files.map_err(ClusterError::file("archive", "the node's files"))?;
            // One process for all files, and the command in the same shell.
            let command = match command {
                Some(command) => format!("{UNPACK} && {command}"),
                None => UNPACK.to_owned(),
            };
            node.run_with_input(&command, &files, limit).await?;
            Ok(())
        });
        try_join_all(each).await?;
        Ok(())
    }

    pub(super) async fn reach_api_as(&self, ask: &Ask) -> Result<(), ClusterError> {
        let said = self.ask(ask).await?;
        let access = Access::of_kubeconfig(&said);
        let access = access.ok_or_else(|| self.unreadable(ask.node, "administrator", &said))?;
        self.reach_api_with(access)
    }

    async fn ask(&self, ask: &Ask) -> Result<String, ClusterError> {
        let limit = self.host().limit(ask.limit);
        self.node(ask.node).run_ok(&ask.command, limit).await
    }

    fn unreadable(&self, node: u32, what: &'static str, said: &str) -> ClusterError {
        let end = said.char_indices().rev().nth(400).map_or(0, |(at, _)| at);
        ClusterError::Unreadable {
            node: self.node(node).name().to_owned(),
            what,
            said: said[end..].to_owned(),
        }
    }

    async fn kubeadm(
        &self,
        phase: &'static str,
        on: &OnNodes,
        known: &Known,
        report: &dyn Report,
    ) -> Result<(), ClusterError> {
        let each = on.nodes.iter().map(|it| async move {
            let files = OnNodes {
                nodes: vec![OnNode {
                    command: None,
                    ..it.clone()
                }],
                limit: on.limit,
            };
            self.set_up(&files, known).await?;
            let command = it.command.as_deref().unwrap_or_default();
            let node = self.node(it.node);
            self.kubeadm_on(node, phase, command, on.limit, report)
                .await
        });
        try_join_all(each).await?;
        Ok(())
    }

    /// Runs it to its end, telling what it is at; when it fails, its words come with the kubelet's,
    /// which it waits for.
    async fn kubeadm_on(
        &self,
        node: &Node,
        phase: &'static str,
        command: &str,
        limit: Duration,
        report: &dyn Report,
    ) -> Result<(), ClusterError> {
        let limit = self.host().limit(limit);
        let tell = |line: &str| {
            if let Some(at) = phase_of(line) {
                report.waiting(&format!("kubeadm {phase} on {}: {at}", node.name()));
            }
        };
        match node.follow(command, limit, tell).await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(ClusterError::Kubeadm {
                phase,
                node: node.name().to_owned(),
                said: output.stderr.trim_end().to_owned(),
                kubelet: node.last_words(self.host(), units::KUBELET).await,
            }),
            Err(fault @ ClusterError::Fault(_)) => Err(fault),
            Err(failed) => {
                let state = chain(&failed);
                let unit = units::KUBELET;
                Err(self.not_up(node, unit, limit, state).await)
            }
        }
    }

    async fn apply(
        &self,
        objects: &[Value],
        limit: Duration,
        report: &dyn Report,
    ) -> Result<(), ClusterError> {
        let limit = self.host().limit(limit);
        let state = self
            .wait(limit, report, async |api| {
                for object in objects {
                    apply(api.clone(), object).await?;
                }
                Ok(None)
            })
            .await?;
        match state {
            None => Ok(()),
            Some(state) => {
                let (node, unit) = (self.node(1), units::API_SERVER);
                Err(self.not_up(node, unit, limit, state).await)
            }
        }
    }

    async fn pass(
        &self,
        gate: &Gate,
        limit: Duration,
        report: &dyn Report,
    ) -> Result<(), ClusterError> {
        let limit = self.host().limit(limit);
        let all: Vec<&Node> = self.nodes().iter().collect();
        let state = match gate {
            Gate::ApiReady { units: [a, b] } => {
                let lacking = async |api: kube::Client| Ok(ready(&api).await.err());
                let down = async || match self.unit_down(&all[..1], a).await {
                    Some(down) => Prospect::Hopeless(down),
                    None => self.unit_down(&all[..1], b).await.into(),
                };
                self.wait_unless(limit, report, down, lacking).await?
            }
            Gate::NodesRegistered(nodes) => {
                let lacking = async |api: kube::Client| nodes_missing(api, *nodes).await;
                let down = async || Prospect::from(self.unit_down(&all, units::KUBELET).await);
                self.wait_unless(limit, report, down, lacking).await?
            }
        };
        let Some(state) = state else {
            return Ok(());
        };
        let is_meant = |node: &&Node| state.starts_with(&format!("{} ", node.name()));
        let (node, unit) = match self.nodes().iter().find(is_meant) {
            Some(missing) => (missing, units::KUBELET),
            None => (self.node(1), units::API_SERVER),
        };
        Err(self.not_up(node, unit, limit, state).await)
    }
}

/// What kubeadm is at, in a line that begins with a phase in brackets; without what would move a
/// terminal's cursor.
fn phase_of(line: &str) -> Option<String> {
    let is_phase = line.starts_with('[') && line.contains("] ");
    is_phase.then(|| line.chars().filter(|char| !char.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeadm_tells_its_phases_and_nothing_to_the_terminal() {
        let said = "[certs] Using certificateDir folder \u{1b}[2J\"/etc/kubernetes/pki\"";
        assert_eq!(
            phase_of(said).as_deref(),
            Some("[certs] Using certificateDir folder [2J\"/etc/kubernetes/pki\"")
        );
        assert_eq!(
            phase_of("Your Kubernetes control-plane has initialized"),
            None
        );
    }

    #[test]
    fn a_hole_is_filled_wherever_it_is_named() {
        let file = |text: &str| NodeFile {
            path: "/a".to_owned(),
            mode: 0o600,
            text: text.to_owned(),
        };
        let files = [
            file(&format!("hash: {}", Hole::CaHash.name())),
            file("plain"),
        ];
        let known = Known(vec![(Hole::CaHash, "sha256:00ff".to_owned())]);
        assert_eq!(
            known.filled(&files),
            [file("hash: sha256:00ff"), file("plain")]
        );
        assert_eq!(Known::default().filled(&files), files);
    }
}
