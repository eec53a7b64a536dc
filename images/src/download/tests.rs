use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use proptest::prelude::*;

use super::test_server::{TestServer, Trouble};
use super::*;
use crate::cache::PARTIAL;
use crate::digest::sha256;
use crate::test_host::{Heard, nobody, said_with, says};

const KEY: SourceKey = SourceKey::Kubernetes;

struct Bench {
    _dir: tempfile::TempDir,
    cache: Cache,
    heard: Heard,
    server: TestServer,
    /// How long it may say nothing.
    silence: Duration,
    /// How large a file may be.
    most: u64,
}

/// For what comes at once, on a machine however busy.
const LONG: Duration = Duration::from_secs(60);

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            cache: Cache::at(&dir.path().join("cache")).unwrap(),
            _dir: dir,
            heard: Heard::default(),
            server: TestServer::start(),
            silence: LONG,
            most: u64::MAX,
        }
    }

    fn downloader(&self, retries: u32) -> Downloader<'_> {
        let limits = Limits {
            connect: LONG,
            silence: self.silence,
            retries,
            pause: Duration::from_millis(1),
            file: self.most,
        };
        // What a proxy does with addresses of this host is not what is tested.
        Downloader::with(
            &self.cache,
            &self.heard,
            Client::builder().no_proxy(),
            limits,
        )
        .unwrap()
    }

    /// Asks for `path`, which is to hold `bytes`.
    fn file(&self, retries: u32, path: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let digest = sha256(bytes).parse().unwrap();
        let file = self
            .downloader(retries)
            .file(KEY, &self.server.url(path), &digest);
        file.map(|path| fs::read(path).unwrap())
            .map_err(|error| self.told(&error))
    }

    fn text(&self, path: &str) -> Result<String, String> {
        let text = self.downloader(0).text(KEY, &self.server.url(path));
        text.map_err(|error| self.told(&error))
    }

    fn told(&self, error: &DownloadError) -> String {
        error.to_string().replace(&self.server.host, "HOST")
    }

    /// What is kept of files that have not come as a whole.
    fn partial(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(self.cache.folder(PARTIAL).unwrap()).unwrap();
        let files = entries.map(|entry| fs::read(entry.unwrap().path().join(partial::DATA)));
        files.map(Result::unwrap_or_default).collect()
    }
}

fn bytes() -> Vec<u8> {
    (0..100_000_u32)
        .map(|number| (number % 251) as u8)
        .collect()
}

#[test]
fn a_file_comes_once_and_is_then_there_without_a_server() {
    let bench = Bench::new();
    bench.server.put("a/kubelet", bytes());
    assert_eq!(bench.file(0, "a/kubelet", &bytes()).unwrap(), bytes());
    assert_eq!(bench.server.asked(), ["a/kubelet"]);
    bench.server.remove("a/kubelet");
    assert_eq!(bench.file(0, "a/kubelet", &bytes()).unwrap(), bytes());
    assert_eq!(bench.server.asked(), [""; 0]);
    assert_eq!(bench.partial().len(), 0);
    // It is a name of the contents: another address makes no difference.
    assert_eq!(bench.file(0, "b/other", &bytes()).unwrap(), bytes());
}

#[test]
fn what_was_altered_in_the_cache_comes_again() {
    let bench = Bench::new();
    bench.server.put("x", bytes());
    let digest = sha256(&bytes()).parse().unwrap();
    let downloader = bench.downloader(0);
    let path = downloader
        .file(KEY, &bench.server.url("x"), &digest)
        .unwrap();
    let mut altered = bytes();
    altered[7] ^= 1;
    fs::write(&path, altered).unwrap();
    assert_eq!(bench.file(0, "x", &bytes()).unwrap(), bytes());
    assert_eq!(bench.server.asked().len(), 2);
}

