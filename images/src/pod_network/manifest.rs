//! The manifest: what kubectl is to apply, and which images its Pods run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use oci_spec::distribution::Reference;

use super::archive::ImageArchive;
use super::policy::Edits;
use super::yaml::{Node, Value};
use super::{PodNetworkError, foreign};
use crate::files::read_text;
use crate::yaml::NoYaml;

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
    /// Where the manifest has it.
    pub place: Place,
}

/// What the nodes offer, with which a manifest has to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The range of all Pods, of which each Node has a part.
    pub pods: Ipv4Net,
    /// Whether containers that would have a node ask a registry take what the node has instead.
    pub pull_policy_as_present: bool,
    /// Whether it is for clusters by hand too, which have none of the objects that kubeadm makes.
    pub by_hand: bool,
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
    /// The whole text, as it is applied.
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
    /// parse, of what no API server of these nodes takes, and of what cannot work on them: a container
    /// that would have a node ask a registry, a range of Pods that is not theirs.
    pub fn read(path: &Path, terms: Terms) -> Result<Self, PodNetworkError> {
        let text = read_text(path).map_err(PodNetworkError::file("read", path))?;
        Self::parse(path, text, terms)
    }

    fn parse(path: &Path, text: String, terms: Terms) -> Result<Self, PodNetworkError> {
        let Reader {
            images,
            controllers,
            edits,
            ..
        } = Reader::read(path, &text, terms)?;
        let text = match edits.is_empty() {
            true => text,
            false => as_present(path, edits.written(text), terms)?,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: name.into_owned(),
            text,
            images,
            controllers,
        })
    }

    /// Asks whether there is anything whose Pods could be waited for, and whether what runs on the nodes is known.
    ///
    /// # Errors
    /// [`PodNetworkError::Manifest`] for a file that starts nothing, and for an operator alone, whose images
    /// neither it nor an archive names.
    pub fn check(&self, path: &Path, archives: &[ImageArchive]) -> Result<(), PodNetworkError> {
        let mut controllers = self.controllers.iter();
        if controllers.any(|it| it.kind == ControllerKind::DaemonSet) {
            return Ok(());
        }
        let Some(operator) = self.controllers.first() else {
            let reason = "there is no DaemonSet and no Deployment in it, so that nothing of it would run on the \
                          nodes, and nothing could be waited for; give the manifest that starts the network's \
                          Pods, with these objects in the same file";
            return Err(refused(path, 1, reason.to_owned()));
        };
        let mut held = archives.iter().flat_map(|archive| &archive.held);
        if held.any(|image| !self.images.keys().any(|it| image.is(it))) {
            return Ok(());
        }
        Err(PodNetworkError::Manifest {
            place: operator.place.clone(),
            reason: format!(
                "there is no DaemonSet in it: what runs on the nodes is started by {}/{}, of images that nobody \
                 names here, and nodes reach no registry; give the manifest of what it starts, or archives of \
                 those images beside it (--pod-images)",
                operator.namespace, operator.name
            ),
        })
    }
}

