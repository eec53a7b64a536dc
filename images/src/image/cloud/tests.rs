//! Releases with the official layout on a server of this host, signed by keys of the tests' own.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::process::Command;

use podwire_process::Spawner;

use super::super::build::Build;
use super::super::privilege::Privilege;
use super::*;
use crate::Cache;
use crate::bundle::{self, BundleOrder};
use crate::digest::sha256;
use crate::download::test_server::{TestServer, Trouble};
use crate::image::{BASE, ImageRequest, NODE, Outdated, System, get};
use crate::test_host::{Heard, Loud, said_with, says};

const RELEASE: &str = "releases/24.04/release-20250805";
const FILE: &str = "ubuntu-24.04-server-cloudimg-amd64.img";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A key of nobody's.
struct Signer {
    home: tempfile::TempDir,
    fingerprint: String,
}

impl Signer {
    /// One that is good for so long, from a moment on: gpg's `--faked-system-time`.
    fn new(born: Option<&str>, lifetime: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut signer = Self {
            home,
            fingerprint: String::new(),
        };
        let time = born.map(|born| format!("--faked-system-time={born}"));
        let args = [
            "--passphrase",
            "",
            "--quick-generate-key",
            "tests@podwire.invalid",
        ];
        let args = time.as_deref().into_iter().chain(args);
        signer.gpg(args.chain(["ed25519", "sign", lifetime]), b"");
        let listed = signer.gpg(["--with-colons", "--list-keys"], b"");
        let listed = String::from_utf8(listed).unwrap();
        let fingerprint = listed
            .lines()
            .find_map(|line| line.strip_prefix("fpr:::::::::"));
        signer.fingerprint = fingerprint.unwrap().trim_end_matches(':').to_owned();
        signer
    }

    fn gpg<'a>(&self, args: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Vec<u8> {
        let text = self.home.path().join("input");
        fs::write(&text, input).unwrap();
        let done = Command::new("gpg")
            .args([
                "--batch",
                "--quiet",
                "--pinentry-mode",
                "loopback",
                "--homedir",
            ])
            .arg(self.home.path())
            .args(args)
            .stdin(fs::File::open(text).unwrap())
            .output()
            .expect("gpg and gpg-agent sign what these tests publish");
        assert!(done.status.success(), "{done:?}");
        done.stdout
    }

    fn keyring(&self) -> Vec<u8> {
        self.gpg(["--export"], b"")
    }

    fn sign(&self, text: &[u8], at: Option<&str>) -> Vec<u8> {
        self.sign_by("SHA512", text, at)
    }

    fn sign_by(&self, hash: &str, text: &[u8], at: Option<&str>) -> Vec<u8> {
        let time = at.map(|at| format!("--faked-system-time={at}"));
        let args = time.as_deref().into_iter().chain(["--digest-algo", hash]);
        self.gpg(args.chain(["--detach-sign", "--output", "-"]), text)
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // The agent that gpg starts would look for its folder for some time yet.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--kill", "all"])
            .output();
    }
}