#[test]
fn a_sha_512_is_as_good() {
    let bench = Bench::new();
    bench.server.put("x", "abc");
    let digest: Digest = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                          2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        .parse()
        .unwrap();
    let path = bench
        .downloader(0)
        .file(KEY, &bench.server.url("x"), &digest);
    assert_eq!(fs::read(path.unwrap()).unwrap(), b"abc");
    bench.server.put("x", "abd");
    let other = Bench::new();
    let refused = other
        .downloader(0)
        .file(KEY, &bench.server.url("x"), &digest);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("it should be sha512:ddaf")
    );
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let bench = Bench::new();
    bench.server.put("x", bytes());
    bench.server.trouble(
        "x",
        [Trouble::Cut(40_000), Trouble::HangUp, Trouble::Cut(20_000)],
    );
    assert_eq!(bench.file(3, "x", &bytes()).unwrap(), bytes());
    assert_eq!(
        bench.server.asked(),
        ["x", "x from 40000", "x from 40000", "x from 60000"]
    );
    let heard = bench.heard.0.borrow().join("\n");
    assert!(
        heard.contains("the connection broke after 39.1 KiB"),
        "{heard}"
    );
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_gave_up() {
    let bench = Bench::new();
    bench.server.put("x", bytes());
    bench.server.trouble("x", [Trouble::Cut(40_000)]);
    let refused = bench.file(0, "x", &bytes()).unwrap_err();
    assert!(
        refused.contains("the connection broke after 39.1 KiB"),
        "{refused}"
    );
    assert!(
        refused.contains("the next run goes on from there"),
        "{refused}"
    );
    assert_eq!(bench.partial(), [&bytes()[..40_000]]);
    assert_eq!(bench.file(0, "x", &bytes()).unwrap(), bytes());
    assert_eq!(bench.server.asked(), ["x", "x from 40000"]);
    let heard = bench.heard.0.borrow();
    assert_eq!(
        heard.last().unwrap(),
        "downloading x, of which 39.1 KiB are here"
    );
    assert_eq!(bench.partial().len(), 0);
}

#[test]
fn a_file_that_changed_meanwhile_begins_anew() {
    let bench = Bench::new();
    let mut old = bytes();
    old[0] ^= 1;
    bench.server.put("x", old);
    bench.server.trouble("x", [Trouble::Cut(40_000)]);
    bench.file(0, "x", &bytes()).unwrap_err();
    bench.server.put("x", bytes());
    // The range is asked for, and the ETag is another one: the server sends all of it.
    assert_eq!(bench.file(0, "x", &bytes()).unwrap(), bytes());
    assert_eq!(bench.server.asked(), ["x", "x from 40000"]);
}

#[test]
fn without_an_etag_or_from_another_address_it_begins_anew() {
    let bench = Bench::new();
    bench.server.put("x", bytes());
    bench.server.put("mirror/x", bytes());
    bench.server.trouble("x", [Trouble::Cut(40_000)]);
    bench.file(0, "x", &bytes()).unwrap_err();
    assert_eq!(bench.file(0, "mirror/x", &bytes()).unwrap(), bytes());
    assert_eq!(bench.server.asked(), ["x", "mirror/x"]);

    let bench = Bench::new();
    bench.server.put("x", bytes());
    bench.server.trouble("x", [Trouble::Bare]);
    assert_eq!(bench.file(0, "x", &bytes()).unwrap(), bytes());
}

#[test]
fn what_had_come_whole_before_the_process_ended_is_used() {
    let bench = Bench::new();
    bench.server.put("x", bytes());
    let digest: Digest = sha256(&bytes()).parse().unwrap();
    let url = bench.server.url("x");
    let mut partial = Partial::open(&bench.cache, &url, &digest).unwrap();
    let tag = format!("\"{}\"", &sha256(&bytes())[..8]);
    partial.begin(&url, Some(tag)).unwrap();
    partial.append(&bytes()).unwrap();
    drop(partial);
    assert_eq!(bench.file(0, "x", &bytes()).unwrap(), bytes());
    assert_eq!(bench.server.asked(), ["x from 100000"]);
}

#[test]
fn another_digest_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.server.put("x", "abd");
    insta::assert_snapshot!(bench.file(3, "x", b"abc").unwrap_err(), @"cannot download http://HOST/x (source `kubernetes`): it is not what was published: it should be sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad and is sha256:a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9; what came was thrown away; if the next run says the same, the mirror is wrong: another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    assert_eq!(bench.partial().len(), 0);
    assert!(!bench.cache.path(Kind::Download, "").exists());
    // It is not asked for again at once: it would be the same.
    assert_eq!(bench.server.asked(), ["x"]);
}

