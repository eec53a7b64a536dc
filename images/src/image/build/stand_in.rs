use podwire_process::Spawner;

use super::super::recipe::NODE;
use super::*;
use crate::Cache;
use crate::bundle::test_publisher::{Edition, TestPublisher};
use crate::bundle::{self, Asked, BundleFrom, BundleOrder, Origin};
use crate::sources::Sources;
use crate::test_host::Loud;

/// The whole path of a release with programs and images that run: those of the pinned modules, published
/// on this host as the official ones are. It takes root (or what else builds an image), Debian's mirror,
/// minutes, ten more where the cache has no bundle, and leaves a settings file, with which machines are
/// started on it: `cargo test -p podwire-images -- --ignored --nocapture a_release_stands_in`, and then
/// `cargo xtask test --config target/stand-in-release/config.toml`.
#[test]
#[ignore = "minutes, root, and Debian's mirror: see above"]
fn a_release_stands_in_for_the_official_one() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cache = Cache::open().unwrap();
    let spawner = Spawner::start().unwrap();
    let workshop = Workshop {
        cache: &cache,
        spawner: &spawner,
        report: &Loud,
        source: project,
    };
    let modules = BundleOrder::modules(project, None).unwrap();
    let modules = bundle::get(&workshop, &modules).unwrap();
    let request = |bundle| ImageRequest {
        system: System::Debian,
        recipe: NODE,
        bundle: Some(bundle),
        kernel: None,
        outdated: Outdated::Accept,
    };

    // What the node image of the modules has in it is what the registry has.
    let inquiry = Inquiry::make(&workshop, &request(&modules)).unwrap();
    let build = Build::start(&workshop, &inquiry.recipe).unwrap();
    let packages = ROOT_PACKAGES.map(str::to_owned);
    build.bootstrap(&Lock::default(), &packages).unwrap();
    build.add_programs(&inquiry).unwrap();
    build.remove_tree().unwrap();
    let wanted = &modules.manifest.kubeadm_images;
    let made = &inquiry.contents.as_ref().unwrap().images;
    let images: Vec<(String, Vec<u8>)> = made
        .iter()
        .filter(|image| wanted.contains(&image.reference))
        .map(|image| {
            let archive = build.work.path().join("input/oci").join(image.file_name());
            (image.reference.clone(), fs::read(archive).unwrap())
        })
        .collect();
    assert_eq!(images.len(), wanted.len());

    let publisher = TestPublisher::start();
    let etcd = wanted.iter().find_map(|it| it.split_once("/etcd:"));
    let version = &modules.manifest.kubernetes;
    let pins = fs::read_to_string(project.join("images/bundle/releases.toml")).unwrap();
    let pins: toml::Table = toml::from_str(&pins).unwrap();
    let pins = pins[version.rsplit_once('.').unwrap().0]
        .as_table()
        .unwrap();
    publisher.publish(&Edition {
        kubernetes: version,
        cni_plugins: pins["cni-plugins"].as_str().unwrap(),
        crictl: pins["crictl"].as_str().unwrap(),
        etcd: etcd.unwrap().1.rsplit_once('-').unwrap().0,
        program: &|path| fs::read(modules.dir.join(path)).unwrap(),
        images: &images,
    });
    let folder = project.join("target/stand-in-release");
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("config.toml");
    let text = format!(
        "[defaults]\nbundle-from = 'release'\n\n[sources]\n{}",
        publisher.sources()
    );
    fs::write(&config, text).unwrap();

    let sources = Sources::read(project, Some(&config)).unwrap();
    assert_eq!(sources.bundle_from, BundleFrom::Release);
    let asked = Asked {
        kubernetes: Some(version),
        from: None,
        replace: &[],
        upgrade_to: None,
    };
    let order = BundleOrder::take(project, &sources, &asked).unwrap();
    let release = bundle::get(&workshop, &order).unwrap();
    assert!(!release.manifest.is_of_modules());
    assert_eq!(release.manifest.kubeadm_images, *wanted);
    for (path, file) in &release.manifest.files {
        if matches!(file.origin, Origin::Release { .. }) {
            assert_eq!(file.sha256, modules.manifest.files[path].sha256, "{path}");
        }
    }
    let built = get(&workshop, &request(&release)).unwrap();
    for reference in wanted {
        assert!(
            release.manifest.images.contains_key(reference),
            "{reference}"
        );
        assert!(
            built.image.manifest.oci_images.contains(reference),
            "{reference}"
        );
    }
    workshop.report.step(&format!(
        "to go on: cargo xtask test --kubernetes {version} --config {}",
        config.display()
    ));
}
