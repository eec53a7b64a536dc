//! A node image with more container images: a layer over its disk, made once, by a machine that
//! boots from it, imports them and is switched off.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_lan::{Segment, SegmentOptions};
use podwire_process::Report;
use podwire_vm::{Accelerator, Ram, create_overlay};

use super::build::is_up;
use crate::parts::identity::uuid;
use crate::plan::cell::{Bootstrap, Cell};
use crate::plan::cluster_plan::{ClusterPlan, ImageFiles, Role};
use crate::plan::error::ClusterError;
use crate::plan::layout::{Layout, Member};
use crate::running::host::Host;
use crate::running::node::{Node, Powered};

/// A short command on the machine.
const COMMAND: Duration = Duration::from_secs(10);
/// Importing an archive, and what each MiB of it adds.
const IMPORT: Duration = Duration::from_secs(30);
const IMPORT_MIB: Duration = Duration::from_secs(1);
/// How the name of a layer's disk ends.
const DISK: &str = "qcow2";
/// A machine's id is its own: the next one to boot from the disk gets another (machine-id(5)).
const FORGET_ID: &str = ": >/etc/machine-id";

/// The container images that a layer adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerImages {
    /// Archives for `ctr images import`, imported in this order.
    pub archives: Vec<PathBuf>,
    /// Names that must be there afterwards.
    pub names: Vec<ImageName>,
}

/// A name of an image in a node's containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// The name in full, by which the kubelet asks for it.
    pub wanted: String,
    /// The name that the import gives it.
    pub imported: String,
}

impl ImageFiles {
    /// The same image with the disk of the layer in a folder.
    ///
    /// # Errors
    /// [`ClusterError::File`] when there is none.
    pub fn with_layer(&self, dir: &Path) -> Result<Self, ClusterError> {
        let find = || {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.extension().is_some_and(|end| end == DISK) {
                    return Ok(path);
                }
            }
            Err(io::ErrorKind::NotFound.into())
        };
        Ok(Self {
            disk: find().map_err(ClusterError::file("find the layer's disk in", dir))?,
            ..self.clone()
        })
    }

    /// What the machine takes of the host that makes a layer.
    ///
    /// # Errors
    /// None that depends on the image.
    pub fn layer_plan(&self, accelerator: Accelerator) -> Result<ClusterPlan, ClusterError> {
        let cell = Cell::usual(Bootstrap::ByHand);
        ClusterPlan::new(1, cell, "", self, accelerator, "", "", None)
    }

    /// Makes a layer in an empty folder, for [`ImageFiles::with_layer`]. The machine's console goes
    /// to `logs`.
    ///
    /// # Errors
    /// [`ClusterError`]: what the machine's containerd says of an archive,
    /// [`ClusterError::NotImported`]. What is in the folder is then of no use.
    pub async fn make_layer(
        &self,
        host: &Host,
        images: &LayerImages,
        dir: &Path,
        logs: &Path,
        report: &dyn Report,
    ) -> Result<(), ClusterError> {
        fs::create_dir_all(logs).map_err(ClusterError::file("make the folder", logs))?;
        // Another machine never writes the same bytes. A stage that was made on this disk must not be
        // taken for one made on the next, when the layer has given way meanwhile.
        let name = uuid().map_err(ClusterError::file("read", "/dev/urandom"))?;
        let disk = dir.join(name).with_extension(DISK);
        create_overlay(&host.qemu_img, &self.disk, &disk)?;
        report.step("boot a machine that imports the container images");
        let plan = self.layer_plan(host.accelerator)?;
        let machine = plan.machine(
            "layer",
            plan.size(Role::ControlPlane),
            &self.kernel,
            &self.initrd,
            disk,
            Ram::Anonymous,
            false,
        );
        let segment = Segment::start(Layout::Flat.network(1), SegmentOptions::default())?;
        let alone = (Layout::Flat, Member::Node(1));
        let powered = Powered::on(host, &segment, alone, machine, true, logs).await?;
        is_up(host, &powered.machine).await?;
        let node = powered.answering(host, None).await?;
        import(&node, host, images, report).await?;
        report.step("switch the machine off");
        node.run_ok(FORGET_ID, host.limit(COMMAND)).await?;
        node.power_off(host).await
    }
}

