//! The manifest: what kubectl is to apply, and which images its Pods run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use oci_spec::distribution::Reference;

use super::PodNetworkError;
use super::yaml::{NoYaml, Node, Value};
use crate::files::read_text;

/// A line of the manifest, as compilers show it: `calico.yaml:12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// A controller whose Pods are to run before the network is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// What it is.
    pub kind: ControllerKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Of which kind a controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerKind {
    /// A Pod per node.
    DaemonSet,
    /// A number of Pods.
    Deployment,
}

/// A manifest that can be applied to a cluster whose nodes reach no registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetworkManifest {
    /// File name.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// The images that its Pods run, in full (`docker.io/library/busybox:1`), and the first place
    /// that names each.
    pub images: BTreeMap<String, Place>,
    /// Its DaemonSets and Deployments.
    pub controllers: Vec<Controller>,
}

impl PodNetworkManifest {
    /// Reads a manifest: YAML documents or JSON.
    ///
    /// # Errors
    /// [`PodNetworkError::File`]; [`PodNetworkError::Manifest`] with the line of what does not
    /// parse, of what is no object of the API, and of a container that would have a node ask a
    /// registry.
    pub fn read(path: &Path) -> Result<Self, PodNetworkError> {
        let text = read_text(path).map_err(PodNetworkError::file("read", path))?;
        Self::parse(path, text)
    }

