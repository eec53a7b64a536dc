//! `cargo xtask test --keep`: the cluster of a failed scenario, held for a person to look at.

use std::path::Path;

use podwire_access::{Description, Link};

use crate::command::session::Session;
use crate::lab::access;

/// Watches the run's folder for the cluster of a failed scenario.
pub(crate) struct Keeper<'a> {
    run_dir: &'a Path,
    /// Whose cluster is held.
    kept: Option<String>,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(run_dir: &'a Path) -> Self {
        Self {
            run_dir,
            kept: None,
        }
    }

    /// What to show as the present step while a cluster is held. When one has just come, says how
    /// to reach it.
    pub(crate) fn look(&mut self, session: &Session) -> Option<String> {
        if self.kept.is_none() {
            let description = session.wait_for(held(self.run_dir))?;
            let run = self.run_dir.file_name().unwrap_or_default();
            let notice = notice(&description, &run.to_string_lossy());
            session.progress.line(&notice);
            self.kept = Some(description.what);
        }
        self.kept
            .as_ref()
            .map(|kept| format!("kept until Ctrl-C: {kept}"))
    }

    /// Whose cluster has been held, if any.
    pub(crate) fn into_kept(self) -> Option<String> {
        self.kept
    }
}

/// What the cluster that is held says of itself, if there is one. One that does not answer yet is
/// asked again.
async fn held(run_dir: &Path) -> Option<Description> {
    let link = Link::open(run_dir).await.ok()??;
    link.describe().await.ok()
}

fn notice(description: &Description, run: &str) -> String {
    format!(
        "kept for a look: {}Ctrl-C ends it, and with it the run: what has not run by then is skipped",
        access::ways(description, run)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use podwire_access::{AccessError, Door, NodeAddress, Room, Served, find};
    use podwire_cluster::{Bootstrap, Cell, Layout};
    use podwire_lan::{Segment, SegmentOptions};
    use podwire_scenario::{CellContext, Share, bare};
    use podwire_vm::Accelerator;
    use time::OffsetDateTime;

    use super::*;
    use crate::command::workspace::Workspace;
    use crate::prepare::fixture::cluster_plan;

    /// What the scenarios' processes of a cell are told that nobody has prepared anything for.
    fn context(keep: &Path) -> CellContext {
        CellContext {
            plan: cluster_plan(),
            stages: BTreeMap::new(),
            qemu: "qemu".into(),
            qemu_img: "qemu-img".into(),
            accelerator: Accelerator::Tcg,
            speed_factor: 1.0,
            ssh_key: "key".into(),
            broken: None,
            share: Share {
                folder: "admission".into(),
                slots: 1,
                clone_mib: 1,
                keep_free_mib: 1,
            },
            keep: Some(keep.to_owned()),
            tested: String::new(),
            again: String::new(),
            repeat: 1,
            strict_wire: false,
            kube_router: None,
            programs: None,
        }
    }

    /// As a scenario's process does when its scenario has failed: all it knows is the cell's folder.
    fn opened(segment: &Segment, cell_dir: &Path, what: &str) -> Result<Door, AccessError> {
        let context = CellContext::read(cell_dir).unwrap();
        let room = Room {
            node: NodeAddress {
                name: "node1".into(),
                address: Ipv4Addr::new(172, 30, 0, 11),
            },
            host_key: String::new(),
            console: cell_dir.join("console.log"),
        };
        let served = Served {
            what: what.into(),
            user_key: context.ssh_key,
            limit: Duration::from_secs(1),
        };
        let run_dir = context.keep.unwrap();
        Door::to(vec![room], None, segment, &run_dir, &served)
    }

    #[tokio::test]
    async fn what_a_scenario_s_process_keeps_is_found_by_the_keeper_and_by_ssh() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace {
            root: dir.path().to_owned(),
            output: dir.path().join("target/podwire"),
        };
        let run_dir = workspace.new_run(OffsetDateTime::now_utc()).unwrap();
        let cell_dirs = Bootstrap::ALL.map(|bootstrap| {
            let cell_dir = bare::new_cell(&run_dir, Cell::usual(bootstrap)).unwrap();
            context(&run_dir).write(&cell_dir).unwrap();
            cell_dir
        });
        assert_eq!(held(&run_dir).await, None);

        let segment = Segment::start(Layout::Flat.network(1), SegmentOptions::default()).unwrap();
        let door = opened(&segment, &cell_dirs[0], "the first").unwrap();
        assert_eq!(held(&run_dir).await.as_ref(), Some(door.description()));
        let running = find::running(&workspace.runs()).await.unwrap();
        let run = run_dir.file_name().unwrap().to_str();
        let chosen = find::choose(&running, run).unwrap();
        assert_eq!(&chosen.description, door.description());
        assert_eq!(chosen.dir, *run_dir);

        // One run has one door, whichever cell the next one is of.
        for cell_dir in &cell_dirs {
            let next = opened(&segment, cell_dir, "the next").err().unwrap();
            assert!(matches!(next, AccessError::Taken { .. }), "{next}");
        }
        drop(door);
        assert_eq!(held(&run_dir).await, None);
    }

    #[test]
    fn the_notice_says_how_to_get_in_and_out() {
        let description = Description {
            what: "scenario static_routes, which failed: expected a; seen (timed out): b".into(),
            started: 0,
            pid: 1,
            nodes: vec![NodeAddress {
                name: "node1".into(),
                address: [172, 30, 0, 11].into(),
            }],
            router: None,
        };
        insta::assert_snapshot!(notice(&description, "20261121T130500Z-1"), @"
        kept for a look: scenario static_routes, which failed: expected a; seen (timed out): b:
          node1  172.30.0.11
        from another terminal:
          cargo xtask ssh node1
          cargo xtask console node1
          cargo xtask kubectl get pods -A -o wide
          cargo xtask kubeconfig
          cargo xtask impair node1 --delay 40ms --loss 1%
        (where several clusters run: --run 20261121T130500Z-1 behind ssh, console, kubectl or impair)
        Ctrl-C ends it, and with it the run: what has not run by then is skipped
        ");
    }
}
