//! Programs of the user's in the place of Kubernetes' own: those of a folder, and a single one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{bundle, is_up, latest, results, said};

/// The program of the default bundle under another digest: octets behind an ELF file's end are nobody's.
fn built_by_the_user(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::copy(bundle().join("bin").join(name), &path).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"mine").unwrap();
    path
}

/// The digest of what runs under this name on a node, wherever it was installed.
fn runs(node: &str, name: &str) -> String {
    let told = said(&format!(
        "ssh {node} sha256sum /proc/$(pgrep -xo {name})/exe"
    ));
    told.split_whitespace().next().unwrap().to_owned()
}

#[test]
#[ignore = "runs clusters of machines"]
fn nodes_run_the_user_s_programs_in_both_bootstraps_and_the_run_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    fs::create_dir(&folder).unwrap();
    let digest = |path: &Path| podwire_images::sha256_file(path).unwrap();
    let kubelet = digest(&built_by_the_user(&folder, "kubelet"));
    let replacing = built_by_the_user(dir.path(), "kube-proxy");
    let kube_proxy = digest(&replacing);
    let cluster = format!(
        "--yes --nodes 2 --bundle-from {} --replace kube-proxy={}",
        folder.display(),
        replacing.display()
    );

    // With kubeadm kube-proxy runs in its container.
    for so_far in ["--bootstrap kubeadm --stage init", "--bootstrap by-hand"] {
        is_up(&format!("up {so_far} {cluster}"), || {
            assert_eq!(runs("node1", "kubelet"), kubelet, "{so_far}");
            assert_eq!(runs("node1", "kube-proxy"), kube_proxy, "{so_far}");
        });
    }

    let told = said(&format!(
        "test --bootstrap by-hand --filter every_pair {cluster}"
    ));
    let results = results(&latest());
    assert_eq!(results["scenarios"][0]["outcome"], "passed", "{results:#}");
    let tested = [
        format!("; kubelet from {}", folder.display()),
        format!(
            "; kube-proxy from {} (sha256 {kube_proxy})",
            replacing.display()
        ),
    ];
    for part in tested {
        assert!(told.contains(&part), "{part}: {told}");
    }
    let provenance = &results["provenance"];
    assert_eq!(
        provenance["replaced"][0]["sha256"], kube_proxy,
        "{provenance:#}"
    );
}
