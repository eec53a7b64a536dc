//! A registry on this host: the parts of the OCI distribution specification 1.1 that a pull uses.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::digest::sha256;
use crate::test_host::{head, serve, serve_behind_proxy};

pub(crate) const TOKEN: &str = "for-everybody";

#[derive(Default)]
struct Content {
    /// By `name/manifests/tag` or `name/blobs/digest`: media type and bytes.
    files: BTreeMap<String, (String, Vec<u8>)>,
    asked: Vec<String>,
    /// Who gives the token that it wants.
    token_at: Option<String>,
    /// How many answers a token is good for, where that ends.
    token_uses: Option<usize>,
    /// How many the last one has had.
    token_used: usize,
}

/// Serves until the process ends.
pub(crate) struct TestRegistry {
    /// `127.0.0.1:43210`.
    pub(crate) host: String,
    content: Arc<Mutex<Content>>,
}

impl TestRegistry {
    pub(crate) fn start() -> Self {
        let content: Arc<Mutex<Content>> = Arc::default();
        let served = Arc::clone(&content);
        let host = serve(move |stream, _| answer(stream, &served));
        Self { host, content }
    }

    /// The registry with the given name behind a proxy, see [`serve_behind_proxy`]; the proxy's address and
    /// its certificate.
    pub(crate) fn start_behind_proxy(name: &str) -> (Self, String, String) {
        let content: Arc<Mutex<Content>> = Arc::default();
        let served = Arc::clone(&content);
        let (proxy, certificate) =
            serve_behind_proxy(name, |_| {}, move |stream| answer(stream, &served));
        let host = name.to_owned();
        (Self { host, content }, proxy, certificate)
    }

    /// Only for those who ask for a token first, as Docker Hub does it, at an address that it names.
    pub(crate) fn demand_token(&self, from: &str) {
        self.content.lock().unwrap().token_at = Some(from.to_owned());
    }

    /// A token runs out after so many answers.
    pub(crate) fn limit_tokens(&self, uses: usize) {
        self.content.lock().unwrap().token_uses = Some(uses);
    }

    /// What was asked for, apart from `/v2/`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.content.lock().unwrap().asked.clone()
    }

    /// Offers the image of an OCI archive under `name:tag`; gives its digest. For several platforms
    /// it is the image for each, below an index.
    pub(crate) fn offer(
        &self,
        name: &str,
        tag: &str,
        archive: &[u8],
        platforms: &[&str],
    ) -> String {
        let mut content = self.content.lock().unwrap();
        let mut put = |kind: &str, key: &str, media_type: &str, bytes: &[u8]| {
            let path = format!("{name}/{kind}/{key}");
            let file = (media_type.to_owned(), bytes.to_vec());
            content.files.insert(path, file);
        };
        let mut index = Value::Null;
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if path == "index.json" {
                index = serde_json::from_slice(&bytes).unwrap();
            } else if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                let digest = format!("sha256:{hex}");
                put("blobs", &digest, "application/octet-stream", &bytes);
                put(
                    "manifests",
                    &digest,
                    "application/vnd.oci.image.manifest.v1+json",
                    &bytes,
                );
            }
        }
        let image = &index["manifests"][0];
        let digest = image["digest"].as_str().unwrap().to_owned();
        let media_type = image["mediaType"].as_str().unwrap().to_owned();
        if platforms.is_empty() {
            let (_, bytes) = content.files[&format!("{name}/manifests/{digest}")].clone();
            let file = (media_type, bytes);
            content
                .files
                .insert(format!("{name}/manifests/{tag}"), file);
            return digest;
        }
        let manifests: Vec<Value> = platforms
            .iter()
            .map(|platform| {
                let (os, architecture) = platform.split_once('/').unwrap();
                let mut image = image.clone();
                image["platform"] = json!({ "os": os, "architecture": architecture });
                image
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        let index = index.to_string().into_bytes();
        let digest = format!("sha256:{}", sha256(&index));
        for key in [&digest, tag] {
            let file = (media_type.to_owned(), index.clone());
            content
                .files
                .insert(format!("{name}/manifests/{key}"), file);
        }
        digest
    }

    /// Offers any bytes at `name/manifests/tag` or `name/blobs/digest`, or as a `token`.
    pub(crate) fn put(&self, path: &str, media_type: &str, bytes: impl Into<Vec<u8>>) {
        let mut content = self.content.lock().unwrap();
        let file = (media_type.to_owned(), bytes.into());
        content.files.insert(path.to_owned(), file);
    }

    /// Alters what one blob of `name` holds, but not the name under which it is asked for.
    pub(crate) fn damage(&self, name: &str) {
        let mut content = self.content.lock().unwrap();
        let begin = format!("{name}/blobs/");
        let blobs = content.files.iter_mut();
        let largest = blobs
            .filter(|(path, _)| path.starts_with(&begin))
            .max_by_key(|(_, (_, bytes))| bytes.len());
        let (_, (_, bytes)) = largest.unwrap();
        bytes[0] ^= 1;
    }
}

fn answer(mut stream: impl Read + Write, content: &Mutex<Content>) -> std::io::Result<()> {
    let lines = head(&mut BufReader::new(&mut stream))?;
    let path = lines.first().and_then(|line| line.split(' ').nth(1));
    let path = path.unwrap_or_default().to_owned();
    let mut respond = |status: &str, head: &str, body: &[u8]| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{head}\r\n"
        )?;
        stream.write_all(body)?;
        stream.flush()
    };
    let mut content = content.lock().unwrap();
    if path.starts_with("/token?") {
        content.asked.push(path);
        content.token_used = 0;
        let usual = || json!({ "token": TOKEN }).to_string().into_bytes();
        let body = content.files.get("token").map(|(_, bytes)| bytes.clone());
        return respond(
            "200 OK",
            "Content-Type: application/json\r\n",
            &body.unwrap_or_else(usual),
        );
    }
    let allowed = lines
        .iter()
        .any(|line| line.eq_ignore_ascii_case(&format!("authorization: Bearer {TOKEN}")))
        && content
            .token_uses
            .is_none_or(|uses| content.token_used < uses);
    content.token_used += usize::from(allowed);
    if let Some(from) = content.token_at.as_ref().filter(|_| !allowed) {
        let head = format!("WWW-Authenticate: Bearer realm=\"{from}\",service=\"test\"\r\n");
        return respond("401 Unauthorized", &head, b"{}");
    }
    if path == "/v2/" {
        return respond("200 OK", "", b"{}");
    }
    let asked = path.trim_start_matches("/v2/").to_owned();
    content.asked.push(asked.clone());
    let file = content.files.get(&asked).cloned();
    // Who hangs up early is not to keep others waiting.
    drop(content);
    match file {
        Some((media_type, bytes)) => {
            let head = format!("Content-Type: {media_type}\r\n");
            respond("200 OK", &head, &bytes)
        }
        None => {
            let error = json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown" }] });
            respond("404 Not Found", "", error.to_string().as_bytes())
        }
    }
}
