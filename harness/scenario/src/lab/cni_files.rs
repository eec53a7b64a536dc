//! A node's CNI files, as its container engine has read them.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::check::failure::Cause;
use crate::lab::node::Node;
use crate::wait::probe::Probe;

/// For the engine to notice a change: it is told of each by inotify(7).
const READ: Duration = Duration::from_secs(20);

/// The file that libcni takes: the first by name with one of its endings.
const FIRST: &str =
    "cd /etc/cni/net.d && cat \"$(LC_ALL=C ls | grep -E '[.](conf|conflist|json)$' | head -n 1)\"";

impl Node<'_> {
    /// Waits until its container engine has read the CNI file that sorts first, as it is now. The engine does so
    /// by itself when the folder changes, and `crictl info` says what it has read. Nobody restarts it for that:
    /// containerd 1.7, when it starts, takes a sandbox for leaked, and ends it, whose processes it cannot list.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that; when there is no file, or it is no JSON.
    pub async fn until_cni_file_is_read(self) -> anyhow::Result<()> {
        let first = self.run(FIRST).await?;
        let first: Value = serde_json::from_str(first.text())
            .with_context(|| format!("{self}'s CNI file that sorts first"))?;
        let expected =
            format!("{self}'s container engine to have read the CNI file that sorts first");
        let read = self.lab().eventually(expected, READ, async || {
            let info = self.run("crictl info 2>/dev/null").await?;
            let read = networks(info.text()).context("crictl info")?;
            let is_read = read.iter().any(|it| is_of(it, &first));
            let state = format!("it has read {}", Value::Array(read));
            Ok(Probe::when(is_read, Cause::Absent, state))
        });
        read.await
    }
}

/// The lists of plugins that the engine uses, as `crictl info` has them (containerd, `cniconfig`).
fn networks(info: &str) -> anyhow::Result<Vec<Value>> {
    let info: Value = serde_json::from_str(info)?;
    let networks = info["cniconfig"]["Networks"].as_array();
    let sources = networks.into_iter().flatten();
    let sources = sources.filter_map(|it| it["Config"]["Source"].as_str());
    let parsed = sources.map(|source| Ok(serde_json::from_str(source)?));
    parsed.collect()
}

/// Whether a list is this file's: libcni makes one of a file with a single plugin.
fn is_of(list: &Value, file: &Value) -> bool {
    list == file || list["plugins"] == json!([file])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_the_engine_has_it_word_for_word() {
        let loopback =
            r#"{"cniVersion":"0.3.1","name":"cni-loopback","plugins":[{"type":"loopback"}]}"#;
        let one = json!({ "cniVersion": "1.0.0", "name": "kube", "type": "bridge", "mtu": 1450 });
        let list = json!({ "cniVersion": "1.0.0", "name": "kube", "plugins": [one] });
        let with = |list: &Value| {
            let network =
                |source: String| json!({ "Config": { "Source": source }, "IFName": "eth0" });
            let all = [network(loopback.to_owned()), network(list.to_string())];
            json!({ "cniconfig": { "Networks": all }, "status": {} }).to_string()
        };
        let read =
            |file: &Value, info: &str| networks(info).unwrap().iter().any(|it| is_of(it, file));
        assert!(read(&one, &with(&list)) && read(&list, &with(&list)));
        let mut other = one.clone();
        other["mtu"] = 1400.into();
        assert!(!read(&other, &with(&list)));
        // An engine that has read none yet.
        assert!(!read(&one, r#"{"cniconfig":{"Networks":null}}"#));
        networks("no JSON").unwrap_err();
    }
}