    fn parse(path: &Path, text: String) -> Result<Self, PodNetworkError> {
        let documents = Node::documents(&text).map_err(|NoYaml { line, reason }| {
            refused(path, line, format!("this is no YAML: {reason}"))
        })?;
        if documents.is_empty() {
            return Err(refused(path, 1, "there is nothing in it to apply".into()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut reader = Reader {
            path,
            images: BTreeMap::new(),
            controllers: Vec::new(),
        };
        for document in &documents {
            reader.object(document)?;
        }
        let Reader {
            images,
            controllers,
            ..
        } = reader;
        Ok(Self {
            name: name.into_owned(),
            text,
            images,
            controllers,
        })
    }
}

fn refused(path: &Path, line: u64, reason: String) -> PodNetworkError {
    let path = path.to_owned();
    PodNetworkError::Manifest {
        place: Place { path, line },
        reason,
    }
}

struct Reader<'a> {
    path: &'a Path,
    images: BTreeMap<String, Place>,
    controllers: Vec<Controller>,
}

impl Reader<'_> {
    fn refused(&self, node: &Node, reason: impl Into<String>) -> PodNetworkError {
        refused(self.path, node.line, reason.into())
    }

    fn object(&mut self, object: &Node) -> Result<(), PodNetworkError> {
        if !matches!(object.value, Value::Map(_)) {
            return Err(self.refused(object, "here is no object of the Kubernetes API"));
        }
        let field = |name: &str| {
            let text = object.get(name).and_then(Node::text);
            text.filter(|text| !text.is_empty())
                .ok_or_else(|| self.refused(object, format!("this object has no {name}")))
        };
        field("apiVersion")?;
        let kind = field("kind")?;
        if kind.ends_with("List")
            && let Some(items) = object.get("items").and_then(Node::list)
        {
            return items.iter().try_for_each(|item| self.object(item));
        }
        let controller = match kind {
            "DaemonSet" => Some(ControllerKind::DaemonSet),
            "Deployment" => Some(ControllerKind::Deployment),
            _ => None,
        };
        if let Some(kind) = controller {
            let of = |name: &str| object.at(&["metadata", name]).and_then(Node::text);
            let name = of("name").ok_or_else(|| self.refused(object, "this object has no name"))?;
            self.controllers.push(Controller {
                kind,
                namespace: of("namespace").unwrap_or("default").to_owned(),
                name: name.to_owned(),
            });
        }
        // Where the API has a PodSpec; other kinds may use the same names for other things.
        let path: &[&str] = match kind {
            "Pod" => &["spec"],
            "PodTemplate" => &["template", "spec"],
            "DaemonSet"
            | "Deployment"
            | "Job"
            | "ReplicaSet"
            | "ReplicationController"
            | "StatefulSet" => &["spec", "template", "spec"],
            "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
            _ => return Ok(()),
        };
        let Some(pod) = object.at(path) else {
            return Err(self.refused(object, format!("this {kind} has no {}", path.join("."))));
        };
        for name in ["initContainers", "containers"] {
            let Some(containers) = pod.get(name) else {
                continue;
            };
            let list = containers.list();
            let list =
                list.ok_or_else(|| self.refused(containers, format!("{name} is no list")))?;
            list.iter()
                .try_for_each(|container| self.container(container))?;
        }
        Ok(())
    }

    fn container(&mut self, container: &Node) -> Result<(), PodNetworkError> {
        let image = container.get("image");
        let Some((image, named)) = image.and_then(|image| Some((image, image.text()?))) else {
            return Err(self.refused(container, "this container has no image"));
        };
        let reference: Reference = named
            .parse()
            .map_err(|error| self.refused(image, format!("{named:?} names no image: {error}")))?;
        let policy = container.get("imagePullPolicy");
        match policy.map(|policy| (policy, policy.text())) {
            Some((_, Some("IfNotPresent" | "Never"))) => {}
            Some((policy, Some("Always"))) => {
                return Err(self.refused(
                    policy,
                    "imagePullPolicy: Always would have every node ask a registry, and nodes reach \
                     none; write IfNotPresent",
                ));
            }
            Some((policy, _)) => {
                return Err(self.refused(
                    policy,
                    "this imagePullPolicy is none of Kubernetes'; write IfNotPresent",
                ));
            }
            // Kubernetes' own default for this tag, and for none at all.
            None if reference.tag() == Some("latest") => {
                return Err(self.refused(
                    image,
                    format!(
                        "{named:?} without an imagePullPolicy means Always, which would have every \
                         node ask a registry, and nodes reach none; name a version's tag, or write \
                         imagePullPolicy: IfNotPresent beside it"
                    ),
                ));
            }
            None => {}
        }
        let line = image.line;
        let path = self.path.to_owned();
        self.images
            .entry(full_name(reference))
            .or_insert(Place { path, line });
        Ok(())
    }
}

/// The name under which a node's containerd looks for an image: with registry and, for Docker Hub,
/// `library/`; a digest wins over a tag.
pub(super) fn full_name(reference: Reference) -> String {
    match reference.digest() {
        Some(digest) => reference.clone_with_digest(digest.to_owned()).whole(),
        None => reference.whole(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PodNetworkManifest, String> {
        let parsed = PodNetworkManifest::parse(Path::new("net.yaml"), text.to_owned());
        parsed.map_err(|error| error.to_string())
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err()
    }

    /// A DaemonSet with one container of these lines.
    fn with(container: &str) -> String {
        let head = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: a}\nspec:\n  template:\n    spec:\n      containers:\n      - name: a\n";
        let lines = container.lines().map(|line| format!("        {line}\n"));
        head.to_owned() + &lines.collect::<String>()
    }

    #[test]
    fn every_pod_template_is_found_and_nothing_else() {
        let text = r#"
# a comment, an empty document, and a resource whose spec only looks like a Pod's
---
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pools.example.org}
spec:
  template: a text
  containers: 3
  numbers: {1: one, true: two}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: script}
data:
  run.yaml: |
    kind: Pod
    spec: {containers: [{image: "inner:1", imagePullPolicy: Always}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: kube-system}
spec:
  template:
    spec:
      initContainers:
      - name: install
        image: quay.io/org/cni:v1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
      containers:
      - {name: agent, image: "org/agent:v2", imagePullPolicy: IfNotPresent}
      - {name: again, image: "docker.io/org/agent:v2"}
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: controller}
  spec: {template: {spec: {containers: [{name: c, image: busybox, imagePullPolicy: Never}]}}}
- {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: p, image: "localhost:5000/p:1"}]}}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: n}
  spec: {jobTemplate: {spec: {template: {spec: {initContainers: null, containers: [{name: n, image: "night:1"}]}}}}}