async fn import(
    node: &Node,
    host: &Host,
    images: &LayerImages,
    report: &dyn Report,
) -> Result<(), ClusterError> {
    let limit = host.limit(COMMAND);
    node.run_ok("systemctl start containerd", limit * 2).await?;
    for path in &images.archives {
        let open = async {
            let file = tokio::fs::File::open(path).await?;
            let mib = file.metadata().await?.len() >> 20;
            Ok((file, mib))
        };
        let (file, mib) = open.await.map_err(ClusterError::file("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        report.step(&format!(
            "import the container images of {name} ({mib} MiB)"
        ));
        // Unpacked they are all that a container needs: the layers would be there twice. containerd 2
        // does that for a local import only.
        let command = "ctr -n k8s.io images import --local --discard-unpacked-layers -";
        let limit = host.limit(IMPORT + IMPORT_MIB * u32::try_from(mib).unwrap_or(u32::MAX));
        node.run_with_file(command, file, limit).await?;
    }
    let there = listed(node, limit).await?;
    for tag in tags(&images.names, &there) {
        node.run_ok(&tag, limit).await?;
    }
    let there = listed(node, limit).await?;
    let names = images.names.iter().map(|name| &name.wanted);
    let missing: Vec<String> = names
        .filter(|name| !there.contains(*name))
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ClusterError::NotImported {
        missing,
        there: there.into_iter().collect(),
    })
}

async fn listed(node: &Node, limit: Duration) -> Result<BTreeSet<String>, ClusterError> {
    let list = node.run_ok("ctr -n k8s.io images ls -q", limit).await?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Commands that give images the names that are wanted but not there.
fn tags(names: &[ImageName], there: &BTreeSet<String>) -> Vec<String> {
    let others = names
        .iter()
        .filter(|name| !there.contains(&name.wanted) && there.contains(&name.imported));
    others
        .map(|name| {
            format!(
                "ctr -n k8s.io images tag '{}' '{}'",
                name.imported, name.wanted
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_gets_the_name_that_the_kubelet_asks_for() {
        let name = |wanted: &str, imported: &str| ImageName {
            wanted: wanted.to_owned(),
            imported: imported.to_owned(),
        };
        let names = [
            name("quay.io/a:1", "quay.io/a:1"),
            name("docker.io/library/b:1", "b:1"),
            name("quay.io/a@sha256:00", "quay.io/a:1"),
            name("quay.io/gone:1", "gone:1"),
        ];
        let there = ["quay.io/a:1", "b:1"].map(str::to_owned).into();
        insta::assert_snapshot!(tags(&names, &there).join("\n"), @"
        ctr -n k8s.io images tag 'b:1' 'docker.io/library/b:1'
        ctr -n k8s.io images tag 'quay.io/a:1' 'quay.io/a@sha256:00'
        ");
    }

    #[test]
    fn a_layer_changes_the_disk_alone() {
        let image = ImageFiles {
            name: "image".into(),
            disk: "/images/a/disk.qcow2".into(),
            kernel: "/images/a/kernel".into(),
            initrd: "/images/a/initrd".into(),
            append: "root=/dev/vda".into(),
        };
        let dir = tempfile::tempdir().unwrap();
        let refused = image.with_layer(dir.path());
        assert!(
            matches!(refused, Err(ClusterError::File { .. })),
            "{refused:?}"
        );
        for file in ["seal.json", "0123.qcow2", "used"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let layered = image.with_layer(dir.path()).unwrap();
        assert_eq!(layered.disk, dir.path().join("0123.qcow2"));
        let back = ImageFiles {
            disk: image.disk.clone(),
            ..layered
        };
        assert_eq!(back, image);
        let plan = image.layer_plan(Accelerator::Tcg).unwrap();
        assert_eq!((plan.nodes, plan.memory_mib()), (1, 2048));
    }
}
