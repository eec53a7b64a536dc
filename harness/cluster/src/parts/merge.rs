//! A configuration of the user's merged into one of podwire's: maps key by key, lists of a component's
//! arguments by name, everything else replaced, except for what podwire needs as it is.

use std::fmt;

use serde_json::{Map, Value};

use crate::plan::configurations::below;

/// A field that podwire needs as it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Need {
    /// The names that lead to it; of a list of arguments the argument's name is one of them.
    path: &'static [&'static str],
    /// Its value, null where it must not be set.
    is: Value,
    /// Why, behind "since".
    why: &'static str,
}

impl Need {
    pub(crate) fn new(
        path: &'static [&'static str],
        is: impl Into<Value>,
        why: &'static str,
    ) -> Self {
        let is = is.into();
        Self { path, is, why }
    }
}

/// A field that the user wants otherwise than podwire needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The names that lead to it, with points between.
    pub path: String,
    /// The user's value.
    pub given: Value,
    /// The field of podwire's, where it is one below `path`, else the same.
    pub needed_path: String,
    /// Its value; null where it must not be set.
    pub needed: Value,
    /// Why podwire needs it.
    pub why: &'static str,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, given) = (&self.path, shown(&self.given));
        let needed = match &self.needed {
            Value::Null => "nothing".to_owned(),
            needed => needed.to_string(),
        };
        write!(f, "{path} is {given}, and podwire needs {needed}")?;
        if self.needed_path != self.path {
            write!(f, " in {}", self.needed_path)?;
        }
        write!(f, ", since {}", self.why)
    }
}

/// A field that podwire sets, and the user otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The names that lead to it, with points between.
    pub path: String,
    /// Podwire's value.
    pub own: Value,
    /// The user's.
    pub given: Value,
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, own, given) = (&self.path, shown(&self.own), shown(&self.given));
        write!(f, "{path}: {given}, not {own}")
    }
}

/// Characters of a value that are shown.
const SHOWN: usize = 120;

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merged {
    /// Where there is a conflict, it has podwire's value.
    pub(crate) config: Value,
    pub(crate) conflicts: Vec<Conflict>,
    pub(crate) replaced: Vec<Replaced>,
}

impl Merged {
    /// As it is written. JSON, which every reader of YAML takes.
    pub(crate) fn text(&self) -> String {
        format!("{:#}\n", self.config)
    }
}

/// Merges the user's document, where there is one, into podwire's.
pub(crate) fn merge(own: Value, given: Option<&Value>, needs: &[Need]) -> Merged {
    let mut merged = Merged {
        config: own,
        conflicts: Vec::new(),
        replaced: Vec::new(),
    };
    let Some(given) = given else {
        return merged;
    };
    let mut given = given.clone();
    for need in needs {
        let (path, whole) = (need.path, need.path.join("."));
        let set = path.iter().try_fold(&merged.config, |it, name| match it {
            Value::Array(arguments) => arguments.iter().find(|it| it["name"] == **name),
            it => it.get(name),
        });
        let is = Needed {
            is: &need.is,
            by_default: set.is_none(),
        };
        let mut differs = |at: String, value: &Value| {
            merged.conflicts.push(Conflict {
                path: at,
                given: value.clone(),
                needed_path: whole.clone(),
                needed: need.is.clone(),
                why: need.why,
            });
        };
        remove(&mut given, path, is, "", &mut differs);
    }
    overlay(&mut merged.config, given, "", &mut merged.replaced);
    merged
}

/// What is needed, and whether a component or kubeadm has it so where nothing is said.
#[derive(Clone, Copy)]
struct Needed<'a> {
    is: &'a Value,
    by_default: bool,
}

impl Needed<'_> {
    fn allows(self, given: &Value) -> bool {
        let says_nothing = given.is_null() || given == "";
        given == self.is || (self.by_default && says_nothing)
    }
}

/// Takes out of the user's document what says something else than is needed.
fn remove(
    given: &mut Value,
    path: &[&str],
    is: Needed<'_>,
    at: &str,
    differs: &mut impl FnMut(String, &Value),
) {
    let (Some((name, rest)), Value::Object(fields)) = (path.split_first(), given) else {
        return;
    };
    let Some(value) = fields.get_mut(*name) else {
        return;
    };
    let at = below(at, name);
    match (rest, &mut *value) {
        ([], value) if is.allows(value) => return,
        ([_, ..], Value::Null) if is.by_default => return,
        ([argument], Value::Array(arguments)) if is_arguments(name) => {
            arguments.retain(|each| {
                let other = each["name"] == *argument && each["value"] != *is.is;
                if other {
                    differs(below(&at, argument), &each["value"]);
                }
                !other
            });
            return;
        }
        ([_, ..], Value::Object(_)) if !is_arguments(name) => {
            return remove(value, rest, is, &at, differs);
        }
        (_, value) => differs(at, value),
    }
    fields.remove(*name);
}