#[test]
fn what_a_server_refuses_is_told_with_source_and_address() {
    let bench = Bench::new();
    insta::assert_snapshot!(bench.file(3, "v1.36.9/kubelet", b"").unwrap_err(), @"cannot download http://HOST/v1.36.9/kubelet (source `kubernetes`): the server does not have it (404); is there such a version? If it is, another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    bench
        .server
        .trouble("x", [Trouble::Status("503 Service Unavailable")]);
    insta::assert_snapshot!(bench.file(3, "x", b"").unwrap_err(), @"cannot download http://HOST/x (source `kubernetes`): the server answered 503 Service Unavailable; try later; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    insta::assert_snapshot!(bench.text("x").unwrap_err(), @"cannot download http://HOST/x (source `kubernetes`): the server does not have it (404); is there such a version? If it is, another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    assert_eq!(
        bench.server.asked().len(),
        3,
        "only broken connections are tried again"
    );
}

#[test]
fn redirections_are_followed_but_not_in_circles() {
    let bench = Bench::new();
    bench.server.put("x", bytes());
    bench.server.redirect("latest", "/x");
    assert_eq!(bench.file(0, "latest", &bytes()).unwrap(), bytes());
    bench.server.redirect("a", "/b");
    bench.server.redirect("b", "/a");
    insta::assert_snapshot!(bench.file(0, "a", b"").unwrap_err(), @"cannot download http://HOST/a (source `kubernetes`): the server redirects in circles, 11 times; a proxy or a mirror may answer in its place; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
}

#[test]
fn a_silent_server_is_not_waited_for() {
    let mut bench = Bench::new();
    bench.silence = Duration::from_secs(3);
    bench.server.put("x", bytes());
    bench
        .server
        .trouble("x", [Trouble::Silence(0), Trouble::Silence(50_000)]);
    insta::assert_snapshot!(bench.file(0, "x", &bytes()).unwrap_err(), @"cannot download http://HOST/x (source `kubernetes`): the server was silent for 3 s; what has come is kept: the next run goes on from there; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    bench.file(0, "x", &bytes()).unwrap_err();
    assert_eq!(bench.partial(), [&bytes()[..50_000]]);
    bench.silence = LONG;
    assert_eq!(bench.file(0, "x", &bytes()).unwrap(), bytes());
}

#[test]
fn what_does_not_fit_is_said_before_or_when_it_happens() {
    let bench = Bench::new();
    bench.server.put("x", bytes());
    bench.server.trouble("x", [Trouble::Announces(1 << 60)]);
    let refused = bench.file(3, "x", &bytes()).unwrap_err();
    assert!(
        refused.contains("too little disk space: 1.0 EiB needed, "),
        "{refused}"
    );
    assert!(
        refused.contains(" available; `cargo xtask clean`"),
        "{refused}"
    );
    // The kernel's own answer of a full disk (full(4)).
    let digest: Digest = sha256(b"other").parse().unwrap();
    let folder = bench
        .cache
        .folder(PARTIAL)
        .unwrap()
        .join(digest.file_name());
    fs::create_dir(&folder).unwrap();
    symlink("/dev/full", folder.join(partial::DATA)).unwrap();
    bench.server.put("other", "other");
    let refused = bench.file(3, "other", b"other").unwrap_err();
    assert!(
        refused.contains("too little disk space: 5 B needed, "),
        "{refused}"
    );
    assert!(!bench.cache.path(Kind::Download, "").exists());
}

#[test]
fn no_more_is_taken_than_a_file_may_have() {
    let mut bench = Bench::new();
    bench.most = 60_000;
    bench.server.put("x", bytes());
    insta::assert_snapshot!(bench.file(3, "x", &bytes()).unwrap_err(), @"cannot download http://HOST/x (source `kubernetes`): it is larger than 58.6 KiB, and no more is taken of what is asked for here; a proxy or a mirror may answer in its place; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    // What announces nothing is counted.
    bench.server.trouble("x", [Trouble::Bare]);
    let refused = bench.file(3, "x", &bytes()).unwrap_err();
    assert!(refused.contains("it is larger than 58.6 KiB"), "{refused}");
    assert_eq!(bench.server.asked().len(), 2);
    assert_eq!(bench.partial().len(), 0);
    // So is what goes on where it stopped, whatever is said to be missing.
    for missing in [50_000, u64::MAX - 3] {
        bench.most = u64::MAX;
        bench.server.trouble("x", [Trouble::Cut(40_000)]);
        bench.file(0, "x", &bytes()).unwrap_err();
        bench.most = 60_000;
        bench.server.trouble("x", [Trouble::Announces(missing)]);
        let refused = bench.file(0, "x", &bytes()).unwrap_err();
        assert!(refused.contains("it is larger than 58.6 KiB"), "{refused}");
        assert_eq!(bench.server.asked(), ["x", "x from 40000"]);
        assert_eq!(bench.partial().len(), 0);
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_told_apart() {
    let bench = Bench::new();
    let digest: Digest = sha256(b"").parse().unwrap();
    let refused = |url: &str| {
        let error = bench
            .downloader(3)
            .file(KEY, &url.parse().unwrap(), &digest)
            .unwrap_err();
        bench.told(&error)
    };
    let (gone, _port) = nobody();
    let told = refused(&format!("http://{gone}/x"));
    assert!(told.contains("the connection was refused: "), "{told}");
    assert!(told.contains("A proxy goes into https_proxy"), "{told}");
    let told = refused("http://nowhere.invalid/x");
    assert!(
        told.contains("the name of the server is not found: "),
        "{told}"
    );
    // It speaks HTTP without TLS.
    let told = refused(&format!("https://{}/x", bench.server.host));
    assert!(told.contains("TLS failed: "), "{told}");
}

#[test]
fn a_password_goes_to_its_server_and_nowhere_else() {
    let bench = Bench::new();
    bench.server.put("sums", "abc  file\n");
    bench.server.put("x", bytes());
    let url = |path: &str| -> Address {
        let address = format!("http://user:s3cret@{}/{path}", bench.server.host);
        address.parse().unwrap()
    };
    let downloader = bench.downloader(0);
    downloader.text(KEY, &url("sums")).unwrap();
    // RFC 7617: user:s3cret
    let who = "Basic dXNlcjpzM2NyZXQ=";
    assert_eq!(bench.server.asked(), [format!("sums as {who}")]);
    let digest = sha256(&bytes()).parse().unwrap();
    bench.server.trouble("x", [Trouble::Cut(40_000)]);
    let mut told = vec![downloader.file(KEY, &url("x"), &digest).unwrap_err()];
    bench.server.trouble("y", [Trouble::HangUp]);
    for path in ["y", "none"] {
        told.push(downloader.text(KEY, &url(path)).unwrap_err());
    }
    let (gone, _port) = nobody();
    let address = format!("http://user:s3cret@{gone}/x").parse().unwrap();
    told.push(downloader.text(KEY, &address).unwrap_err());
    bench.server.redirect(
        "signed",
        &format!("http://u:s3cret@{gone}/x?signature=s3cret"),
    );
    told.push(downloader.text(KEY, &url("signed")).unwrap_err());
    for error in told {
        let told = format!("{error} {error:?}");
        assert!(told.contains("***@") && !told.contains("s3cret"), "{told}");
    }
    let heard = bench.heard.0.borrow().join("\n");
    assert!(!heard.contains("s3cret"), "{heard}");
    let kept = fs::read_dir(bench.cache.folder(PARTIAL).unwrap()).unwrap();
    let about = fs::read_to_string(kept.last().unwrap().unwrap().path().join("about.json"));
    assert!(about.unwrap().contains("***@"));
    // And it goes on there.
    downloader.file(KEY, &url("x"), &digest).unwrap();
    let asked = bench.server.asked();
    assert_eq!(asked.last().unwrap(), &format!("x from 40000 as {who}"));
}

#[test]
fn a_text_is_short_and_a_text() {
    let bench = Bench::new();
    bench.server.put("sums", "abc  file\n");
    assert_eq!(bench.text("sums").unwrap(), "abc  file\n");
    bench.server.put("sums", vec![b'x'; (1 << 20) + 1]);
    insta::assert_snapshot!(bench.text("sums").unwrap_err(), @"cannot download http://HOST/sums (source `kubernetes`): it is larger than 1.0 MiB, and no more is taken of what is asked for here; a proxy or a mirror may answer in its place; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    bench.server.put("sums", [0xff, 0xfe]);
    insta::assert_snapshot!(bench.text("sums").unwrap_err(), @"cannot download http://HOST/sums (source `kubernetes`): it is no text; a proxy or a mirror may answer in its place; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    let url = bench.server.url("sums");
    assert_eq!(bench.downloader(0).bytes(KEY, &url).unwrap(), [0xff, 0xfe]);
    bench.server.trouble("sums", [Trouble::HangUp]);
    assert_eq!(bench.downloader(1).bytes(KEY, &url).unwrap(), [0xff, 0xfe]);
}

#[test]
fn progress_tells_name_bytes_percent_and_rate() {
    let mut pace = Pace::new("kubelet", 1 << 20, Some(4 << 20));
    assert_eq!(pace.told(2 << 20), None);
    let text = pace.text(3 << 20, Duration::from_secs(2));
    insta::assert_snapshot!(text, @"kubelet: 3.0 MiB of 4.0 MiB (75 %), 1.0 MiB/s");
    pace.whole = None;
    insta::assert_snapshot!(pace.text(3 << 20, Duration::ZERO), @"kubelet: 3.0 MiB, 2.0 GiB/s");
}

/// Says what is at an address, in the process where it is asked for.
fn is_proxied() -> bool {
    says(|url| {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let heard = Heard::default();
        let text = Downloader::new(&cache, &heard)
            .unwrap()
            .text(KEY, &url.parse().unwrap());
        text.unwrap_or_else(|error| error.to_string())
    })
}

#[test]
fn the_environments_proxy_is_used() {
    if is_proxied() {
        return;
    }
    let proxy = TestServer::start();
    proxy.put("sums", "through the proxy");
    let address = format!("http://{}", proxy.host);
    let text = said_with(
        "download::tests::the_environments_proxy_is_used",
        "http://nowhere.invalid/sums",
        &[("http_proxy", OsStr::new(&address))],
    );
    assert_eq!(text, "through the proxy");
    assert_eq!(proxy.asked(), ["sums"]);
}

#[test]
fn tls_goes_through_the_proxy_to_whom_the_host_trusts() {
    if is_proxied() {
        return;
    }
    let (proxy, certificate) = TestServer::start_behind_proxy("nowhere.invalid");
    proxy.put("sums", "through the proxy");
    proxy.redirect("moved", "https://nowhere.invalid/sums");
    proxy.redirect("plain", "http://nowhere.invalid/sums");
    let trusted = tempfile::NamedTempFile::new().unwrap();
    fs::write(&trusted, certificate).unwrap();
    let address = format!("http://{}", proxy.host);
    let asked = |url: &str, trusting: bool| {
        let mut environment = vec![("https_proxy", OsStr::new(&address))];
        if trusting {
            environment.push(("SSL_CERT_FILE", trusted.path().as_os_str()));
        }
        let test = "download::tests::tls_goes_through_the_proxy_to_whom_the_host_trusts";
        said_with(test, url, &environment)
    };
    let opened = "CONNECT nowhere.invalid:443 HTTP/1.1";
    assert_eq!(
        asked("https://nowhere.invalid/sums", true),
        "through the proxy"
    );
    assert_eq!(proxy.asked(), [opened, "sums"]);
    assert_eq!(
        asked("https://nowhere.invalid/moved", true),
        "through the proxy"
    );
    assert_eq!(proxy.asked().last().unwrap(), "sums");

    let refused = asked("https://nowhere.invalid/plain", true);
    insta::assert_snapshot!(refused, @"cannot download https://nowhere.invalid/plain (source `kubernetes`): it is redirected from https to http://nowhere.invalid/sums, which nobody vouches for; a proxy or a mirror may answer in its place; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    assert_eq!(proxy.asked(), [opened, "plain"]);
    let refused = asked("https://nowhere.invalid/sums", false);
    insta::assert_snapshot!(refused, @"cannot download https://nowhere.invalid/sums (source `kubernetes`): TLS failed: error sending request for url (https://nowhere.invalid/sums): client error (Connect): invalid peer certificate: UnknownIssuer; the host's clock and its certificates (ca-certificates) decide; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    let refused = asked("https://elsewhere.invalid/sums", true);
    insta::assert_snapshot!(refused, @"cannot download https://elsewhere.invalid/sums (source `kubernetes`): the proxy opens no connection: error sending request for url (https://elsewhere.invalid/sums): client error (Connect): tunnel error: unsuccessful; https_proxy, all_proxy and no_proxy say which one is asked; another address for `kubernetes` goes into a file for --config (docs/sources.md)");
}

proptest! {
    #[test]
    fn only_a_range_that_says_where_it_begins_is_understood(text in "[a-z0-9 /*-]{0,20}", first: u64) {
        let answer = |range: &str| {
            let answer = http::Response::builder().header("content-range", range);
            Response::from(answer.body(Vec::new()).unwrap())
        };
        let rest = format!("bytes {first}-{}/{}", u64::MAX, u64::MAX);
        prop_assert_eq!(first_byte(&answer(&rest)), Some(first));
        prop_assert_eq!(first_byte(&answer(&text)), None);
    }
}