"#;
        let manifest = parse(text).unwrap();
        let images: Vec<String> = manifest
            .images
            .iter()
            .map(|(name, place)| format!("{place} {name}"))
            .collect();
        insta::assert_snapshot!(images.join("\n"), @"
        net.yaml:40 docker.io/library/busybox:latest
        net.yaml:45 docker.io/library/night:1
        net.yaml:31 docker.io/org/agent:v2
        net.yaml:41 localhost:5000/p:1
        net.yaml:29 quay.io/org/cni@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        ");
        let controllers: Vec<String> = manifest
            .controllers
            .iter()
            .map(|it| format!("{:?} {}/{}", it.kind, it.namespace, it.name))
            .collect();
        assert_eq!(
            controllers,
            [
                "DaemonSet kube-system/agent",
                "Deployment default/controller"
            ]
        );
        assert_eq!(manifest.name, "net.yaml");
    }

    #[test]
    fn json_is_yaml() {
        let text = r#"{"apiVersion": "v1", "kind": "Pod",
            "spec": {"containers": [
                {"name": "a", "image": "a:1"}]}}"#;
        let images = parse(text).unwrap().images;
        assert_eq!(images["docker.io/library/a:1"].line, 3);
    }

    #[test]
    fn what_would_ask_a_registry_is_refused_with_its_line() {
        insta::assert_snapshot!(refusal(&with("image: a:1\nimagePullPolicy: Always")), @"net.yaml:10: imagePullPolicy: Always would have every node ask a registry, and nodes reach none; write IfNotPresent");
        insta::assert_snapshot!(refusal(&with("image: a:1\nimagePullPolicy: Sometimes")), @"net.yaml:10: this imagePullPolicy is none of Kubernetes'; write IfNotPresent");
        insta::assert_snapshot!(refusal(&with("image: a")), @r#"net.yaml:9: "a" without an imagePullPolicy means Always, which would have every node ask a registry, and nodes reach none; name a version's tag, or write imagePullPolicy: IfNotPresent beside it"#);
        insta::assert_snapshot!(refusal(&with("image: quay.io/a:latest")), @r#"net.yaml:9: "quay.io/a:latest" without an imagePullPolicy means Always, which would have every node ask a registry, and nodes reach none; name a version's tag, or write imagePullPolicy: IfNotPresent beside it"#);
        for good in [
            "image: a:1",
            "image: a\nimagePullPolicy: Never",
            "image: a:latest\nimagePullPolicy: IfNotPresent",
        ] {
            assert_eq!(parse(&with(good)).unwrap().images.len(), 1, "{good}");
        }
    }

    #[test]
    fn what_kubectl_could_not_apply_is_refused_with_its_line() {
        let pod = "apiVersion: v1\nkind: Pod\nspec: {containers: []}\n";
        insta::assert_snapshot!(refusal(&format!("{pod}---\nkind: Pod\n")), @"net.yaml:5: this object has no apiVersion");
        insta::assert_snapshot!(refusal(&format!("{pod}---\napiVersion: v1\nkind: ''\n")), @"net.yaml:5: this object has no kind");
        insta::assert_snapshot!(refusal(&format!("{pod}---\n- a\n")), @"net.yaml:5: here is no object of the Kubernetes API");
        insta::assert_snapshot!(refusal(&format!("{pod}---\na: {{{{ .Values.a }}}}\n")), @"net.yaml:5: this object has no apiVersion");
        insta::assert_snapshot!(refusal("a:\n  b: 1\n c: 2\n"), @"net.yaml:3: this is no YAML: while parsing a block mapping, did not find expected key at line 3, column 2");
        insta::assert_snapshot!(refusal("apiVersion: v1\nkind: Pod\nkind: Pod\n"), @"net.yaml:3: this is no YAML: duplicate mapping key `kind` is not allowed here at line 3, column 1");
        insta::assert_snapshot!(refusal(" \n# nothing\n---\n"), @"net.yaml:1: there is nothing in it to apply");
        insta::assert_snapshot!(refusal("apiVersion: v1\nkind: Pod\nmetadata: {}\n"), @"net.yaml:1: this Pod has no spec");
        insta::assert_snapshot!(refusal(&with("command: [a]")), @"net.yaml:8: this container has no image");
        insta::assert_snapshot!(refusal(&with("image: A B")), @r#"net.yaml:9: "A B" names no image: invalid reference format"#);
        insta::assert_snapshot!(refusal("apiVersion: v1\nkind: Pod\nspec:\n  containers: {a: b}\n"), @"net.yaml:4: containers is no list");
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        let block = |depth: usize| -> String {
            (0..depth)
                .map(|n| format!("{}a:\n", " ".repeat(n)))
                .collect()
        };
        let list = |depth: usize| {
            "{apiVersion: v1, kind: List, items: [".repeat(depth) + &"]}".repeat(depth)
        };
        for depth in [100, 1000, 20_000] {
            for text in [
                "[".repeat(depth) + &"]".repeat(depth),
                "{a: ".repeat(depth) + &"}".repeat(depth),
                "[".repeat(depth),
                "- ".repeat(depth),
                block(depth.min(1000)),
                list(depth),
            ] {
                let begin = &text[..30];
                let refused = refusal(&text);
                assert!(
                    refused.contains("this is no YAML"),
                    "{depth} {begin}: {refused}"
                );
            }
        }
        // Schemas of resources are nested deepest.
        let pod = "apiVersion: v1\nkind: Pod\nspec: {containers: []}\nstatus: ";
        let text = format!("{pod}{}{}", "[".repeat(60), "]".repeat(60));
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn a_file_that_is_none_is_not_read_without_end() {
        let error = PodNetworkManifest::read(Path::new("/dev/zero")).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            (error.to_string().as_str(), source.as_str()),
            ("cannot read \"/dev/zero\"", "it has more than 16.0 MiB")
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = PodNetworkManifest::read(Path::new("/nowhere/net.yaml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read \"/nowhere/net.yaml\"");
    }
}