/// The project with another image key, and a server that has one release.
struct Bench {
    source: PathBuf,
    cache: Cache,
    spawner: Spawner,
    heard: Heard,
    server: TestServer,
    signer: Signer,
    image: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(Signer::new(None, "1y"), None)
    }

    fn with(signer: Signer, signed_at: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self {
            source: dir.path().join("source"),
            cache: Cache::at(&dir.path().join("cache")).unwrap(),
            spawner: Spawner::start().unwrap(),
            heard: Heard::default(),
            server: TestServer::start(),
            signer,
            image: (0..100_000_u32).map(|it| (it % 251) as u8).collect(),
            _dir: dir,
        };
        copy_recipes(&bench.source);
        use_key(&bench.source, &bench.signer);
        let listing = "<a href=\"release-20240423/\">x</a> <a href=\"release-20250805/\">y</a>";
        bench.server.put("releases/24.04/", listing);
        bench
            .server
            .put(&format!("{RELEASE}/{FILE}"), bench.image.clone());
        bench.publish(&format!("{} *{FILE}\n", sha256(&bench.image)), signed_at);
        bench
    }

    fn publish(&self, sums: &str, signed_at: Option<&str>) {
        let signature = self.signer.sign(sums.as_bytes(), signed_at);
        self.server.put(&format!("{RELEASE}/SHA256SUMS"), sums);
        self.server
            .put(&format!("{RELEASE}/SHA256SUMS.gpg"), signature);
    }

    fn workshop(&self) -> Workshop<'_> {
        Workshop {
            cache: &self.cache,
            spawner: &self.spawner,
            report: &self.heard,
            source: &self.source,
        }
    }

    fn sources(&self) -> Sources {
        let config = self.source.join("config.toml");
        let text = format!("[sources]\nubuntu = \"{}\"\n", self.server.url(""));
        fs::write(&config, text).unwrap();
        Sources::read(project(), Some(&config)).unwrap()
    }

    fn bump(&self) -> Result<Vec<String>, String> {
        bump(&self.workshop(), &self.sources())
            .map(|differences| differences.iter().map(ToString::to_string).collect())
            .map_err(|error| self.told(&error))
    }

    /// The pinned image's bytes.
    fn image(&self) -> Result<Vec<u8>, String> {
        let workshop = self.workshop();
        let (cloud, _) = CloudRecipe::read(&self.source).unwrap();
        let sources = self.sources();
        let lock = Lock::read(&Recipe::path(&self.source, UBUNTU, "lock")).unwrap();
        Pin::of(&lock, &self.source)
            .and_then(|pin| Published::new(&workshop, &sources, &cloud)?.image(&pin))
            .map(|path| fs::read(path).unwrap())
            .map_err(|error| self.told(&error))
    }

    fn told(&self, error: &Error) -> String {
        let source = self.source.display().to_string();
        error
            .to_string()
            .replace(&self.server.host, "HOST")
            .replace(&source, "SOURCE")
            .replace(&self.signer.fingerprint, "FINGERPRINT")
            .replace(&self.signer.fingerprint[24..], "KEY")
    }

    /// What the cache has of downloads that could be used.
    fn usable(&self) -> usize {
        let folder = self.cache.path(Kind::Download, "");
        fs::read_dir(folder).map_or(0, Iterator::count)
    }
}

fn copy_recipes(source: &Path) {
    for folder in ["images/recipes", "images/keys"] {
        fs::create_dir_all(source.join(folder)).unwrap();
        for entry in fs::read_dir(project().join(folder)).unwrap() {
            let name = entry.unwrap().file_name();
            let to = source.join(folder).join(&name);
            fs::copy(project().join(folder).join(name), to).unwrap();
        }
    }
    let _ = fs::remove_file(Recipe::path(source, UBUNTU, "lock"));
}

fn use_key(source: &Path, signer: &Signer) {
    let keys = source.join("images/keys");
    fs::write(keys.join("ubuntu-cloud-images.gpg"), signer.keyring()).unwrap();
    let path = Recipe::path(source, UBUNTU, "toml");
    let text = fs::read_to_string(&path).unwrap();
    let official = "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81";
    assert!(text.contains(official));
    fs::write(path, text.replace(official, &signer.fingerprint)).unwrap();
}

