//! The two files that say how names are looked up: hosts(5) and resolv.conf(5).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where name servers listen.
pub(crate) const PORT: u16 = 53;

/// As much of resolv.conf(5) as is looked at here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The first name server.
    nameserver: Option<IpAddr>,
    /// The domains of the last `search` or `domain` line, without final dots.
    search: Vec<String>,
    /// A name with at least so many dots is asked for as it is first.
    ndots: usize,
}

impl Config {
    /// Reads /etc/resolv.conf. A missing file is an empty one, as for any resolver (resolver(5)).
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut config = Self {
            nameserver: None,
            search: Vec::new(),
            ndots: 1,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if config.nameserver.is_none() => {
                    config.nameserver = words.next().and_then(|word| word.parse().ok());
                }
                Some("search" | "domain") => {
                    let domains = words.map(|word| word.trim_end_matches('.').to_owned());
                    config.search = domains.collect();
                }
                Some("options") => {
                    let ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    for ndots in ndots {
                        // The manual caps it silently.
                        config.ndots = usize::min(ndots, 15);
                    }
                }
                _ => {}
            }
        }
        config
    }

    /// Whom to ask.
    pub(crate) fn server(&self) -> io::Result<SocketAddr> {
        let address = self
            .nameserver
            .ok_or_else(|| io::Error::other("no nameserver in /etc/resolv.conf"))?;
        Ok(SocketAddr::new(address, PORT))
    }

    /// The names to ask for one after the other until one exists, as res_search(3) does: a name with
    /// few dots within the search domains first, one with many as it is first, and one with a final
    /// dot as it is only.
    pub(crate) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let within = self.search.iter().map(|domain| match domain.as_str() {
            "" => name.to_owned(),
            domain => format!("{name}.{domain}"),
        });
        let mut names: Vec<String> = within.collect();
        let place = if name.matches('.').count() >= self.ndots {
            0
        } else {
            names.len()
        };
        names.insert(place, name.to_owned());
        names
    }
}

/// The IPv4 address that a text in the shape of /etc/hosts has for a name.
pub(crate) fn in_hosts(hosts: &str, name: &str) -> Option<Ipv4Addr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_the_manual_says() {
        let hosts = "127.0.0.1 localhost\n::1 six\n10.9.8.7\tNode1 alias # node2\n";
        assert_eq!(in_hosts(hosts, "alias"), Some(Ipv4Addr::new(10, 9, 8, 7)));
        assert_eq!(in_hosts(hosts, "node1"), Some(Ipv4Addr::new(10, 9, 8, 7)));
        assert_eq!(in_hosts(hosts, "node2"), None);
    }

    #[test]
    fn resolv_conf_is_read_as_the_manual_says() {
        let config = Config::parse(
            "# nameserver 10.0.0.9\n; options ndots:9\ndomain old.test\n\
             search default.svc.cluster.local svc.cluster.local. \n\
             nameserver 10.0.0.10\nnameserver 10.0.0.11\noptions timeout:1 ndots:5\n",
        );
        let search = ["default.svc.cluster.local", "svc.cluster.local"];
        let expected = Config {
            nameserver: Some(Ipv4Addr::new(10, 0, 0, 10).into()),
            search: search.map(Into::into).into(),
            ndots: 5,
        };
        assert_eq!(config, expected);
        assert_eq!(Config::parse("options ndots:99").ndots, 15);
        let empty = Config {
            nameserver: None,
            search: Vec::new(),
            ndots: 1,
        };
        assert_eq!(Config::parse(""), empty);
    }

    #[test]
    fn the_search_domains_come_before_a_name_with_few_dots_and_after_one_with_many() {
        let config = Config::parse("search a.test b.test\noptions ndots:2");
        assert_eq!(
            config.candidates("web.default"),
            ["web.default.a.test", "web.default.b.test", "web.default"]
        );
        assert_eq!(
            config.candidates("web.default.svc"),
            [
                "web.default.svc",
                "web.default.svc.a.test",
                "web.default.svc.b.test"
            ]
        );
        assert_eq!(config.candidates("web."), ["web"]);
        assert_eq!(
            Config::parse("search .").candidates("web"),
            ["web", "web"],
            "the root as a search domain"
        );
    }
}
