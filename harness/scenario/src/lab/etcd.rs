//! kubeadm's etcd, of which each control plane node has a member.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::lab::Lab;
use crate::lab::command::Command;
use crate::lab::node::Node;

/// A question to members, or a change that they have to agree on.
const ASKED: Duration = Duration::from_secs(20);

/// etcdctl with kubeadm's certificates for it.
const ETCDCTL: &str = "etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt \
    --cert /etc/kubernetes/pki/etcd/server.crt --key /etc/kubernetes/pki/etcd/server.key \
    --dial-timeout 20s --command-timeout 60s";

/// A member of etcd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its node's name; empty before it has started.
    pub name: String,
    /// Its number, drawn when it was added.
    pub id: u64,
    /// Whether it counts for a quorum; one that has just joined learns first.
    pub votes: bool,
}

impl Lab {
    /// The members of etcd, as node 1's says, by name.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn etcd_members(&self) -> anyhow::Result<Vec<EtcdMember>> {
        let listed = self.etcdctl(&[self.node(1)], "member list -w json").await?;
        let members = members(listed.text());
        members.with_context(|| format!("no list of members: {listed}"))
    }

    /// etcdctl on node 1, which asks the members of these nodes.
    fn etcdctl(&self, of: &[Node<'_>], arguments: &str) -> Command<'_> {
        let endpoints = of.iter().map(|it| format!("https://{}:2379", it.address()));
        let endpoints: Vec<String> = endpoints.collect();
        let endpoints = endpoints.join(",");
        let line = format!("{ETCDCTL} --endpoints {endpoints} {arguments}");
        self.node(1).run(line).within(ASKED)
    }

    async fn etcd_member_of(&self, node: Node<'_>) -> anyhow::Result<EtcdMember> {
        let mut members = self.etcd_members().await?.into_iter();
        let found = members.find(|it| it.name == node.name());
        found.with_context(|| format!("{node} has no member of etcd"))
    }
}

impl Node<'_> {
    /// Makes its member of etcd the leader.
    ///
    /// # Errors
    /// When the leader does not agree.
    pub async fn leads_etcd(self) -> anyhow::Result<()> {
        let lab = self.lab();
        lab.step(format!("{self} leads etcd: etcdctl move-leader"));
        let member = lab.etcd_member_of(self).await?;
        let every: Vec<Node<'_>> = lab.nodes().collect();
        let asked = lab.etcdctl(&every, "endpoint status -w json").await?;
        let led = leader(asked.text()).with_context(|| format!("no leader: {asked}"))?;
        if led != member.id {
            let move_it = format!("move-leader {:x}", member.id);
            lab.etcdctl(&every, &move_it).await?;
        }
        Ok(())
    }

    /// Takes its member out of etcd, which then counts without it.
    ///
    /// # Errors
    /// When the others do not agree.
    pub async fn leaves_etcd(self) -> anyhow::Result<()> {
        let lab = self.lab();
        lab.step(format!("take {self} out of etcd: etcdctl member remove"));
        let member = lab.etcd_member_of(self).await?;
        let remove = format!("member remove {:x}", member.id);
        lab.etcdctl(&[lab.node(1)], &remove).await.map(drop)
    }
}

/// In what `etcdctl member list -w json` prints.
fn members(json: &str) -> Option<Vec<EtcdMember>> {
    let listed: Value = serde_json::from_str(json).ok()?;
    let member = |member: &Value| {
        Some(EtcdMember {
            name: member["name"].as_str().unwrap_or_default().to_owned(),
            id: member["ID"].as_u64()?,
            votes: !member["isLearner"].as_bool().unwrap_or_default(),
        })
    };
    let members = listed["members"].as_array()?.iter().map(member);
    let mut members = members.collect::<Option<Vec<_>>>()?;
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Some(members)
}

/// In what `etcdctl endpoint status -w json` prints of each: the leader's number.
fn leader(json: &str) -> Option<u64> {
    let of_each: Value = serde_json::from_str(json).ok()?;
    of_each[0]["Status"]["leader"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_the_leader_are_read_from_what_etcdctl_prints() {
        let listed = r#"{"header":{"member_id":9},"members":[
            {"ID":13803658152347727308,"name":"node2","peerURLs":["https://172.30.0.12:2380"],"isLearner":true},
            {"ID":7,"name":"node1","peerURLs":["https://172.30.0.11:2380"]}]}"#;
        let member = |name: &str, id, votes| EtcdMember {
            name: name.to_owned(),
            id,
            votes,
        };
        let wanted = vec![
            member("node1", 7, true),
            member("node2", 13_803_658_152_347_727_308, false),
        ];
        assert_eq!(members(listed), Some(wanted));
        assert_eq!(members("{}"), None);
        let status =
            r#"[{"Endpoint":"https://a:2379","Status":{"header":{"member_id":7},"leader":8}}]"#;
        assert_eq!(leader(status), Some(8));
        assert_eq!(leader("[]"), None);
    }
}
