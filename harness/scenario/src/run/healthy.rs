//! Where a head's healthy clone comes from: the clusters of the comparison's base.

use std::fs;
use std::path::Path;

use podwire_cluster::{Cell, Layout, Stage, StageName};

use crate::run::context::CellContext;

/// The stage of that name which the base's run in this folder has for a cell of the head's: of the same cell or, where
/// kube-proxy's mode or the Pod network are what a change changes, of its only one with the same bootstrap and layout.
///
/// # Errors
/// In words, why there is none: `the base has none by kubeadm`.
pub(super) fn stage_of_base(run: &Path, own: Cell, name: &StageName) -> Result<Stage, String> {
    let folders = fs::read_dir(run).into_iter().flatten().flatten();
    let all = folders.filter_map(|folder| CellContext::read(&folder.path()).ok());
    let all: Vec<CellContext> = all.collect();
    let cells: Vec<Cell> = all.iter().map(|it| it.plan.cell).collect();
    let context = &all[like(own, &cells)?];
    let stage = context.stages.get(name);
    let stage = stage.ok_or_else(|| format!("the base has no stage {name}"))?;
    let stage = Stage::open(stage).map_err(|error| format!("the base's stage is gone: {error}"))?;
    Ok(stage.as_of(&context.plan))
}

/// Which of the base's cells is the one to compare with.
fn like(own: Cell, all: &[Cell]) -> Result<usize, String> {
    if let Some(same) = all.iter().position(|it| *it == own) {
        return Ok(same);
    }
    let of = |it: &Cell| (it.bootstrap, it.layout);
    let mut alike = all.iter().zip(0..).filter(|(it, _)| of(it) == of(&own));
    let what = match own.layout {
        Layout::Flat => own.bootstrap.to_string(),
        layout => format!("{}+{layout}", own.bootstrap),
    };
    match (alike.next(), alike.next()) {
        (Some((_, only)), None) => Ok(only),
        (None, _) => Err(format!("the base has no cluster {what}")),
        (Some(_), Some(_)) => Err(format!(
            "the base has several clusters {what}, and none that is {own}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_may_be_tells_no_two_clusters_apart_unless_there_are_several() {
        let cells = |words: &str| {
            let words = words.split_whitespace();
            words.map(|it| it.parse().unwrap()).collect::<Vec<Cell>>()
        };
        let found = |own: &str, base: &str| like(own.parse().unwrap(), &cells(base));
        let base = "by-hand/nftables/routes kubeadm/nftables/flannel";
        assert_eq!(found("kubeadm/nftables/flannel", base), Ok(1));
        assert_eq!(found("kubeadm/iptables/flannel", base), Ok(1));
        assert_eq!(found("by-hand/nftables/flannel", base), Ok(0));
        let several = "by-hand/nftables/routes by-hand/nftables/flannel";
        assert_eq!(found("by-hand/nftables/flannel", several), Ok(1));
        let told = [
            found("kubeadm/nftables/flannel+routed", base),
            found("kubeadm/nftables/flannel", several),
            found("by-hand/iptables/routes", several),
        ];
        insta::assert_snapshot!(told.map(Result::unwrap_err).join("\n"), @"
        the base has no cluster kubeadm+routed
        the base has no cluster kubeadm
        the base has several clusters by-hand, and none that is by-hand/iptables/routes
        ");
    }

    #[test]
    fn a_base_whose_run_is_gone_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let own = "kubeadm/nftables/flannel".parse().unwrap();
        let none = stage_of_base(&folder.path().join("gone"), own, &StageName::Booted);
        assert_eq!(none.err().unwrap(), "the base has no cluster kubeadm");
    }
}
