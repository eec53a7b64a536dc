//! apt's sources: where this host gets its packages from.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::address::{HIDDEN, apart};

/// Where an archive is, as apt takes it: `http://...`, `file:/...`, `mirror+file:/...`. It is shown, and given
/// to programs, without user name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Archive {
    open: String,
    login: Option<(String, String)>,
}

impl Archive {
    /// Of an entry's word.
    fn new(text: &str) -> Self {
        let (open, login) = apart(text);
        Self { open, login }
    }

    /// Without what is only for the server.
    pub(crate) fn open(&self) -> &str {
        &self.open
    }

    /// Whether the server is told a user name or a password.
    pub(crate) fn is_closed(&self) -> bool {
        self.login.is_some()
    }

    /// The line that tells apt what the server is told, apart; nothing where that is nothing, or where it has a
    /// blank, which the file's format has no way to write.
    pub(crate) fn auth(&self) -> Option<String> {
        let (user, password) = self.login.as_ref()?;
        let blank = |text: &str| text.contains(char::is_whitespace);
        (!blank(user) && !blank(password)).then(|| auth(&self.open, user, password))
    }
}

/// A line of apt_auth.conf(5), in which no word is empty.
pub(crate) fn auth(machine: impl fmt::Display, user: &str, password: &str) -> String {
    let words = [("login", user), ("password", password)];
    let words = words.into_iter().filter(|(_, value)| !value.is_empty());
    let words: Vec<String> = words
        .map(|(name, value)| format!(" {name} {value}"))
        .collect();
    format!("machine {machine}{}\n", words.concat())
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.open.split_once("://") {
            Some((scheme, rest)) if self.is_closed() => write!(f, "{scheme}://{HIDDEN}@{rest}"),
            _ => f.write_str(&self.open),
        }
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One entry of apt's sources, of either format (sources.list(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AptSource {
    /// Where the archive is.
    pub uri: Archive,
    /// Suite: `bookworm`, `bookworm-security`, ...
    pub suite: String,
    /// `main`, `contrib`, ...
    pub components: Vec<String>,
    /// Key or keyring that this entry is bound to.
    pub signed_by: Option<String>,
}

/// Binary package sources of one file: deb822 when its name ends in `.sources`, else one line each.
/// Disabled entries, source packages and suites given as a path are left out.
pub(super) fn parse(file_name: &str, text: &str) -> Vec<AptSource> {
    if file_name.ends_with(".sources") {
        parse_deb822(text)
    } else {
        text.lines().filter_map(parse_one_line).collect()
    }
}

fn parse_one_line(line: &str) -> Option<AptSource> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    let components: Vec<String> = words.collect();
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="))
        .map(str::to_owned);
    (!components.is_empty()).then_some(AptSource {
        uri: Archive::new(&uri),
        suite,
        components,
        signed_by,
    })
}

fn parse_deb822(text: &str) -> Vec<AptSource> {
    let mut sources = Vec::new();
    let uncommented: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in uncommented.split(|line| line.trim().is_empty()) {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut last = None;
        for line in stanza {
            if line.starts_with([' ', '\t']) {
                if let Some(value) = last.as_ref().and_then(|name| fields.get_mut(name)) {
                    value.push('\n');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                let name = name.trim().to_ascii_lowercase();
                fields.insert(name.clone(), value.trim().to_owned());
                last = Some(name);
            }
        }
        let words = |name: &str| -> Vec<String> {
            let value = fields.get(name).map(String::as_str).unwrap_or_default();
            value.split_whitespace().map(str::to_owned).collect()
        };
        let enabled = fields.get("enabled").is_none_or(|value| value != "no");
        let components = words("components");
        if !enabled || components.is_empty() || !words("types").contains(&"deb".to_owned()) {
            continue;
        }
        for uri in words("uris") {
            for suite in words("suites") {
                sources.push(AptSource {
                    uri: Archive::new(&uri),
                    suite,
                    components: components.clone(),
                    signed_by: fields.get("signed-by").cloned(),
                });
            }
        }
    }
    sources
}

/// All entries below a folder like `/etc/apt`; files that cannot be read count as empty.
pub(super) fn sources(dir: &Path) -> Vec<AptSource> {
    let mut files = vec![dir.join("sources.list")];
    if let Ok(entries) = fs::read_dir(dir.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "list" || e == "sources")
        })
        .filter_map(|path| Some((path, fs::read_to_string(path).ok()?)))
        .flat_map(|(path, text)| parse(&path.to_string_lossy(), &text))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::host) const DEB822: &str = "\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm-backports
Components: main
";

    #[test]
    fn both_formats_of_sources_are_understood() {
        let shown = |sources: Vec<AptSource>| {
            sources
                .iter()
                .map(|s| {
                    let key = s.signed_by.as_deref().unwrap_or("-");
                    format!("{} {} {} {key}", s.uri, s.suite, s.components.join("+"))
                })
                .collect::<Vec<_>>()
                .join("\n")
        };
        insta::assert_snapshot!(shown(parse("debian.sources", DEB822)), @r"
        http://mirror.example/debian bookworm main+contrib /usr/share/keyrings/debian-archive-keyring.gpg
        http://mirror.example/debian bookworm-updates main+contrib /usr/share/keyrings/debian-archive-keyring.gpg
        http://mirror.example/security bookworm-security main -
        ");
        let lines = "\
# deb http://off.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # trailing
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/key.gpg] https://mirror.example/d trixie main
deb file:/srv/repo ./
debris
";
        insta::assert_snapshot!(shown(parse("sources.list", lines)), @r"
        http://mirror.example/debian bookworm main+contrib -
        https://mirror.example/d trixie main /etc/key.gpg
        ");
    }

    #[test]
    fn a_password_is_taken_apart_and_never_shown() {
        let one = "deb http://me:s3cr%40t@mirror.example:8080/debian bookworm main";
        let other = "Types: deb\nURIs: mirror+https://t0ken@mirror.example/l file:/srv/a@b\n\
                     Suites: bookworm\nComponents: main\n";
        let sources = [parse("x.list", one), parse("x.sources", other)].concat();
        let told = |source: &AptSource| {
            let Archive { open, login } = &source.uri;
            format!("{}: {open} {login:?} {:?}", source.uri, source.uri.auth())
        };
        let told: Vec<String> = sources.iter().map(told).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        http://***@mirror.example:8080/debian: http://mirror.example:8080/debian Some(("me", "s3cr@t")) Some("machine http://mirror.example:8080/debian login me password s3cr@t\n")
        mirror+https://***@mirror.example/l: mirror+https://mirror.example/l Some(("t0ken", "")) Some("machine mirror+https://mirror.example/l login t0ken\n")
        file:/srv/a@b: file:/srv/a@b None None
        "#);
        let shown = format!("{sources:?}");
        assert!(
            !shown.contains("s3cr") && !shown.contains("t0ken"),
            "{shown}"
        );
        let blank = Archive::new("http://me:a%20machine%20b@mirror.example");
        assert!(blank.is_closed());
        assert_eq!(blank.auth(), None);
    }
}