/// The text that is written so that no container has a node ask a registry, once that is sure.
fn as_present(path: &Path, written: String, terms: Terms) -> Result<String, PodNetworkError> {
    let strictly = Terms {
        pull_policy_as_present: false,
        ..terms
    };
    match Reader::read(path, &written, strictly) {
        Ok(_) => Ok(written),
        Err(PodNetworkError::Manifest { place, reason }) => {
            let reason = format!(
                "--pull-policy-as-present cannot write this file anew, for line {} of it would then be refused \
                 ({reason}); write imagePullPolicy: IfNotPresent there yourself",
                place.line
            );
            Err(refused(path, 1, reason))
        }
        Err(other) => Err(other),
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
    text: &'a str,
    terms: Terms,
    images: BTreeMap<String, Place>,
    controllers: Vec<Controller>,
    /// Of CustomResourceDefinitions: group and kind.
    defined: BTreeSet<(String, String)>,
    /// Of groups that no API server has by itself: group, kind, line.
    others: Vec<(String, String, u64)>,
    edits: Edits,
    /// See [`foreign::KUBEADM_S`]: those of the file, by kind and namespace.
    brought: BTreeSet<(String, String)>,
    /// Those that a volume is of: kind, namespace, line.
    wanted: Vec<(&'static str, String, u64)>,
}

impl<'a> Reader<'a> {
    fn read(path: &'a Path, text: &'a str, terms: Terms) -> Result<Self, PodNetworkError> {
        let documents = Node::documents(text).map_err(|NoYaml { line, reason }| {
            match foreign::template(text) {
                Some(line) => refused(path, line, foreign::RENDERED.to_owned()),
                None => refused(path, line, format!("this is no YAML: {reason}")),
            }
        })?;
        if documents.is_empty() {
            return Err(refused(path, 1, "there is nothing in it to apply".into()));
        }
        let mut reader = Self {
            path,
            text,
            terms,
            images: BTreeMap::new(),
            controllers: Vec::new(),
            defined: BTreeSet::new(),
            others: Vec::new(),
            edits: Edits::default(),
            brought: BTreeSet::new(),
            wanted: Vec::new(),
        };
        for document in &documents {
            reader.object(document)?;
        }
        reader.whole()?;
        Ok(reader)
    }

    /// What only the whole file tells.
    fn whole(&self) -> Result<(), PodNetworkError> {
        let unknown = |(group, kind, _): &&(String, String, u64)| {
            !self.defined.contains(&(group.clone(), kind.clone()))
        };
        if let Some((group, kind, line)) = self.others.iter().find(unknown) {
            let reason = foreign::undefined(group, kind);
            return Err(refused(self.path, *line, reason));
        }
        let absent = |(kind, namespace, _): &&(&str, String, u64)| {
            let made = *kind == "ConfigMap" && namespace == "kube-system" && !self.terms.by_hand;
            let key = ((*kind).to_owned(), namespace.clone());
            !made && !self.brought.contains(&key)
        };
        if let Some((kind, namespace, line)) = self.wanted.iter().find(absent) {
            return Err(refused(self.path, *line, foreign::absent(kind, namespace)));
        }
        let (group, kind) = foreign::ATTACHMENT;
        let of_multus = self.defined.contains(&(group.to_owned(), kind.to_owned()));
        if let [alone] = self.controllers.as_slice()
            && of_multus
        {
            return Err(PodNetworkError::Manifest {
                place: alone.place.clone(),
                reason: format!(
                    "{} hands each Pod to another network's CNI plugin, and this file has none: put the manifest of \
                     that network into it as well",
                    alone.name
                ),
            });
        }
        Ok(())
    }

    fn refused(&self, node: &Node, reason: impl Into<String>) -> PodNetworkError {
        refused(self.path, node.line, reason.into())
    }

    fn place(&self, node: &Node) -> Place {
        Place {
            path: self.path.to_owned(),
            line: node.line,
        }
    }

    fn object(&mut self, object: &Node) -> Result<(), PodNetworkError> {
        if !matches!(object.value, Value::Map(_)) {
            return Err(self.refused(object, "here is no object of the Kubernetes API"));
        }
        if let Some(said) = foreign::no_object(object) {
            return Err(self.refused(object, said));
        }
        let field = |name: &str| {
            let text = object.get(name).and_then(Node::text);
            text.filter(|text| !text.is_empty())
                .ok_or_else(|| self.refused(object, format!("this object has no {name}")))
        };
        let version = field("apiVersion")?;
        let kind = field("kind")?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        if let Some(said) = foreign::configuration(group) {
            return Err(self.refused(object, said));
        }
        if kind.ends_with("List")
            && let Some(items) = object.get("items").and_then(Node::list)
        {
            return items.iter().try_for_each(|item| self.object(item));
        }
        if !foreign::is_served(group) {
            let other = (group.to_owned(), kind.to_owned(), object.line);
            self.others.push(other);
        }
        if kind == "CustomResourceDefinition" {
            self.defined.extend(foreign::defined(object));
        }
        let of = |name: &str| object.at(&["metadata", name]).and_then(Node::text);
        let namespace = of("namespace").unwrap_or("default");
        if of("name") == Some(foreign::KUBEADM_S) {
            self.brought.insert((kind.to_owned(), namespace.to_owned()));
        }
        if kind == "ConfigMap" {
            self.pod_range(object)?;
            if let Some((value, said)) = foreign::kube_proxy_replaced(object) {
                return Err(self.refused(value, said));
            }
        }
        let controller = match kind {
            "DaemonSet" => Some(ControllerKind::DaemonSet),
            "Deployment" => Some(ControllerKind::Deployment),
            _ => None,
        };
        if let Some(kind) = controller {
            let name = of("name").ok_or_else(|| self.refused(object, "this object has no name"))?;
            self.controllers.push(Controller {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                place: self.place(object),
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
        let wanted = foreign::volumes_of_kubeadm_s(pod);
        let wanted = wanted.map(|(kind, line)| (kind, namespace.to_owned(), line));
        self.wanted.extend(wanted);
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
        if let Some((argument, said)) = foreign::second_service_proxy(container) {
            return Err(self.refused(argument, said));
        }
        let image = container.get("image");
        let Some((image, named)) = image.and_then(|image| Some((image, image.text()?))) else {
            return Err(self.refused(container, "this container has no image"));
        };
        let reference: Reference = named.parse().map_err(|error| {
            let reason = match named.contains("{{") {
                true => foreign::RENDERED.to_owned(),
                false => format!("{named:?} names no image: {error}"),
            };
            self.refused(image, reason)
        })?;
        let as_present = self.terms.pull_policy_as_present;
        let policy = container.get("imagePullPolicy");
        match policy.map(|policy| (policy, policy.text())) {
            Some((_, Some("IfNotPresent" | "Never"))) => {}
            Some((policy, Some("Always"))) if as_present => {
                let edit = self.edits.replace(self.text, policy);
                edit.ok_or_else(|| {
                    self.refused(
                        policy,
                        "imagePullPolicy: Always would have every node ask a registry, and nodes reach none; \
                         --pull-policy-as-present leaves alone what has an anchor or is more than a word; write \
                         IfNotPresent",
                    )
                })?;
            }
            Some((policy, Some("Always"))) => {
                return Err(self.refused(
                    policy,
                    "imagePullPolicy: Always would have every node ask a registry, and nodes reach \
                     none; write IfNotPresent, or add --pull-policy-as-present, which reads it as that",
                ));
            }
            Some((policy, _)) => {
                return Err(self.refused(
                    policy,
                    "this imagePullPolicy is none of Kubernetes'; write IfNotPresent",
                ));
            }
            // Kubernetes' own default for this tag, and for none at all.
            None if reference.tag() == Some("latest") && as_present => {
                let edit = self.edits.add(self.text, container);
                edit.ok_or_else(|| {
                    self.refused(
                        container,
                        "--pull-policy-as-present finds no place here; write imagePullPolicy: IfNotPresent",
                    )
                })?;
            }
            None if reference.tag() == Some("latest") => {
                return Err(self.refused(
                    image,
                    format!(
                        "{named:?} without an imagePullPolicy means Always, which would have every \
                         node ask a registry, and nodes reach none; name a version's tag, write \
                         imagePullPolicy: IfNotPresent beside it, or add --pull-policy-as-present"
                    ),
                ));
            }
            None => {}
        }
        let place = self.place(image);
        self.images.entry(full_name(reference)).or_insert(place);
        Ok(())
    }

    /// flannel gives a node nothing whose part of the Pods' range is not in its own.
    fn pod_range(&self, object: &Node) -> Result<(), PodNetworkError> {
        let Some((value, range)) = foreign::flannel_range(object) else {
            return Ok(());
        };
        let pods = self.terms.pods;
        if range
            .parse()
            .is_ok_and(|range: Ipv4Net| range.contains(&pods))
        {
            return Ok(());
        }
        let reason = format!(
            "the Network of net-conf.json is {range}, and the Pods of these nodes are in {pods}, so that flannel \
             would give them no address; write \"Network\": \"{pods}\""
        );
        Err(self.refused(value, reason))
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
mod published;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::pod_network::archive::tests::oci_archive;

    const AS_WRITTEN: Terms = Terms {
        pods: Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 16),
        pull_policy_as_present: false,
        by_hand: true,
    };

    fn on(terms: Terms, text: &str) -> Result<PodNetworkManifest, String> {
        let parsed = PodNetworkManifest::parse(Path::new("net.yaml"), text.to_owned(), terms);
        parsed.map_err(|error| error.to_string())
    }

    fn parse(text: &str) -> Result<PodNetworkManifest, String> {
        on(AS_WRITTEN, text)
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
        insta::assert_snapshot!(refusal(&with("image: a:1\nimagePullPolicy: Always")), @"net.yaml:10: imagePullPolicy: Always would have every node ask a registry, and nodes reach none; write IfNotPresent, or add --pull-policy-as-present, which reads it as that");
        insta::assert_snapshot!(refusal(&with("image: a:1\nimagePullPolicy: Sometimes")), @"net.yaml:10: this imagePullPolicy is none of Kubernetes'; write IfNotPresent");
        insta::assert_snapshot!(refusal(&with("image: a")), @r#"net.yaml:9: "a" without an imagePullPolicy means Always, which would have every node ask a registry, and nodes reach none; name a version's tag, write imagePullPolicy: IfNotPresent beside it, or add --pull-policy-as-present"#);
        insta::assert_snapshot!(refusal(&with("image: quay.io/a:latest")), @r#"net.yaml:9: "quay.io/a:latest" without an imagePullPolicy means Always, which would have every node ask a registry, and nodes reach none; name a version's tag, write imagePullPolicy: IfNotPresent beside it, or add --pull-policy-as-present"#);
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
        insta::assert_snapshot!(refusal(&format!("{pod}---\na: {{{{ .Values.a }}}}\n")), @"net.yaml:5: this is a template of a Helm chart; give what Helm makes of it: `helm template CHART > FILE`");
        insta::assert_snapshot!(refusal("a:\n  b: 1\n c: 2\n"), @"net.yaml:3: this is no YAML: while parsing a block mapping, did not find expected key at line 3, column 2");
        insta::assert_snapshot!(refusal("apiVersion: v1\nkind: Pod\nkind: Pod\n"), @"net.yaml:3: this is no YAML: duplicate mapping key `kind` is not allowed here at line 3, column 1");
        insta::assert_snapshot!(refusal(" \n# nothing\n---\n"), @"net.yaml:1: there is nothing in it to apply");
        insta::assert_snapshot!(refusal("apiVersion: v1\nkind: Pod\nmetadata: {}\n"), @"net.yaml:1: this Pod has no spec");
        insta::assert_snapshot!(refusal(&with("command: [a]")), @"net.yaml:8: this container has no image");
        insta::assert_snapshot!(refusal(&with("image: A B")), @r#"net.yaml:9: "A B" names no image: invalid reference format"#);
        insta::assert_snapshot!(refusal("apiVersion: v1\nkind: Pod\nspec:\n  containers: {a: b}\n"), @"net.yaml:4: containers is no list");
    }

    #[test]
    fn a_policy_that_would_ask_a_registry_is_read_as_what_is_present_when_asked_to() {
        let as_present = Terms {
            pull_policy_as_present: true,
            ..AS_WRITTEN
        };
        let text = |container: &str| on(as_present, &with(container)).map(|it| it.text);
        for (given, applied) in [
            (
                "image: a:1\nimagePullPolicy: Always",
                "image: a:1\nimagePullPolicy: IfNotPresent",
            ),
            (
                "image: a:1\nimagePullPolicy: 'Always' # new",
                "image: a:1\nimagePullPolicy: 'IfNotPresent' # new",
            ),
            // As it was.
            (
                "image: a\nimagePullPolicy: Never",
                "image: a\nimagePullPolicy: Never",
            ),
            ("image: a:1\nargs: [Always]", "image: a:1\nargs: [Always]"),
        ] {
            assert_eq!(text(given), Ok(with(applied)), "{given}");
        }
        // What was a list's first field is not the first any more.
        let head = with("").replace("      - name: a\n", "");
        for given in [
            "image: a:latest",
            "image: 'a' # new\ncommand: [a]",
            "image: >-\n  a:latest\nargs: [Always]",
        ] {
            let rest = given.replace('\n', "\n        ");
            assert_eq!(
                on(as_present, &format!("{head}      - {rest}\n"))
                    .unwrap()
                    .text,
                format!("{head}      - imagePullPolicy: IfNotPresent\n        {rest}\n"),
                "{given}"
            );
        }
        // Places are those of the file, whatever was put in before them.
        let two = format!("{head}      - image: a\n      - image: b:1");
        let images = on(as_present, &two).unwrap().images;
        assert_eq!(images["docker.io/library/b:1"].line, 9);
    }

    #[test]
    fn in_flow_style_and_json_nothing_but_policies_is_written_anew() {
        let as_present = Terms {
            pull_policy_as_present: true,
            ..AS_WRITTEN
        };
        let text = |text: &str| on(as_present, text).map(|it| it.text);
        let pod = |containers: &str| {
            let head = "# \u{e4}\r\napiVersion: v1\nkind: Pod\nspec:\n  restartPolicy: Always\n  containers: ";
            format!("{head}{containers}")
        };
        for (given, applied) in [
            (
                r#"[{"image": "a", "imagePullPolicy": "Always"}, {"image": "b:1", "imagePullPolicy": "Always"}]"#,
                r#"[{"image": "a", "imagePullPolicy": "IfNotPresent"}, {"image": "b:1", "imagePullPolicy": "IfNotPresent"}]"#,
            ),
            (
                "[{image: a}]",
                r#"[{"imagePullPolicy": "IfNotPresent", image: a}]"#,
            ),
            (
                "\n  - image: a:1\n  - {image: b}\n",
                "\n  - image: a:1\n  - {\"imagePullPolicy\": \"IfNotPresent\", image: b}\n",
            ),
            (
                "\n  - {name: Always, args: [Always], imagePullPolicy: Always, image: b}\n",
                "\n  - {name: Always, args: [Always], imagePullPolicy: IfNotPresent, image: b}\n",
            ),
            // Once, however many aliases stand for it.
            (
                "[&a {image: b}, *a]",
                r#"[&a {"imagePullPolicy": "IfNotPresent", image: b}, *a]"#,
            ),
        ] {
            assert_eq!(text(&pod(given)), Ok(pod(applied)), "{given}");
        }
        // As of `kubectl get daemonset -o json | jq -c`, and without jq.
        let json = |containers: &str| {
            let head = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"a"},"spec":{"template":{"spec":{"containers":["#;
            let tail = r#"],"restartPolicy":"Always","dnsPolicy":"ClusterFirst"}}}}]}"#;
            format!("{head}{containers}{tail}")
        };
        assert_eq!(
            text(&json(
                r#"{"image":"a","imagePullPolicy":"Always","name":"a"}"#
            )),
            Ok(json(
                r#"{"image":"a","imagePullPolicy":"IfNotPresent","name":"a"}"#
            ))
        );
        assert_eq!(
            text(&json("\n    {\n      \"image\": \"a\"\n    }\n  ")),
            Ok(json(
                "\n    {\"imagePullPolicy\": \"IfNotPresent\", \n      \"image\": \"a\"\n    }\n  "
            ))
        );
        let after_others = format!(
            "\u{feff}{}\n---\n{}",
            pod("[]").replace("\r\n", "\n"),
            with("image: a:1\nimagePullPolicy: \"Always\"")
        );
        assert_eq!(
            text(&after_others),
            Ok(after_others.replace("\"Always\"", "\"IfNotPresent\""))
        );
    }

    #[test]
    fn what_the_flag_cannot_write_anew_is_said_without_advising_it() {
        let as_present = Terms {
            pull_policy_as_present: true,
            ..AS_WRITTEN
        };
        let refusal = |container: &str| on(as_present, &with(container)).unwrap_err();
        insta::assert_snapshot!(refusal("command: [&a Always]\nimage: a:1\nimagePullPolicy: *a"), @"net.yaml:11: imagePullPolicy: Always would have every node ask a registry, and nodes reach none; --pull-policy-as-present leaves alone what has an anchor or is more than a word; write IfNotPresent");
        insta::assert_snapshot!(refusal("image: a:1\nimagePullPolicy: |-\n  Always"), @"net.yaml:11: imagePullPolicy: Always would have every node ask a registry, and nodes reach none; --pull-policy-as-present leaves alone what has an anchor or is more than a word; write IfNotPresent");
        insta::assert_snapshot!(refusal("image: a\nimagePullPolicy:"), @"net.yaml:1: --pull-policy-as-present cannot write this file anew, for line 11 of it would then be refused (this is no YAML: duplicate mapping key `imagePullPolicy` is not allowed here at line 11, column 9); write imagePullPolicy: IfNotPresent there yourself");
    }

    #[test]
    fn what_is_beside_kube_proxy_and_would_do_the_same_is_refused() {
        let cilium = |value: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cilium-config}}\ndata:\n  kube-proxy-replacement: {value}\n"
            )
        };
        insta::assert_snapshot!(refusal(&cilium("\"true\"")), @r#"net.yaml:5: Cilium would carry the Services here, and kube-proxy runs on these nodes: packets would not meet its rules, nor those that sabotages write; write kube-proxy-replacement: "false" (and routing-mode: native, enable-host-legacy-routing: "true", without which Pods' packets pass by the nodes' rules as well), or take --pod-network cilium, which has all that"#);
        assert!(parse(&cilium("\"false\"")).is_ok());
        insta::assert_snapshot!(refusal(&with("image: a:1\nargs:\n- --run-router\n- --run-service-proxy=true")), @"net.yaml:12: kube-router would carry the Services here, and kube-proxy runs on these nodes and does so already; write --run-service-proxy=false");
        assert!(refusal(&with("image: a:1\ncommand: [a, --run-service-proxy]")).contains("=false"));
        assert!(parse(&with("image: a:1\nargs: [--run-service-proxy=false]")).is_ok());
    }

    #[test]
    fn a_volume_of_something_that_only_kubeadm_makes_is_refused_by_hand() {
        let of = |namespace: &str, volume: &str| {
            let text = with("image: a:1")
                + "      volumes:\n      - name: kubeconfig\n        "
                + volume
                + "\n";
            text.replace("{name: a}", &format!("{{name: a, namespace: {namespace}}}"))
        };
        let kubeadm = Terms {
            by_hand: false,
            ..AS_WRITTEN
        };
        let own = of("kube-system", "configMap: {name: kube-proxy}");
        insta::assert_snapshot!(refusal(&own), @"net.yaml:12: this volume is of the ConfigMap kube-system/kube-proxy, which is not in this file and which clusters by hand do not have, so that the Pod would never start; add it to this file, or take clusters where kubeadm makes it (--bootstrap kubeadm)");
        assert!(on(kubeadm, &own).is_ok());
        let brought = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-proxy, namespace: kube-system}\n";
        assert!(parse(&(own + brought)).is_ok());
        assert!(
            parse(&of(
                "kube-system",
                "configMap: {name: kube-proxy, optional: true}"
            ))
            .is_ok()
        );
        let secret = of("kube-system", "secret: {secretName: kube-proxy}");
        let said = on(kubeadm, &secret).unwrap_err();
        insta::assert_snapshot!(said, @"net.yaml:12: this volume is of the Secret kube-system/kube-proxy, which is not in this file and which no cluster here has, so that the Pod would never start; add it to this file");
        assert!(on(kubeadm, &of("other", "configMap: {name: kube-proxy}")).is_err());
        assert!(parse(&of("kube-system", "configMap: {name: another}")).is_ok());
    }

    #[test]
    fn other_files_are_told_by_what_they_are() {
        insta::assert_snapshot!(refusal("{\"cniVersion\": \"0.3.1\", \"plugins\": [{\"type\": \"bridge\"}]}"), @"net.yaml:1: this is a configuration of CNI, which a node's container engine reads from /etc/cni/net.d; lay it over the nodes' own files (--node-files DIR, in DIR/etc/cni/net.d)");
        insta::assert_snapshot!(refusal("{\"name\": \"mynet\", \"type\": \"bridge\", \"ipam\": {\"type\": \"host-local\"}}"), @"net.yaml:1: this is a configuration of CNI, which a node's container engine reads from /etc/cni/net.d; lay it over the nodes' own files (--node-files DIR, in DIR/etc/cni/net.d)");
        insta::assert_snapshot!(refusal("apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n"), @"net.yaml:1: kubeadm reads this: --kubeadm-config FILE gives it that; here is the place of what is applied once the cluster is there");
        insta::assert_snapshot!(refusal("kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\n"), @"net.yaml:1: kube-proxy reads this: --kube-proxy-config FILE gives it that; here is the place of what is applied to the cluster");
        insta::assert_snapshot!(refusal("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"), @"net.yaml:1: kind makes clusters by this, and podwire by its own flags; give the manifest of the Pod network that is to be in them");
        insta::assert_snapshot!(refusal("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yml]\n"), @"net.yaml:1: kustomize reads this; give what it makes of it: `kubectl kustomize FOLDER > FILE`");
        insta::assert_snapshot!(refusal("global:\n  imagePullSecrets:\npodCidr: 10.244.0.0/16\n"), @"net.yaml:1: this object has neither apiVersion nor kind; where these are the values of a Helm chart, give what it makes of them: `helm template CHART --values VALUES > FILE`");
        insta::assert_snapshot!(refusal("---\n{{- if .Values.flannel }}\nkind: DaemonSet\n{{- end }}\n"), @"net.yaml:2: this is a template of a Helm chart; give what Helm makes of it: `helm template CHART > FILE`");
        insta::assert_snapshot!(refusal(&with("image: \"{{ .Values.image }}\"")), @"net.yaml:9: this is a template of a Helm chart; give what Helm makes of it: `helm template CHART > FILE`");
        insta::assert_snapshot!(refusal("? [a]\n: b\n"), @"net.yaml:1: this is no YAML: a map or a list is no name of a field");
        insta::assert_snapshot!(refusal(&with("image: {{ .Values.image }}:{{ .Values.tag }}")), @"net.yaml:9: this is a template of a Helm chart; give what Helm makes of it: `helm template CHART > FILE`");
    }

    #[test]
    fn marks_of_a_template_in_a_text_are_no_template() {
        let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  a: |\n    {{ range .Items }}\n";
        let good = with("image: a:1\n") + map;
        assert!(parse(&good).is_ok());
        let asks = with("image: a:1\nimagePullPolicy: Always\n") + map;
        assert!(refusal(&asks).starts_with("net.yaml:10: imagePullPolicy: Always would have"));
        let nameless = with("image: A B\n") + map;
        insta::assert_snapshot!(refusal(&nameless), @r#"net.yaml:9: "A B" names no image: invalid reference format"#);
    }

    #[test]
    fn objects_that_nothing_defines_are_refused() {
        let own = "apiVersion: pools.example.org/v1\nkind: Pool\nmetadata: {name: a}\n---\n";
        insta::assert_snapshot!(refusal(own), @"net.yaml:1: no API server has Pool of pools.example.org by itself, and this file does not define it; add its CustomResourceDefinition, or leave this object out");
        let operator = "apiVersion: operator.tigera.io/v1\nkind: Installation\nmetadata: {name: default}\nspec:\n  calicoNetwork: {}\n";
        insta::assert_snapshot!(refusal(operator), @"net.yaml:1: Installation of operator.tigera.io configures an operator, which starts Pods of images that nobody names here, and nodes reach no registry; give the manifest of what the operator would start: Calico's calico.yaml, or none with --pod-network calico");
        let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {group: pools.example.org, names: {kind: Pool}}\n";
        assert!(parse(&(own.to_owned() + definition)).is_ok());
        let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n";
        insta::assert_snapshot!(refusal(class), @"net.yaml:1: no API server has GatewayClass of gateway.networking.k8s.io by itself, and this file does not define it; add its CustomResourceDefinition, or leave this object out");
        for own in [
            "v1",
            "apps/v1",
            "policy/v1",
            "networking.k8s.io/v1",
            "apiregistration.k8s.io/v1",
        ] {
            assert!(
                parse(&format!("apiVersion: {own}\nkind: Whatever\n")).is_ok(),
                "{own}"
            );
        }
    }

    #[test]
    fn a_network_on_networks_needs_another_one() {
        let definition = "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {group: k8s.cni.cncf.io, names: {kind: NetworkAttachmentDefinition}}\n";
        let alone = with("image: a:1") + definition;
        insta::assert_snapshot!(refusal(&alone), @"net.yaml:1: a hands each Pod to another network's CNI plugin, and this file has none: put the manifest of that network into it as well");
        let both = alone + "---\n" + &with("image: b:1");
        assert!(parse(&both).is_ok());
    }

    #[test]
    fn flannels_range_has_to_be_that_of_the_nodes_pods() {
        let flannel = |network: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: kube-flannel-cfg}}\ndata:\n  net-conf.json: |\n    {{\"Network\": \"{network}\", \"Backend\": {{\"Type\": \"vxlan\"}}}}\n"
            )
        };
        insta::assert_snapshot!(refusal(&flannel("10.244.0.0/16")), @r#"net.yaml:6: the Network of net-conf.json is 10.244.0.0/16, and the Pods of these nodes are in 10.1.0.0/16, so that flannel would give them no address; write "Network": "10.1.0.0/16""#);
        for narrow in ["10.1.0.0/17", "10.1.1.0/24", "10.0.0.0/16", "ten", ""] {
            assert!(parse(&flannel(narrow)).is_err(), "{narrow}");
        }
        for wide in ["10.1.0.0/16", "10.0.0.0/8"] {
            assert!(parse(&flannel(wide)).is_ok(), "{wide}");
        }
    }

    #[test]
    fn what_nobody_could_wait_for_is_refused() {
        let check = |text: &str, archives: &[ImageArchive]| {
            let checked = parse(text).unwrap().check(Path::new("net.yaml"), archives);
            checked.map_err(|error| error.to_string())
        };
        let alone = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n";
        insta::assert_snapshot!(check(alone, &[]).unwrap_err(), @"net.yaml:1: there is no DaemonSet and no Deployment in it, so that nothing of it would run on the nodes, and nothing could be waited for; give the manifest that starts the network's Pods, with these objects in the same file");
        assert_eq!(check(&with("image: a:1"), &[]), Ok(()));

        let operator = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: operator, namespace: own}\nspec: {template: {spec: {containers: [{image: 'org/operator:1'}]}}}\n";
        insta::assert_snapshot!(check(operator, &[]).unwrap_err(), @"net.yaml:1: there is no DaemonSet in it: what runs on the nodes is started by own/operator, of images that nobody names here, and nodes reach no registry; give the manifest of what it starts, or archives of those images beside it (--pod-images)");
        let archive = |image: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("images.tar");
            std::fs::write(&path, oci_archive(image)).unwrap();
            ImageArchive::read(&path).unwrap()
        };
        assert!(check(operator, &[archive("docker.io/org/operator:1")]).is_err());
        let both = [
            archive("docker.io/org/operator:1"),
            archive("docker.io/org/agent:1"),
        ];
        assert_eq!(check(operator, &both), Ok(()));
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
        let error = PodNetworkManifest::read(Path::new("/dev/zero"), AS_WRITTEN).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            (error.to_string().as_str(), source.as_str()),
            ("cannot read \"/dev/zero\"", "it has more than 16.0 MiB")
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error =
            PodNetworkManifest::read(Path::new("/nowhere/net.yaml"), AS_WRITTEN).unwrap_err();
        assert_eq!(error.to_string(), "cannot read \"/nowhere/net.yaml\"");
    }
}