fn overlay(own: &mut Value, given: Value, path: &str, replaced: &mut Vec<Replaced>) {
    match (own, given) {
        (Value::Object(own), Value::Object(given)) => {
            for (name, given) in given {
                put(own, name, given, path, replaced);
            }
        }
        (own, given) if *own != given => {
            replaced.push(Replaced {
                path: path.to_owned(),
                own: own.clone(),
                given: given.clone(),
            });
            *own = given;
        }
        _ => {}
    }
}

fn put(
    own: &mut Map<String, Value>,
    name: String,
    given: Value,
    path: &str,
    replaced: &mut Vec<Replaced>,
) {
    let at = below(path, &name);
    match (own.get_mut(&name), given) {
        (None, given) => {
            own.insert(name, given);
        }
        (Some(Value::Array(own)), Value::Array(given)) if is_arguments(&name) => {
            by_name(own, given, &at, replaced);
        }
        (Some(own), given) => overlay(own, given, &at, replaced),
    }
}

/// Whether it is one of kubeadm's lists of a component's arguments, with `name` and `value` each.
fn is_arguments(name: &str) -> bool {
    name == "extraArgs" || name == "kubeletExtraArgs"
}

/// The user's arguments come after podwire's and in the place of those with the same name. A name may be
/// there several times, which is why these are lists.
fn by_name(own: &mut Vec<Value>, given: Vec<Value>, path: &str, replaced: &mut Vec<Replaced>) {
    own.retain(|argument| {
        let name = &argument["name"];
        let mut same = given.iter().filter(|it| it["name"] == *name);
        let Some(first) = same.next() else {
            return true;
        };
        if first["value"] != argument["value"] || same.next().is_some() {
            replaced.push(Replaced {
                path: below(path, name.as_str().unwrap_or_default()),
                own: argument["value"].clone(),
                given: first["value"].clone(),
            });
        }
        false
    });
    own.extend(given);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn own() -> Value {
        json!({
            "kind": "Any",
            "mode": "nftables",
            "evictionHard": { "memory.available": "0%" },
            "authentication": { "webhook": { "enabled": true }, "x509": { "file": "/ca" } },
            "list": [1, 2],
            "node": { "kubeletExtraArgs": [
                { "name": "node-ip", "value": "172.30.0.11" },
                { "name": "housekeeping-interval", "value": "60s" },
            ] },
        })
    }

    fn needs() -> Vec<Need> {
        vec![
            Need::new(&["mode"], "nftables", "the cell has it"),
            Need::new(
                &["authentication", "webhook", "enabled"],
                true,
                "it is looked at",
            ),
            Need::new(
                &["node", "kubeletExtraArgs", "node-ip"],
                "172.30.0.11",
                "it is the card's",
            ),
            Need::new(&["external"], Value::Null, "there is none"),
        ]
    }

    fn told(given: &Value) -> String {
        let merged = merge(own(), Some(given), &needs());
        let conflicts = merged.conflicts.iter().map(ToString::to_string);
        let replaced = merged.replaced.iter().map(ToString::to_string);
        let conflicts = conflicts.collect::<Vec<_>>().join("\n");
        let replaced = replaced.collect::<Vec<_>>().join("\n");
        format!("{conflicts}\n== replaced\n{replaced}\n{}", merged.config)
    }

    #[test]
    fn maps_are_merged_by_key_arguments_by_name_and_lists_replaced() {
        let given = json!({
            "mode": "nftables",
            "maxPods": 7,
            "evictionHard": { "nodefs.available": "10%", "memory.available": "0%" },
            "authentication": { "webhook": { "cacheTTL": "1s" } },
            "list": [3],
            "node": { "kubeletExtraArgs": [
                { "name": "housekeeping-interval", "value": "10s" },
                { "name": "v", "value": "4" },
                { "name": "node-ip", "value": "172.30.0.11" },
            ] },
        });
        insta::assert_snapshot!(told(&given), @r#"

        == replaced
        list: [3], not [1,2]
        node.kubeletExtraArgs.housekeeping-interval: "10s", not "60s"
        {"authentication":{"webhook":{"cacheTTL":"1s","enabled":true},"x509":{"file":"/ca"}},"evictionHard":{"memory.available":"0%","nodefs.available":"10%"},"kind":"Any","list":[3],"maxPods":7,"mode":"nftables","node":{"kubeletExtraArgs":[{"name":"housekeeping-interval","value":"10s"},{"name":"v","value":"4"},{"name":"node-ip","value":"172.30.0.11"}]}}
        "#);
    }

    #[test]
    fn what_is_needed_otherwise_is_told_and_stays() {
        let given = json!({
            "mode": "iptables",
            "authentication": null,
            "external": { "endpoints": ["https://192.0.2.1"] },
            "node": { "kubeletExtraArgs": [{ "name": "node-ip", "value": "::1" }] },
        });
        insta::assert_snapshot!(told(&given), @r#"
        mode is "iptables", and podwire needs "nftables", since the cell has it
        authentication is null, and podwire needs true in authentication.webhook.enabled, since it is looked at
        node.kubeletExtraArgs.node-ip is "::1", and podwire needs "172.30.0.11", since it is the card's
        external is {"endpoints":["https://192.0.2.1"]}, and podwire needs nothing, since there is none
        == replaced

        {"authentication":{"webhook":{"enabled":true},"x509":{"file":"/ca"}},"evictionHard":{"memory.available":"0%"},"kind":"Any","list":[1,2],"mode":"nftables","node":{"kubeletExtraArgs":[{"name":"node-ip","value":"172.30.0.11"},{"name":"housekeeping-interval","value":"60s"}]}}
        "#);
    }

    /// As components print their own with all defaults.
    #[test]
    fn what_says_nothing_where_podwire_says_nothing_is_no_conflict() {
        let needs = [
            Need::new(
                &["healthzBindAddress"],
                "0.0.0.0:10256",
                "it is asked there",
            ),
            Need::new(&["authorization", "mode"], "Webhook", "it is looked at"),
            Need::new(&["mode"], "nftables", "the cell has it"),
        ];
        let conflicts = |given: Value| {
            let conflicts = merge(own(), Some(&given), &needs).conflicts.into_iter();
            conflicts.map(|it| it.path).collect::<Vec<_>>()
        };
        let nothing = json!({ "healthzBindAddress": "", "authorization": null });
        assert!(conflicts(nothing).is_empty());
        let nothing = json!({ "healthzBindAddress": null, "authorization": { "mode": "" } });
        assert!(conflicts(nothing).is_empty());
        assert_eq!(conflicts(json!({ "mode": "" })), ["mode"]);
        let other = json!({ "healthzBindAddress": "127.0.0.1:1" });
        assert_eq!(conflicts(other), ["healthzBindAddress"]);
    }

    /// Documents with the names that matter, so that they meet.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            Just(json!("nftables")),
            (0..3_u8).prop_map(Value::from),
            Just(json!([{ "name": "node-ip", "value": "172.30.0.11" }])),
            Just(json!([{ "name": "v", "value": "1" }, { "name": "v", "value": "2" }])),
            Just(json!({ "node-ip": "::1" })),
        ];
        let names = prop::sample::select(vec![
            "mode",
            "authentication",
            "webhook",
            "enabled",
            "node",
            "kubeletExtraArgs",
            "external",
            "list",
            "evictionHard",
        ]);
        let value = leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        });
        value.prop_filter("a document is an object", Value::is_object)
    }

    fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
        path.iter().try_fold(value, |value, name| value.get(name))
    }

    proptest! {
        #[test]
        fn merging_again_changes_nothing(given in document()) {
            let once = merge(own(), Some(&given), &needs());
            let twice = merge(once.config.clone(), Some(&given), &needs());
            prop_assert_eq!(once.config, twice.config);
            prop_assert_eq!(once.conflicts, twice.conflicts);
        }

        #[test]
        fn what_is_needed_is_so_whatever_is_given(given in document()) {
            let merged = merge(own(), Some(&given), &needs()).config;
            prop_assert_eq!(at(&merged, &["mode"]), Some(&json!("nftables")));
            let webhook = at(&merged, &["authentication", "webhook", "enabled"]);
            prop_assert_eq!(webhook, Some(&json!(true)));
            let arguments = at(&merged, &["node", "kubeletExtraArgs"]).and_then(Value::as_array);
            let address = json!({ "name": "node-ip", "value": "172.30.0.11" });
            prop_assert!(arguments.is_some_and(|it| it.contains(&address)));
            let external = at(&merged, &["external"]);
            prop_assert!(external.is_none_or(Value::is_null));
        }

        #[test]
        fn what_says_nothing_or_the_same_changes_nothing(part in prop::sample::subsequence(
            vec!["kind", "mode", "evictionHard", "authentication", "list", "node"], 0..6,
        )) {
            let own = own();
            let given = part.iter().map(|name| ((*name).to_owned(), own[*name].clone()));
            let merged = merge(own.clone(), Some(&Value::Object(given.collect())), &needs());
            prop_assert_eq!(merged.config, own);
            prop_assert_eq!(merged.conflicts, []);
            prop_assert_eq!(merged.replaced, []);
        }
    }
}
