//! The Secret in which a bootstrap token is kept.

use podwire_scenario::{Failure, Token, ensure};

/// Whom a token's bearer belongs to, unless it was made for others.
pub(super) const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// What is in a Secret, in words: `kube-system/NAME TYPE`, and a line `KEY=VALUE` for each key.
pub(super) const SHOW: &str = "-o go-template='{{.metadata.namespace}}/{{.metadata.name}} {{.type}}{{\"\\n\"}}\
    {{range $key, $value := .data}}{{$key}}={{base64decode $value}}{{\"\\n\"}}{{end}}'";

pub(super) fn is_secret_of(token: &Token, shown: &str) -> Result<(), Failure> {
    let name = token.secret_name();
    let head = format!("kube-system/{name} bootstrap.kubernetes.io/token");
    let mut lines = shown.lines();
    let first = lines.next().unwrap_or_default();
    ensure!(first == head, WrongAnswer, "{head}", "{first}");
    let (expires, others): (Vec<&str>, _) = lines.partition(|it| it.starts_with("expiration=20"));
    ensure!(expires.len() == 1, Absent, "a time at which it expires", "{shown}");
    let Token { id, secret } = token;
    let wanted = [
        format!("auth-extra-groups={GROUP}"),
        format!("token-id={id}"),
        format!("token-secret={secret}"),
        "usage-bootstrap-authentication=true".to_owned(),
        "usage-bootstrap-signing=true".to_owned(),
    ];
    let exactly = others == wanted;
    ensure!(exactly, WrongAnswer, "exactly these keys and an expiration: {wanted:?}", "{others:?}");
    Ok(())
}

/// In what a dry run prints: from its first key to the empty line after it.
pub(super) fn secret_in(printed: &str) -> String {
    let lines = printed.lines().skip_while(|line| !line.starts_with("apiVersion:"));
    lines.take_while(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use podwire_scenario::Cause;

    use super::*;

    #[test]
    fn a_tokens_secret_has_six_keys_and_its_two_halves() {
        let token = Token::parse("ez3mwn.xxdsb8ei9irf3itn").unwrap();
        let good = "kube-system/bootstrap-token-ez3mwn bootstrap.kubernetes.io/token\n\
            auth-extra-groups=system:bootstrappers:kubeadm:default-node-token\n\
            expiration=2026-11-28T04:14:36Z\ntoken-id=ez3mwn\ntoken-secret=xxdsb8ei9irf3itn\n\
            usage-bootstrap-authentication=true\nusage-bootstrap-signing=true\n";
        assert_eq!(is_secret_of(&token, good), Ok(()));
        let cause =
            |from: &str, to: &str| is_secret_of(&token, &good.replace(from, to)).unwrap_err().cause;
        assert_eq!(cause("bootstrap.kubernetes.io/token", "Opaque"), Cause::WrongAnswer);
        assert_eq!(cause("expiration=2026-11-28T04:14:36Z\n", ""), Cause::Absent);
        assert_eq!(cause("=xxdsb8ei9irf3itn", "=other"), Cause::WrongAnswer);
        assert_eq!(cause("expiration", "description=more\nexpiration"), Cause::WrongAnswer);
    }

    #[test]
    fn a_dry_runs_secret_is_taken_out_of_its_words() {
        let printed = "[dryrun] Attached object:\napiVersion: v1\ndata:\n  token-id: OGswemhn\n\
            kind: Secret\n\n8k0zhg.6807v0fwkewc2ecn\n";
        let secret = "apiVersion: v1\ndata:\n  token-id: OGswemhn\nkind: Secret\n";
        assert_eq!(secret_in(printed), secret);
    }
}
