//! Keys and certificates, made on the host in milliseconds.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::plan::addresses;
use crate::plan::breaks::Break;

/// A guest's clock stays at the time of its freeze, and a machine may be powered on again with an
/// older one: certificates begin well before anything.
const BEGINS_BEFORE: Duration = Duration::days(365);
const LASTS: Duration = Duration::days(3650);

/// A certificate with its key, both PEM (the key as PKCS #8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The key pair that signs and verifies ServiceAccount tokens, both PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeys {
    /// PKCS #8.
    pub private: String,
    /// SubjectPublicKeyInfo.
    pub public: String,
}

/// Who a client certificate says its holder is: user and groups, by the API server's rule (CN is
/// the user, each O a group).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client<'a> {
    /// User name.
    pub user: &'a str,
    /// Group, if any.
    pub group: Option<&'a str>,
}

/// What a certificate says of its holder, and what it is good for: all of it that is not drawn.
struct Request {
    user: String,
    group: Option<String>,
    /// Whether it dials with it (`clientAuth`).
    dials: bool,
    /// The names and addresses that it serves under (`serverAuth`).
    serves: Vec<String>,
}

impl Request {
    fn client(who: &Client<'_>) -> Self {
        Self {
            user: who.user.to_owned(),
            group: who.group.map(str::to_owned),
            dials: true,
            serves: Vec::new(),
        }
    }

    /// The API server's.
    fn serving(broken: Option<Break>) -> Self {
        Self {
            user: "kube-apiserver".to_owned(),
            group: None,
            dials: false,
            serves: certificate_names(broken),
        }
    }

    /// A kubelet's, which both dials and serves with it.
    fn node(number: u32, address: Ipv4Addr) -> Self {
        let name = addresses::node_name(number);
        Self {
            user: format!("system:node:{name}"),
            group: Some("system:nodes".to_owned()),
            dials: true,
            serves: vec![name, address.to_string()],
        }
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(self.serves.clone())?;
        params.distinguished_name = named(&self.user, self.group.as_deref());
        if self.dials {
            params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if !self.serves.is_empty() {
            params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        }
        Ok(params)
    }

    /// What stands for the certificate where nothing drawn may.
    fn placeholder(&self) -> Identity {
        let Self {
            user,
            group,
            dials,
            serves,
        } = self;
        let group = group.as_deref().unwrap_or("no group");
        let use_of = if *dials { "dials" } else { "does not dial" };
        Identity {
            certificate: format!(
                "certificate of {user} in {group}, {use_of}, serves as [{}]",
                serves.join(", ")
            ),
            key: format!("key of {user}"),
        }
    }
}

/// All keys and certificates of one cluster. ECDSA P-256 throughout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pki {
    /// The authority that signs everything else.
    pub ca: Identity,
    /// ServiceAccount token keys.
    pub tokens: TokenKeys,
    /// What the API server shows.
    pub serving: Identity,
    /// What the API server shows to kubelets.
    pub kubelet_client: Identity,
    /// The controller manager.
    pub controller_manager: Identity,
    /// The scheduler.
    pub scheduler: Identity,
    /// kube-proxy, the same on every node.
    pub kube_proxy: Identity,
    /// The harness itself, in `system:masters`.
    pub admin: Identity,
    nodes: Vec<Identity>,
}

