//! Registries that nobody should believe.

use std::ffi::OsStr;

use serde_json::Value;
use sha2::{Digest as _, Sha512};

use super::test_registry::{TOKEN, TestRegistry};
use super::*;
use crate::cache::tests_support::Silent;
use crate::digest::sha256;
use crate::download::test_server::TestServer;
use crate::pod_network::ImageArchive;
use crate::test_host::{said_with, says};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &[u8] = br#"{"os":"linux","architecture":"amd64"}"#;

struct Bench {
    dir: tempfile::TempDir,
    cache: Cache,
    registry: TestRegistry,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            cache: Cache::at(&dir.path().join("cache")).unwrap(),
            dir,
            registry: TestRegistry::start(),
        }
    }

    /// An image without layers, of a registry that wants a token.
    fn of_one_for_token_holders() -> Self {
        let bench = Self::new();
        let host = &bench.registry.host;
        bench.registry.demand_token(&format!("http://{host}/token"));
        bench.offer_blob(&config_digest(), CONFIG);
        let manifest = manifest(&described(&config_digest(), CONFIG.len()));
        bench.offer(MANIFEST, &manifest);
        bench
    }

    fn name(&self) -> String {
        format!("{}/agent:v1", self.registry.host)
    }

    /// Offers a manifest under the name that is pulled.
    fn offer(&self, media_type: &str, manifest: &Value) {
        let path = "agent/manifests/v1";
        self.registry.put(path, media_type, manifest.to_string());
    }

    fn offer_blob(&self, digest: &str, bytes: &[u8]) {
        let path = format!("agent/blobs/{digest}");
        self.registry.put(&path, "application/octet-stream", bytes);
    }

    async fn pull(&self) -> Result<(), String> {
        self.pull_as(&self.name()).await
    }

    async fn pull_as(&self, name: &str) -> Result<(), String> {
        let pulled = pull(&self.cache, &Silent, name, name).await;
        pulled.map_err(|error| error.to_string().replace(&self.registry.host, "HOST"))
    }

    /// What it says to a manifest; nothing of it may be left.
    async fn refused(&self, media_type: &str, manifest: &Value) -> String {
        self.offer(media_type, manifest);
        let refused = self.pull().await.unwrap_err();
        assert_eq!(kept(&self.cache, &self.name()).unwrap(), None);
        assert!(!self.cache.root().join(RECORD).exists());
        refused
    }
}

/// A manifest without layers, whose configuration is described like this.
fn manifest(config: &Value) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] })
}

fn described(digest: &str, size: impl Into<Value>) -> Value {
    let media_type = "application/vnd.oci.image.config.v1+json";
    json!({ "mediaType": media_type, "digest": digest, "size": size.into() })
}

fn config_digest() -> String {
    format!("sha256:{}", sha256(CONFIG))
}

#[tokio::test]
async fn a_digest_is_no_path() {
    let bench = Bench::new();
    let precious = bench.dir.path().join("precious");
    fs::write(&precious, "mine").unwrap();
    let digits = "a".repeat(64);
    let others = [
        format!("sha256:{}", precious.display()),
        "sha256:../../../../../precious".to_owned(),
        format!("sha256:{}", &digits[1..]),
        format!("sha256:{}", digits.to_uppercase()),
        format!("sha256:{}", "g".repeat(64)),
        format!("sha512:{}", "a".repeat(128)),
        digits,
    ];
    for digest in others {
        bench.offer_blob(&digest, b"not mine");
        let refused = bench
            .refused(MANIFEST, &manifest(&described(&digest, 8)))
            .await;
        assert!(refused.contains(&digest), "{refused}");
        assert!(refused.contains("is no SHA-256"), "{refused}");
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": digest, "size": 8,
            "platform": { "os": "linux", "architecture": "amd64" },
        }]});
        let refused = bench.refused(INDEX, &index).await;
        assert!(refused.contains("is no SHA-256"), "{refused}");
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    // Nobody asked for what such a digest leads to.
    assert!(
        bench
            .registry
            .asked()
            .iter()
            .all(|path| path == "agent/manifests/v1")
    );
}

