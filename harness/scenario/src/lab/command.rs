//! A command on a node, and its answer.

use std::pin::Pin;
use std::time::Duration;

use anyhow::bail;
use futures::future::try_join_all;
pub use podwire_vm::Output as Answer;
use serde_json::Value;

use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::node::Node;

/// What an ordinary command may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The administrator's kubeconfig on node 1, whoever made the cluster.
const ADMINISTRATOR: &str = "/root/.kube/config";
/// `kubectl`, unless it waits for something.
const KUBECTL: Duration = Duration::from_secs(20);

/// A command line of root's shell on a node, carried out when it is awaited. It must exit with 0, or
/// else the scenario could not be carried out; one that may do otherwise says so
/// ([`Command::may_fail`]).
#[must_use = "a command is carried out when it is awaited"]
pub struct Command<'lab> {
    node: Node<'lab>,
    line: String,
    limit: Duration,
    may_fail: bool,
}

impl<'lab> Node<'lab> {
    /// A command line of root's shell; see [`Command`].
    pub fn run(self, line: impl Into<String>) -> Command<'lab> {
        Command {
            node: self,
            line: line.into(),
            limit: LIMIT,
            may_fail: false,
        }
    }

    /// A program with its arguments, run by an ordinary user, `nobody`.
    pub fn run_as_nobody(self, program: &str) -> Command<'lab> {
        self.run(format!(
            "setpriv --reuid nobody --regid nogroup --clear-groups {program}"
        ))
    }
}

impl<'lab> Command<'lab> {
    /// The same with another limit than ten seconds; stretched like all limits.
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The same, whatever its exit status: the [`Answer`] says which.
    pub fn may_fail(self) -> Self {
        Self {
            may_fail: true,
            ..self
        }
    }

    async fn carry_out(self) -> anyhow::Result<Answer> {
        let limit = self.node.lab().limit(self.limit);
        let answer = self.node.as_machine().run(&self.line, limit).await?;
        if !self.may_fail && !answer.succeeded() {
            bail!("`{}` on {} failed: {answer}", self.line, self.node);
        }
        Ok(answer)
    }
}

impl<'lab> IntoFuture for Command<'lab> {
    type Output = anyhow::Result<Answer>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'lab>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.carry_out())
    }
}

impl Lab {
    /// `kubectl` on node 1, as the administrator: `lab.kubectl("get nodes")`.
    pub fn kubectl(&self, arguments: impl AsRef<str>) -> Command<'_> {
        let command = format!(
            "kubectl --kubeconfig {} {}",
            ADMINISTRATOR,
            arguments.as_ref()
        );
        self.node(1).run(command).within(KUBECTL)
    }

    /// `kubectl apply` of an object in its full form, or of a `List`, on node 1 as the administrator: for a
    /// cluster whose API only node 1 can ask, where [`Lab::apply`] cannot.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn kubectl_apply(&self, object: &Value) -> anyhow::Result<()> {
        let path = "/root/objects.json";
        self.node(1).write(path, object.to_string()).await?;
        // To validate, kubectl asks for the whole schema, within 32 s of its own, which guests of a busy host
        // do not keep; the API server refuses by itself here what is not in it.
        self.kubectl(format!("apply --server-side --validate=false -f {path}"))
            .await
            .map(drop)
    }

    /// A command line of root's shell in the network of a Pod of one container, with its node's programs;
    /// the Pod's own files are below `$root`.
    pub fn run_in_network_of(&self, pod: &Party, line: impl AsRef<str>) -> Command<'_> {
        let (name, line) = (&pod.name, line.as_ref());
        let line = format!(
            "id=$(crictl ps -q --label io.kubernetes.pod.name={name}) && \
             pid=$(crictl inspect -o go-template --template '{{{{.info.pid}}}}' $id) && \
             root=/proc/$pid/root nsenter --net --target $pid bash -s <<'END'\n{line}\nEND"
        );
        self.node(pod.node).run(line)
    }

    /// The same command on every node at once, as [`Node::run`]: the nodes by number, each with its
    /// answer.
    ///
    /// # Errors
    /// When it fails on one of them.
    pub async fn run_everywhere(&self, line: &str) -> anyhow::Result<Vec<(Node<'_>, Answer)>> {
        let asked = self
            .nodes()
            .map(|node| async move { Ok((node, node.run(line).await?)) });
        try_join_all(asked).await
    }
}