impl Pki {
    /// Makes everything for a cluster of as many nodes as have these addresses, in their order. `now` is the time from which the
    /// validity counts: it begins a year before and lasts ten.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn new(
        nodes: &[Ipv4Addr],
        broken: Option<Break>,
        now: OffsetDateTime,
    ) -> Result<Self, rcgen::Error> {
        let begins = begin(now);
        let ca_key = KeyPair::generate()?;
        let ca = Identity {
            certificate: ca_params(begins).self_signed(&ca_key)?.pem(),
            key: ca_key.serialize_pem(),
        };
        let issuer = Issuer::new(ca_params(begins), ca_key);
        let token_key = KeyPair::generate()?;
        let tokens = TokenKeys {
            private: token_key.serialize_pem(),
            public: token_key.public_key_pem(),
        };
        Self::of(nodes, broken, ca, tokens, |request| {
            issue(&issuer, request.params()?, begins)
        })
    }

    /// Everything, each certificate made by `make`.
    fn of<E>(
        nodes: &[Ipv4Addr],
        broken: Option<Break>,
        ca: Identity,
        tokens: TokenKeys,
        make: impl Fn(&Request) -> Result<Identity, E>,
    ) -> Result<Self, E> {
        let client = |user, group| make(&Request::client(&Client { user, group }));
        Ok(Self {
            ca,
            tokens,
            serving: make(&Request::serving(broken))?,
            kubelet_client: client("kube-apiserver-kubelet-client", Some("system:masters"))?,
            controller_manager: client("system:kube-controller-manager", None)?,
            scheduler: client("system:kube-scheduler", None)?,
            kube_proxy: client("system:kube-proxy", None)?,
            admin: client("podwire", Some("system:masters"))?,
            nodes: (1..)
                .zip(nodes)
                .map(|(number, address)| make(&Request::node(number, *address)))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The identity of a node's kubelet, `system:node:nodeN`; it both dials and serves with it.
    pub fn node(&self, number: u32) -> Option<&Identity> {
        self.nodes
            .get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Another serving certificate for the API server, signed now.
    ///
    /// # Errors
    /// When the authority's key is unusable.
    pub fn serving_certificate(&self, broken: Option<Break>) -> Result<Identity, rcgen::Error> {
        self.sign(&Request::serving(broken))
    }

    /// A certificate for one more client, signed now.
    ///
    /// # Errors
    /// When the authority's key is unusable.
    pub fn client_certificate(&self, who: &Client<'_>) -> Result<Identity, rcgen::Error> {
        self.sign(&Request::client(who))
    }

    fn sign(&self, request: &Request) -> Result<Identity, rcgen::Error> {
        let begins = begin(OffsetDateTime::now_utc());
        let key = KeyPair::from_pem(&self.ca.key)?;
        let issuer = Issuer::new(ca_params(begins), key);
        issue(&issuer, request.params()?, begins)
    }

    /// The same text in every stage that is made of the same certificates: what they say, and nothing
    /// that is drawn.
    pub(crate) fn placeholder(nodes: &[Ipv4Addr], broken: Option<Break>) -> Self {
        let ca = Identity {
            certificate: format!(
                "certificate of the authority, valid for {} days, {} of them past",
                LASTS.whole_days(),
                BEGINS_BEFORE.whole_days()
            ),
            key: "key of the authority".to_owned(),
        };
        let tokens = TokenKeys {
            private: "token key".to_owned(),
            public: "public token key".to_owned(),
        };
        let make = |request: &Request| Ok::<_, Infallible>(request.placeholder());
        let Ok(pki) = Self::of(nodes, broken, ca, tokens, make);
        pki
    }
}

/// The names that the API server's certificate carries.
fn certificate_names(broken: Option<Break>) -> Vec<String> {
    let mut names = addresses::serving_names();
    if broken == Some(Break::San) {
        names.retain(|name| !addresses::SERVICE_NAMES.contains(&name.as_str()));
    }
    names
}

fn begin(now: OffsetDateTime) -> OffsetDateTime {
    now.saturating_sub(BEGINS_BEFORE)
}

fn named(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn ca_params(begins: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("kubernetes", None);
    // Without basicConstraints Go refuses it as an issuer.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.not_before = begins;
    params.not_after = begins.saturating_add(LASTS);
    params
}

fn issue(
    issuer: &Issuer<'_, KeyPair>,
    mut params: CertificateParams,
    begins: OffsetDateTime,
) -> Result<Identity, rcgen::Error> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = begins;
    params.not_after = begins.saturating_add(LASTS);
    let key = KeyPair::generate()?;
    Ok(Identity {
        certificate: params.signed_by(&key, issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::layout::Layout;

    const NOW: OffsetDateTime = time::macros::datetime!(2000-01-01 0:00 UTC);

    fn pki(broken: Option<Break>) -> Pki {
        let nodes = [1, 2].map(|number| Layout::Flat.address(number));
        Pki::new(&nodes, broken, NOW).unwrap()
    }

    /// Verifies as a TLS client does, at a time within the validity.
    fn verified(pki: &Pki, identity: &Identity, name: &str) -> Result<(), rustls::Error> {
        use rustls::client::WebPkiServerVerifier;
        use rustls::client::danger::ServerCertVerifier as _;
        use rustls_pki_types::pem::PemObject as _;
        use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(&pki.ca.certificate)).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.into());
        let verifier = verifier.build().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = std::time::Duration::from_secs(NOW.unix_timestamp().unsigned_abs() + 60);
        let now = UnixTime::since_unix_epoch(now);
        verifier
            .verify_server_cert(&der(&identity.certificate), &[], &name, &[], now)
            .map(drop)
    }

    #[test]
    fn the_api_server_is_verified_under_each_of_its_names_and_no_other() {
        let pki = pki(None);
        for name in addresses::serving_names() {
            verified(&pki, &pki.serving, &name).unwrap();
        }
        assert!(verified(&pki, &pki.serving, "node2").is_err());
        assert!(verified(&pki, &pki.kube_proxy, "node1").is_err());
    }

    #[test]
    fn the_break_takes_only_names_that_no_component_dials() {
        let pki = pki(Some(Break::San));
        let lost: Vec<String> = addresses::serving_names()
            .into_iter()
            .filter(|name| verified(&pki, &pki.serving, name).is_err())
            .collect();
        assert_eq!(lost, addresses::SERVICE_NAMES);
    }

    #[test]
    fn a_kubelet_serves_under_its_name_and_address() {
        let pki = pki(None);
        let node2 = pki.node(2).unwrap();
        verified(&pki, node2, "node2").unwrap();
        verified(&pki, node2, "172.30.0.12").unwrap();
        assert!(verified(&pki, node2, "node1").is_err());
        assert!(pki.node(0).is_none() && pki.node(3).is_none());
    }

    #[test]
    fn what_is_signed_later_is_valid_too() {
        let pki = Pki::new(&[], None, OffsetDateTime::now_utc() - Duration::days(360)).unwrap();
        let later = pki.serving_certificate(None).unwrap();
        assert_ne!(later.key, pki.serving.key);
        // A year before now is after the time at which this looks.
        let early = verified(&pki, &later, "node1").unwrap_err();
        assert!(format!("{early:?}").contains("NotValidYet"), "{early:?}");
    }
}