#[tokio::test]
async fn an_image_is_named_by_what_is_in_it_whatever_the_registry_calls_it() {
    let bench = Bench::new();
    bench.offer_blob(&config_digest(), CONFIG);
    let manifest = manifest(&described(&config_digest(), CONFIG.len()));
    let sha512: String = Sha512::digest(manifest.to_string())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    bench.offer(
        &format!("{MANIFEST}\r\nDocker-Content-Digest: sha512:{sha512}"),
        &manifest,
    );
    bench.pull().await.unwrap();
    let archive = kept(&bench.cache, &bench.name()).unwrap().unwrap();
    let archive = ImageArchive::read(&archive).unwrap();
    let digest = Digest::sha256_of(manifest.to_string().as_bytes());
    assert_eq!(archive.held[0].digest, digest);

    // And what is asked for by another digest is not what came.
    let other = format!("{}/agent@sha256:{}", bench.registry.host, "a".repeat(64));
    let path = format!("agent/manifests/sha256:{}", "a".repeat(64));
    bench.registry.put(&path, MANIFEST, manifest.to_string());
    let refused = bench.pull_as(&other).await.unwrap_err();
    assert!(
        refused.contains("it is not what was published"),
        "{refused}"
    );
    let long = format!("{}/agent@sha512:{sha512}", bench.registry.host);
    let refused = bench.pull_as(&long).await.unwrap_err();
    assert!(refused.contains("is no SHA-256"), "{refused}");
}

#[tokio::test]
async fn no_more_is_taken_of_a_part_than_its_manifest_declares() {
    let bench = Bench::new();
    let bytes = vec![7; 8 << 20];
    let digest = format!("sha256:{}", sha256(&bytes));
    bench.offer_blob(&digest, &bytes);
    let refused = bench
        .refused(MANIFEST, &manifest(&described(&digest, 8)))
        .await;
    assert!(
        refused.ends_with("is larger than the 8 B that its manifest says"),
        "{refused}"
    );
    let more = described(&digest, (8 << 20) + 1);
    let refused = bench.refused(MANIFEST, &manifest(&more)).await;
    assert!(
        refused.contains("has 8388608 bytes, and its manifest says 8388609"),
        "{refused}"
    );
    let refused = bench
        .refused(MANIFEST, &manifest(&described(&digest, -8)))
        .await;
    assert!(refused.contains("expected u64"), "{refused}");
    let asked = bench.registry.asked().len();
    for immense in [1_u64 << 60, u64::MAX] {
        let refused = bench
            .refused(MANIFEST, &manifest(&described(&digest, immense)))
            .await;
        assert!(
            refused.starts_with("too little disk space: 16.0 EiB needed, ")
                || refused.starts_with("too little disk space: 2.0 EiB needed, "),
            "{refused}"
        );
    }
    // The manifests alone.
    assert_eq!(bench.registry.asked().len(), asked + 2);
}

#[tokio::test]
async fn manifests_are_short() {
    let bench = Bench::new();
    let mut long = manifest(&described(&config_digest(), CONFIG.len()));
    long["annotations"] = json!({ "x": "x".repeat(4 << 20) });
    bench.offer_blob(&config_digest(), CONFIG);
    let refused = bench.refused(MANIFEST, &long).await;
    assert!(refused.contains("it is larger than 4.0 MiB"), "{refused}");
    // What is one and the other would be one thing here and another on a node.
    let mut both = manifest(&described(&config_digest(), CONFIG.len()));
    both["manifests"] = json!([]);
    let refused = bench.refused(MANIFEST, &both).await;
    assert!(refused.contains("both an index and an image"), "{refused}");
}

#[tokio::test]
async fn a_token_is_short() {
    let bench = Bench::new();
    let host = &bench.registry.host;
    bench.registry.demand_token(&format!("http://{host}/token"));
    let token = json!({ "token": "x".repeat(64 << 10) });
    bench
        .registry
        .put("token", "application/json", token.to_string());
    let refused = bench.pull().await.unwrap_err();
    assert!(refused.contains("it is larger than 64.0 KiB"), "{refused}");
}

