//! Bootstrap tokens, as the cluster keeps them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::ListParams;

use crate::check::failure::Cause;
use crate::lab::Lab;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// From a token's Secret to its signature: the controller manager's work.
const SIGNED: Duration = Duration::from_secs(20);

/// What a token's Secret is called, before its id.
const SECRET: &str = "bootstrap-token-";
/// What a token's signature is called in `cluster-info`, before its id.
const SIGNATURE: &str = "jws-kubeconfig-";

/// A bootstrap token, `abcdef.0123456789abcdef` (Kubernetes reference, "Authenticating with Bootstrap
/// Tokens").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its first half, six characters: the name by which it is known.
    pub id: String,
    /// Its other half, sixteen.
    pub secret: String,
}

impl Token {
    /// The token in a text that is one, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        let small = |it: &str| {
            it.bytes()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
        };
        let formed = id.len() == 6 && secret.len() == 16 && small(id) && small(secret);
        formed.then(|| Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }

    /// The name of its Secret in `kube-system`: `bootstrap-token-abcdef`.
    pub fn secret_name(&self) -> String {
        format!("{SECRET}{}", self.id)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl Lab {
    /// The token of the join command at the end of `kubeadm init`'s output.
    ///
    /// # Errors
    /// When there is none.
    pub async fn first_token(&self) -> anyhow::Result<Token> {
        let command = self.join_command().await?;
        let none = || format!("no token in {command}");
        Token::parse(&command.token).with_context(none)
    }

    /// The ids of the bootstrap tokens that are stored, each in a Secret in `kube-system`.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn stored_tokens(&self) -> anyhow::Result<BTreeSet<String>> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster().api(), "kube-system");
        let tokens = ListParams::default().fields("type=bootstrap.kubernetes.io/token");
        let listed = secrets.list(&tokens).await;
        let listed = listed.context("cannot list the bootstrap tokens")?;
        let names = listed.items.into_iter().filter_map(|it| it.metadata.name);
        Ok(ids(names, SECRET))
    }

    /// The ids of the tokens that sign what strangers are told: `cluster-info` in `kube-public`.
    ///
    /// # Errors
    /// When there is no such ConfigMap, or the API does not answer.
    pub async fn signing_tokens(&self) -> anyhow::Result<BTreeSet<String>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.cluster().api(), "kube-public");
        let told = maps.get("cluster-info").await;
        let told = told.context("cannot read cluster-info")?;
        let keys = told.data.into_iter().flat_map(|data| data.into_keys());
        Ok(ids(keys, SIGNATURE))
    }

    /// Waits until this token signs what strangers are told.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn until_signed_by(&self, token: &Token) -> anyhow::Result<()> {
        let expected = format!("a signature by the token {} in cluster-info", token.id);
        self.eventually(expected, SIGNED, async || {
            let signing = self.signing_tokens().await?;
            let signed = signing.contains(&token.id);
            Ok(Probe::when(
                signed,
                Cause::Absent,
                format!("it is signed by {signing:?}"),
            )
            .needs(Needs::ControlPlane("kube-controller-manager")))
        })
        .await
    }
}

fn ids(names: impl Iterator<Item = String>, prefix: &str) -> BTreeSet<String> {
    let ids = names.filter_map(|name| name.strip_prefix(prefix).map(str::to_owned));
    ids.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_two_halves_of_small_letters_and_digits() {
        let token = Token::parse("ez3mwn.xxdsb8ei9irf3itn").unwrap();
        assert_eq!((token.id.as_str(), token.secret.len()), ("ez3mwn", 16));
        assert_eq!(token.to_string(), "ez3mwn.xxdsb8ei9irf3itn");
        assert_eq!(token.secret_name(), "bootstrap-token-ez3mwn");
        for wrong in [
            "ez3mwn",
            "EZ3MWN.XXDSB8EI9IRF3ITN",
            "ez3mwn-xxdsb8ei9irf3itn",
            "ez3mwn.xxdsb8ei9irf3it",
            "ez3mwnx.xxdsb8ei9irf3it",
            " ez3mwn.xxdsb8ei9irf3itn",
        ] {
            assert_eq!(Token::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn ids_are_what_names_end_with() {
        let names = ["jws-kubeconfig-podwir", "kubeconfig"].map(str::to_owned);
        let found = ids(names.into_iter(), SIGNATURE);
        assert_eq!(found, BTreeSet::from(["podwir".to_owned()]));
    }
}
