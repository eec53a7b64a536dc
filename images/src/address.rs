//! Addresses of servers, as a person wrote them: with a password in them, where a mirror wants one.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use reqwest::Url;

/// What stands where a secret was.
pub(crate) const HIDDEN: &str = "***";

/// An `http` or `https` address below which things are. It is shown, kept and written into manifests
/// without user name and password: either may be a token. Boxed, since errors carry it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Box<Url>);

/// Why a text is no address; it does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// It would be taken for more than one word where it is written.
    #[error("it has a blank, a line break or a bracket in it")]
    Words,
    /// It cannot be parsed.
    #[error("it is no URL: {0}")]
    Url(String),
    /// It is no address of a web server.
    #[error("it begins with neither https:// nor http://")]
    Scheme,
    /// Nothing can be put behind it.
    #[error("paths are put behind it: it cannot end with ?... or #...")]
    NoBase,
}

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let separates = |c: char| c.is_whitespace() || c.is_control() || "[]\"'\\".contains(c);
        if text.contains(separates) {
            return Err(NoAddress::Words);
        }
        let mut url = Url::parse(text).map_err(|error| NoAddress::Url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(NoAddress::Scheme);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(NoAddress::NoBase);
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        let address = Self(Box::new(url));
        let credentials = address.credentials().unwrap_or_default();
        if [credentials.0, credentials.1]
            .iter()
            .any(|it| it.contains(separates))
        {
            return Err(NoAddress::Words);
        }
        Ok(address)
    }
}

impl Address {
    /// What is at `path` below it.
    #[must_use]
    pub fn below(&self, path: &str) -> Self {
        let mut url = self.0.clone();
        let own = url.path().trim_end_matches('/');
        url.set_path(&format!("{own}/{path}"));
        Self(url)
    }

    /// With everything that a server is to be told. Nobody else is.
    pub(crate) fn secret(&self) -> &Url {
        &self.0
    }

    /// Without what is only for the server.
    pub(crate) fn open(&self) -> Url {
        let mut url = Url::clone(&self.0);
        // Neither can fail where there is a host, and http has one.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url
    }

    /// User name and password, as they are and not as an address writes them, where it has any.
    pub(crate) fn credentials(&self) -> Option<(String, String)> {
        let (user, password) = (self.0.username(), self.0.password());
        let any = !user.is_empty() || password.is_some();
        any.then(|| (decoded(user), decoded(password.unwrap_or_default())))
    }

    /// The last part of its path.
    pub(crate) fn name(&self) -> &str {
        self.0.path().rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An address of anybody's as it is told, see [`hide`].
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    hide(&mut url);
    let text = url.to_string();
    match url.path() {
        "/" if url.query().is_none() => text.trim_end_matches('/').to_owned(),
        _ => text,
    }
}

/// Takes user name and password out of an address, and its query: a redirection's may be a signature
/// that opens a store.
pub(crate) fn hide(url: &mut Url) {
    if !url.username().is_empty() || url.password().is_some() {
        let _ = url.set_username(HIDDEN);
        let _ = url.set_password(None);
    }
    if url.query().is_some() {
        url.set_query(Some(HIDDEN));
    }
}

/// Takes user name and password, as they are, out of an address of any scheme; the rest stays as it was
/// written.
pub(crate) fn apart(text: &str) -> (String, Option<(String, String)>) {
    let parts = text.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, host) = authority.rsplit_once('@')?;
        Some((format!("{scheme}://{host}{path}"), login))
    });
    match parts {
        None => (text.to_owned(), None),
        Some((open, login)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            (open, Some((decoded(user), decoded(password))))
        }
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A text of whatever origin, with the addresses in it as they are told.
pub fn hidden(text: &str) -> String {
    let mut parts = text.split("://");
    let mut hidden = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let ends = |c: char| c.is_whitespace() || "/'\"`".contains(c);
        let authority = part.find(ends).map_or(part, |end| &part[..end]);
        hidden += "://";
        hidden += &match authority.rfind('@') {
            Some(end) => format!("{HIDDEN}{}", &part[end..]),
            None => part.to_owned(),
        };
    }
    hidden
}

/// A text that may quote an address which is none, without what stands before an `@` in each line.
pub(crate) fn hidden_lines(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let Some(end) = line.rfind('@') else {
            return line.to_owned();
        };
        let before = &line[..end];
        let begin = match before.find("://") {
            Some(scheme) => scheme + "://".len(),
            None => before.find(['"', '\'', '`']).map_or(0, |quote| quote + 1),
        };
        format!("{}{HIDDEN}{}", &line[..begin], &line[end..])
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_one_word_and_has_no_secret() {
        let address: Address = "https://user:s3cret@m.example:8443/a/b//".parse().unwrap();
        assert_eq!(address.to_string(), "https://***@m.example:8443/a/b");
        assert_eq!(format!("{address:?}"), address.to_string());
        let below = address.below("v1/x");
        assert_eq!(
            below.secret().as_str(),
            "https://user:s3cret@m.example:8443/a/b/v1/x"
        );
        assert_eq!(below.open().as_str(), "https://m.example:8443/a/b/v1/x");
        assert_eq!(below.name(), "x");
        let bare: Address = "http://m.example".parse().unwrap();
        assert_eq!(bare.to_string(), "http://m.example");
        assert_eq!(bare.below("x").to_string(), "http://m.example/x");
        assert_eq!(bare.below("").to_string(), "http://m.example");
        let refused = |text: &str| text.parse::<Address>().unwrap_err();
        for text in [
            "http://m.example/ubuntu noble main\ndeb [trusted=yes] http://evil.example/ubuntu",
            "http://m.example/a b",
            "http://m.example/a\tb",
            "http://m.example/[trusted=yes]",
            " http://m.example",
            "http://u:x%20machine%20y@m.example",
        ] {
            assert_eq!(refused(text), NoAddress::Words, "{text}");
        }
        assert_eq!(refused("https://u:s3cret@m.example/?x"), NoAddress::NoBase);
        assert_eq!(refused("ftp://u:s3cret@m.example"), NoAddress::Scheme);
        assert!(
            !refused("https://u:s3cret@:x")
                .to_string()
                .contains("s3cret")
        );
    }

    #[test]
    fn an_address_that_is_none_is_quoted_without_a_secret() {
        for (text, expected) in [
            (
                "etcd = \"https://u:s3cret@m.example/x\"\n^^^",
                "etcd = \"https://***@m.example/x\"\n^^^",
            ),
            ("images = 'u:s3cret@m.example'", "images = '***@m.example'"),
            ("https://u:s3/cr@et@m.example", "https://***@m.example"),
            ("u:s3cret@m.example", "***@m.example"),
            ("https://m.example", "https://m.example"),
        ] {
            assert_eq!(hidden_lines(text), expected);
        }
    }

    #[test]
    fn a_text_has_no_secrets_in_its_addresses_and_is_else_as_it_was() {
        for (text, expected) in [
            (
                "'https://u:s3cret@a/x' and http://s3cret@b",
                "'https://***@a/x' and http://***@b",
            ),
            ("\"https://u:s3c@ret@a\"", "\"https://***@a\""),
            (
                "skopeo copy docker://quay.io/a:v1@sha256:ab, to me@example",
                "skopeo copy docker://quay.io/a:v1@sha256:ab, to me@example",
            ),
        ] {
            assert_eq!(hidden(text), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_one_word(text in r#"https?://[a-z]{1,5}/[ -~\n\t]{0,20}"#) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert!(address.open().as_str().bytes().all(|it| it.is_ascii_graphic()));
            }
        }
    }
}