/// Docker Hub gives both names, and others the one of OAuth 2 alone.
#[tokio::test]
async fn a_token_has_one_name_or_both() {
    let answers = [
        json!({ "token": TOKEN, "access_token": TOKEN, "expires_in": 300 }),
        json!({ "access_token": TOKEN }),
    ];
    for answer in answers {
        let bench = Bench::of_one_for_token_holders();
        bench
            .registry
            .put("token", "application/json", answer.to_string());
        bench.pull().await.unwrap();
    }
    let bench = Bench::of_one_for_token_holders();
    bench.registry.put("token", "application/json", "{}");
    let refused = bench.pull().await.unwrap_err();
    assert!(refused.ends_with("what it gave is no token"), "{refused}");
}

#[tokio::test]
async fn a_token_that_has_run_out_is_replaced_once_for_each_request() {
    let bench = Bench::of_one_for_token_holders();
    bench.registry.limit_tokens(1);
    bench.pull().await.unwrap();
    let (token, blob) = (
        "/token?scope=repository%3Aagent%3Apull&service=test",
        format!("agent/blobs/{}", config_digest()),
    );
    assert_eq!(
        bench.registry.asked(),
        [token, "agent/manifests/v1", token, &blob]
    );

    // One that is never taken is not asked for without end.
    let bench = Bench::of_one_for_token_holders();
    bench.registry.limit_tokens(0);
    let refused = bench.pull().await.unwrap_err();
    assert!(refused.contains("401"), "{refused}");
    assert_eq!(bench.registry.asked(), [token]);
}

#[tokio::test]
async fn an_address_in_a_manifest_is_not_asked() {
    let bench = Bench::new();
    let elsewhere = TestServer::start();
    elsewhere.put("latest/meta-data", CONFIG);
    let mut config = described(&config_digest(), CONFIG.len());
    config["urls"] = json!([elsewhere.url("latest/meta-data").to_string()]);
    let refused = bench.refused(MANIFEST, &manifest(&config)).await;
    assert!(refused.contains("404"), "{refused}");
    assert_eq!(elsewhere.asked(), [""; 0]);
}

/// Docker Hub, quay.io and all others that are not on this host: TLS, and a token of whom they name.
#[test]
fn a_registry_over_tls_gives_its_token_over_tls() {
    let pulled = says(|name| {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let pulled = runtime.block_on(pull(&cache, &Silent, name, name));
        pulled.map_or_else(
            |error| error.to_string(),
            |()| {
                let archive = kept(&cache, name).unwrap().unwrap();
                let archive = ImageArchive::read(&archive).unwrap();
                archive.held[0].digest.to_string()
            },
        )
    });
    if pulled {
        return;
    }
    let (registry, proxy, certificate) = TestRegistry::start_behind_proxy("registry.invalid");
    let manifest = manifest(&described(&config_digest(), CONFIG.len())).to_string();
    registry.put("agent/manifests/v1", MANIFEST, manifest.clone());
    let blob = format!("agent/blobs/{}", config_digest());
    registry.put(&blob, "application/octet-stream", CONFIG);
    registry.demand_token("https://registry.invalid/token");

    let trusted = tempfile::NamedTempFile::new().unwrap();
    fs::write(&trusted, certificate).unwrap();
    let proxy = format!("http://{proxy}");
    let asked = |trusting: bool| {
        let mut environment = vec![("https_proxy", OsStr::new(&proxy))];
        if trusting {
            environment.push(("SSL_CERT_FILE", trusted.path().as_os_str()));
        }
        let test = "registry::tests::a_registry_over_tls_gives_its_token_over_tls";
        said_with(test, "registry.invalid/agent:v1", &environment)
    };
    let stranger = asked(false);
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    assert_eq!(registry.asked(), [""; 0]);

    let digest = Digest::sha256_of(manifest.as_bytes()).to_string();
    assert_eq!(asked(true), digest);
    let token = "/token?scope=repository%3Aagent%3Apull&service=test";
    assert_eq!(registry.asked(), [token, "agent/manifests/v1", &blob]);

    // A token that anybody on the way may read, or make.
    registry.demand_token("http://registry.invalid/token");
    let refused = asked(true);
    assert!(
        refused.contains("http://registry.invalid/token, which nobody vouches for"),
        "{refused}"
    );
    assert_eq!(registry.asked().len(), 3);
}