#[test]
fn bump_pins_the_newest_release_and_the_pinned_image_comes_once() {
    let bench = Bench::new();
    let none = bench.image().unwrap_err();
    insta::assert_snapshot!(none, @r#""SOURCE/images/recipes/ubuntu-24.04.lock" does not say yet which image `--from ubuntu:24.04` means: `cargo xtask image bump --from ubuntu:24.04` takes the newest that is published"#);
    let digest = sha256(&bench.image);
    let pinned = [
        "serial 20250805 (not in the lock)".to_owned(),
        format!("sha256 {digest} (not in the lock)"),
    ];
    assert_eq!(bench.bump().unwrap(), pinned);
    assert_eq!(bench.bump().unwrap(), [""; 0]);
    bench.server.asked();
    assert_eq!(bench.image().unwrap(), bench.image);
    assert_eq!(
        bench.server.asked(),
        ["SHA256SUMS", "SHA256SUMS.gpg", FILE].map(|name| format!("{RELEASE}/{name}"))
    );
    // What is here needs nobody.
    assert_eq!(bench.image().unwrap(), bench.image);
    assert_eq!(bench.server.asked(), [""; 0]);
}

#[test]
fn nothing_unsigned_is_pinned() {
    let refused = |bench: &Bench| {
        let error = bench.bump().unwrap_err();
        assert!(!Recipe::path(&bench.source, UBUNTU, "lock").exists());
        assert!(bench.image().is_err());
        assert_eq!(bench.usable(), 0);
        let (error, _) = error.split_once("; the keyring").unwrap();
        error.to_owned()
    };
    let bench = Bench::new();
    let other = format!("{} *{FILE}\n", sha256(b"other"));
    bench.server.put(&format!("{RELEASE}/SHA256SUMS"), other);
    insta::assert_snapshot!(refused(&bench), @"the signature of http://HOST/releases/24.04/release-20250805/SHA256SUMS (source `ubuntu`) is not accepted: the signature of KEY is one of another text");

    let bench = Bench::new();
    let stranger = Signer::new(None, "1y");
    let name = format!("{RELEASE}/SHA256SUMS.gpg");
    bench.server.put(&name, stranger.sign(b"x", None));
    let error = refused(&bench).replace(&stranger.fingerprint[24..], "STRANGER");
    assert!(
        error.ends_with("the key STRANGER that signed it is not in the keyring"),
        "{error}"
    );

    let bench = Bench::new();
    bench
        .server
        .put(&name, "<html>welcome to this hotel</html>");
    let error = refused(&bench);
    assert!(
        error.contains("it is no signature that gpgv accepts: "),
        "{error}"
    );

    // In the keyring, and still not the one that may sign.
    let bench = Bench::new();
    let path = Recipe::path(&bench.source, UBUNTU, "toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace(&bench.signer.fingerprint, "ABCD")).unwrap();
    let error = refused(&bench);
    assert!(
        error.ends_with("the key FINGERPRINT that signed it is none of those that may: ABCD"),
        "{error}"
    );
}

#[test]
fn a_weak_hash_vouches_for_nothing() {
    let bench = Bench::new();
    let sums = format!("{} *{FILE}\n", sha256(&bench.image));
    let name = format!("{RELEASE}/SHA256SUMS.gpg");
    for hash in ["SHA1", "RIPEMD160", "SHA224"] {
        let signature = bench.signer.sign_by(hash, sums.as_bytes(), None);
        bench.server.put(&name, signature);
        let error = bench.bump().unwrap_err();
        assert!(error.contains("it is made with "), "{hash}: {error}");
        assert!(!Recipe::path(&bench.source, UBUNTU, "lock").exists());
    }
    for hash in ["SHA256", "SHA384", "SHA512"] {
        let signature = bench.signer.sign_by(hash, sums.as_bytes(), None);
        bench.server.put(&name, signature);
        bench.bump().unwrap();
        fs::remove_file(Recipe::path(&bench.source, UBUNTU, "lock")).unwrap();
    }
}

#[test]
fn an_expired_key_vouches_for_nothing() {
    let born = "20200101T000000!";
    let bench = Bench::with(Signer::new(Some(born), "30d"), Some(born));
    let error = bench.bump().unwrap_err();
    assert!(
        error.contains("the key KEY that signed it has expired"),
        "{error}"
    );
    assert!(!Recipe::path(&bench.source, UBUNTU, "lock").exists());
    assert_eq!(bench.usable(), 0);
}

#[test]
fn what_is_not_there_is_named() {
    let bench = Bench::new();
    bench.server.remove(&format!("{RELEASE}/SHA256SUMS.gpg"));
    let error = bench.bump().unwrap_err();
    assert!(error.contains("(source `ubuntu`)"), "{error}");
    assert!(
        error.contains(&format!("http://HOST/{RELEASE}/SHA256SUMS.gpg")),
        "{error}"
    );

    let bench = Bench::new();
    bench.publish(&format!("{} *other.img\n", sha256(b"")), None);
    let error = bench.bump().unwrap_err();
    assert!(
        error.contains(FILE) && error.contains("SHA256SUMS"),
        "{error}"
    );

    let bench = Bench::new();
    bench.server.put("releases/24.04/", "<html>nothing</html>");
    insta::assert_snapshot!(bench.bump().unwrap_err(), @"no release is listed at http://HOST/releases/24.04/ (source `ubuntu`)");
}

#[test]
fn an_image_that_was_published_again_is_refused_before_it_is_taken() {
    let bench = Bench::new();
    bench.bump().unwrap();
    bench.publish(&format!("{} *{FILE}\n", sha256(b"other")), None);
    let error = bench.image().unwrap_err();
    assert!(error.contains("is published as sha256:"), "{error}");
    assert!(
        error.contains(&format!("http://HOST/{RELEASE}/{FILE} (source `ubuntu`)")),
        "{error}"
    );
    assert_eq!(bench.usable(), 0);
}

#[test]
fn an_image_that_is_not_what_was_signed_is_thrown_away() {
    let bench = Bench::new();
    bench.bump().unwrap();
    let mut altered = bench.image.clone();
    altered[7] ^= 1;
    bench.server.put(&format!("{RELEASE}/{FILE}"), altered);
    let error = bench.image().unwrap_err();
    assert!(error.contains(FILE) && error.contains("sha256"), "{error}");
    assert_eq!(bench.usable(), 0);
    bench
        .server
        .put(&format!("{RELEASE}/{FILE}"), bench.image.clone());
    assert_eq!(bench.image().unwrap(), bench.image);
}

#[test]
fn a_cut_connection_goes_on_and_a_redirection_is_followed() {
    let bench = Bench::new();
    bench.bump().unwrap();
    let file = format!("{RELEASE}/{FILE}");
    bench.server.remove(&file);
    bench.server.put("mirror/image", bench.image.clone());
    bench
        .server
        .redirect(&file, &bench.server.url("mirror/image").to_string());
    bench.server.trouble("mirror/image", [Trouble::Cut(40_000)]);
    bench.server.asked();
    assert_eq!(bench.image().unwrap(), bench.image);
    let asked = bench.server.asked();
    assert!(
        asked.contains(&"mirror/image from 40000".to_owned()),
        "{asked:?}"
    );
}

/// What apt itself makes of the options, the list and the passwords that it is given. It has neither the
/// caller's settings nor his proxies.
#[test]
fn apt_takes_what_is_signed_and_tells_a_password_to_its_server_alone() {
    let asked = says(|asked| {
        let (host, source) = asked.split_once(' ').unwrap();
        match fetched(host, Path::new(source)) {
            Ok(archives) => archives.join(" "),
            Err(error) => error.to_string().replace('\n', "; "),
        }
    });
    if asked {
        return;
    }
    if crate::host::find_program("apt-get").is_none() {
        eprintln!("left out: there is no apt-get here");
        return;
    }
    let bench = Bench::new();
    let deb: &[u8] = b"nobody unpacks it here";
    bench.server.put("archive/pool/tool.deb", deb);
    for (archive, suite) in [
        ("archive", "noble"),
        ("archive", "noble-updates"),
        ("security", "noble-security"),
    ] {
        let folder = format!("{archive}/dists/{suite}");
        let mut release = format!(
            "Suite: {suite}\nCodename: {suite}\nDate: Sat, 01 Jan 2022 00:00:00 UTC\n\
             Architectures: amd64\nComponents: main universe\nSHA256:\n"
        );
        for component in ["main", "universe"] {
            let packages = format!(
                "Package: tool\nVersion: 1-{component}\nArchitecture: amd64\nMaintainer: nobody\n\
                 Filename: pool/tool.deb\nSize: {}\nSHA256: {}\nDescription: nothing\n\n",
                deb.len(),
                sha256(deb)
            );
            let name = format!("{component}/binary-amd64/Packages");
            let (digest, size) = (sha256(packages.as_bytes()), packages.len());
            release += &format!(" {digest} {size} {name}\n");
            bench.server.put(&format!("{folder}/{name}"), packages);
        }
        let signed = ["--digest-algo", "SHA512", "--clearsign", "--output", "-"];
        let signed = bench.signer.gpg(signed, release.as_bytes());
        bench.server.put(&format!("{folder}/InRelease"), signed);
    }
    let alone = bench.source.join("apt.conf");
    let nothing = "Dir::Etc::Parts \"/dev/null\";\nDir::Etc::Main \"/dev/null\";\n";
    fs::write(&alone, nothing).unwrap();
    let keyring = bench.source.join("images/keys/ubuntu-archive.gpg");
    let path = std::env::var_os("PATH").unwrap();
    let fetched = || {
        let asked = format!("{} {}", bench.server.host, bench.source.display());
        let environment = [("PATH", &*path), ("APT_CONFIG", alone.as_os_str())];
        let test = "image::cloud::tests::apt_takes_what_is_signed_and_tells_a_password_to_its_server_alone";
        said_with(test, &asked, &environment)
    };
    // Those keys are Ubuntu's, and its are not the tests'.
    let refused = fetched();
    assert!(refused.contains("ubuntu-archive"), "{refused}");
    assert!(refused.contains("NO_PUBKEY"), "{refused}");
    bench.server.asked();

    fs::write(&keyring, bench.signer.keyring()).unwrap();
    assert_eq!(fetched(), "tool_1-universe_amd64.deb");
    let password = " as Basic bWU6czNjckB0";
    let asked = bench.server.asked();
    assert!(asked.contains(&format!("archive/pool/tool.deb{password}")));
    for asked in asked {
        let told = asked.ends_with(password);
        assert_eq!(asked.starts_with("archive/"), told, "{asked}");
    }

    // The mirror has another file than was signed.
    bench
        .server
        .put("archive/pool/tool.deb", "nobody has signed this");
    let refused = fetched();
    assert!(refused.contains("Hash Sum mismatch"), "{refused}");
}

/// Which packages apt takes from the server, whose archive wants a password.
fn fetched(host: &str, source: &Path) -> Result<Vec<String>, Error> {
    let (config, dir) = (source.join("mine.toml"), tempfile::tempdir().unwrap());
    let text = format!(
        "[sources]\nubuntu-archive = 'http://me:s3cr%40t@{host}/archive'\n\
         ubuntu-security = 'http://{host}/security'\n"
    );
    fs::write(&config, text).unwrap();
    let sources = Sources::read(project(), Some(&config)).unwrap();
    let cache = Cache::at(&dir.path().join("cache")).unwrap();
    let (spawner, heard) = (Spawner::start().unwrap(), Heard::default());
    let workshop = Workshop {
        cache: &cache,
        spawner: &spawner,
        report: &heard,
        source,
    };
    let mut recipe = Recipe::read(project(), BASE).unwrap();
    recipe.packages = vec!["tool".to_owned()];
    let build = Build {
        workshop: &workshop,
        recipe: &recipe,
        privilege: Privilege::Root,
        work: cache.staging("image").unwrap(),
        log: cache.log("image.log").unwrap(),
    };
    // What is installed already: nothing.
    build.write("boot/status", "").unwrap();
    let (cloud, _) = CloudRecipe::read(project()).unwrap();
    build.fetch_packages(&cloud, &sources, &machine::keys(source)?)?;
    let archives = fs::read_dir(build.work.path().join("input/archives")).unwrap();
    let names = archives.map(|it| it.unwrap().file_name().into_string().unwrap());
    Ok(names.collect())
}

#[test]
fn the_newest_of_a_listing_is_the_latest_day_and_its_last_number() {
    let newest = |page| newest_serial(page);
    let page = "release-20240423/ release-20250805/ release-20250805.1/ release-20241004/ release/";
    assert_eq!(newest(page).as_deref(), Some("20250805.1"));
    assert_eq!(newest("release-2024/ release-x"), None);
}

#[test]
fn the_project_pins_keys_that_are_in_its_keyring() {
    let (cloud, _) = CloudRecipe::read(project()).unwrap();
    let done = Command::new("gpg")
        .args(["--show-keys", "--with-colons"])
        .arg(project().join("images/keys").join(&cloud.image_keyring))
        .output()
        .unwrap();
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(!cloud.image_keys.is_empty());
    for key in &cloud.image_keys {
        assert!(
            shown.contains(&format!("fpr:::::::::{key}:")),
            "{key}: {shown}"
        );
    }
}

#[test]
fn ubuntu_has_the_recipe_but_for_the_kernel_and_what_starts_containers() {
    let (cloud, _) = CloudRecipe::read(project()).unwrap();
    let containerd = "/etc/containerd/config.toml";
    let emulated = "/etc/containerd/emulated.toml";
    let expected: [(&str, &[&str], &[&str]); 2] = [
        (BASE, &["linux-image-amd64"], &[]),
        (
            NODE,
            &["linux-image-amd64", "crun"],
            &[containerd, emulated],
        ),
    ];
    for (name, without, changed) in expected {
        let debian = Recipe::read(project(), name).unwrap();
        let ubuntu = cloud.changed(project(), debian.clone()).unwrap();
        let left_out: Vec<&String> = debian
            .packages
            .iter()
            .filter(|package| !ubuntu.packages.contains(package))
            .collect();
        assert_eq!(left_out, without);
        assert_eq!(
            (ubuntu.suite.as_str(), ubuntu.root.as_str()),
            ("noble", "/dev/vda1")
        );
        assert!(ubuntu.purge.iter().any(|it| it == "cloud-init"));
        assert_eq!(ubuntu.debian_suite, debian.suite);
        let other: Vec<&str> = debian
            .files
            .iter()
            .zip(&ubuntu.files)
            .filter(|(one, other)| one != other)
            .map(|(_, other)| other.path.as_str())
            .collect();
        assert_eq!(other, changed);
        assert_eq!(ubuntu.files.len(), debian.files.len());
        let sandbox = "sandbox = \"@SANDBOX_IMAGE@\"";
        let text = |path| ubuntu.files.iter().find(|it| it.path == path);
        assert!(text(containerd).is_none_or(|it| it.text.contains(sandbox)));
        let same = format!("imports = [\"{containerd}\"]");
        assert!(text(emulated).is_none_or(|it| it.text.contains(&same)));
    }
}

/// The whole path with an image of our own, made of Ubuntu's packages as the official one is: only what
/// Canonical publishes and signs is not met. It takes root (or what else builds an image), the archives of
/// Ubuntu and Debian, minutes where everything is emulated, ten more where the cache has no bundle, and
/// leaves its files in target/stand-in:
/// `cargo test -p podwire-images -- --ignored --nocapture an_image_stands_in`.
/// The folders of the images, which are said at the end, are what the facts of tests/ are asserted of; and
/// in target/stand-in/source is a project in which `--from ubuntu:24.04` means them: see docs/sources.md.
#[test]
#[ignore = "minutes, root, and Ubuntu's archive: see above"]
fn an_image_stands_in_for_ubuntus() {
    let work = project().join("target/stand-in");
    let (source, server_dir) = (work.join("source"), work.join("server"));
    fs::create_dir_all(&server_dir).unwrap();
    fs::create_dir_all(&source).unwrap();
    let cache = match std::env::var_os("PODWIRE_CACHE") {
        Some(_) => Cache::open().unwrap(),
        None => Cache::at(&work.join("cache")).unwrap(),
    };
    let spawner = Spawner::start().unwrap();
    let (cloud, _) = CloudRecipe::read(project()).unwrap();
    let image = server_dir.join("cloud.img");
    if !image.exists() {
        let script = project().join("images/src/image/cloud/stand-in.sh");
        let privilege = crate::image::privilege(&spawner).unwrap();
        let keyring = project().join("images/keys").join(&cloud.archive_keyring);
        let official = Sources::read(project(), None).unwrap();
        let archives = machine::source_list(&cloud, &official, &keyring);
        let args = [script.as_os_str(), OsStr::new(&cloud.suite)]
            .into_iter()
            .chain(archives.lines().map(OsStr::new));
        let command = privilege.command("sh", args).dir(&server_dir);
        let log = work.join("stand-in.log");
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &Loud,
            source: project(),
        };
        let limit = Duration::from_secs(60 * 60);
        crate::command::run_step(&workshop, "making the stand-in", command, &log, limit).unwrap();
    }

    // The project, but for the key that signs images.
    for name in [
        ".config",
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
        "harness",
        "scenarios",
        "tests",
        "xtask",
    ] {
        let link = source.join(name);
        if link.symlink_metadata().is_err() {
            symlink(project().join(name), link).unwrap();
        }
    }
    copy_recipes(&source);
    for name in ["Cargo.toml", "bundle", "sources.toml", "src"] {
        let link = source.join("images").join(name);
        if link.symlink_metadata().is_err() {
            symlink(project().join("images").join(name), link).unwrap();
        }
    }
    let signer = Signer::new(None, "1y");
    use_key(&source, &signer);

    let server = TestServer::start();
    let bytes = fs::read(&image).unwrap();
    let sums = format!("{} *{FILE}\n", sha256(&bytes));
    server.put(
        "releases/24.04/",
        "<a href=\"release-20250805/\">release-20250805/</a>",
    );
    server.put(&format!("{RELEASE}/SHA256SUMS"), sums.clone());
    server.put(
        &format!("{RELEASE}/SHA256SUMS.gpg"),
        signer.sign(sums.as_bytes(), None),
    );
    server.put(&format!("{RELEASE}/{FILE}"), bytes);
    // A broken connection on the way.
    server.trouble(&format!("{RELEASE}/{FILE}"), [Trouble::Cut(50 << 20)]);

    let config = source.join("config.toml");
    let text = format!("[sources]\nubuntu = \"{}\"\n", server.url(""));
    fs::write(&config, text).unwrap();
    let sources = Sources::read(project(), Some(&config)).unwrap();
    let workshop = Workshop {
        cache: &cache,
        spawner: &spawner,
        report: &Loud,
        source: &source,
    };
    assert_eq!(bump(&workshop, &sources).unwrap().len(), 2);
    let pinned = Workshop {
        source: project(),
        ..workshop
    };
    let bundle = bundle::get(&pinned, &BundleOrder::modules(project(), None).unwrap()).unwrap();
    for (recipe, bundle) in [(BASE, None), (NODE, Some(&bundle))] {
        let request = ImageRequest {
            system: System::Ubuntu(CloudOrder {
                sources: &sources,
                accelerator: Accelerator::Tcg,
            }),
            recipe,
            bundle,
            kernel: None,
            outdated: Outdated::Refuse,
        };
        let built = get(&workshop, &request).unwrap();
        let manifest = &built.image.manifest;
        assert_eq!(
            (manifest.from.as_str(), manifest.suite.as_str()),
            ("ubuntu:24.04", "noble")
        );
        assert!(manifest.kernel_command_line.starts_with("root=/dev/vda1 "));
        let packages = Lock::read(&built.image.dir.join("packages")).unwrap();
        assert!(packages.0.contains_key("busybox-static"));
        assert_eq!(packages.0.contains_key("kubelet"), bundle.is_some());
        for gone in &cloud.purge {
            assert!(!packages.0.contains_key(gone), "{gone}");
        }
        assert!(get(&workshop, &request).unwrap().cached);
        eprintln!("the {recipe} image is in {}", built.image.dir.display());
    }
}
