//! Which clusters a scenario means something for, and why not the others.

use std::fmt;

use podwire_cluster::{Bootstrap, Cell, Layout, PodNetwork, StageName};

use super::Scenario;
use super::clusters::{Cells, Families};

/// Why a scenario means nothing for a cluster, in words that go on from its name: `two_segments needs to know ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is for nodes that are laid out like this.
    Layout(Layout),
    /// It looks at these families of IP.
    Families(Families),
    /// It is about what this bootstrap leaves.
    Bootstrap(Bootstrap),
    /// It starts from this stage, which the cluster does not have.
    Stage(StageName),
    /// It is about networks of these cells.
    Network(Cells),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::Layout(layout) => return write!(f, "is for nodes that are laid out {layout}"),
            Self::Stage(stage) => {
                return write!(
                    f,
                    "starts from the stage {stage}, which such a cluster does not have"
                );
            }
            Self::Families(Families::Dual) => "is about two families of IP",
            Self::Families(Families::Ipv4 | Families::Each) => "looks at IPv4 alone",
            Self::Bootstrap(Bootstrap::ByHand) => "looks at what the steps by hand have left",
            Self::Bootstrap(Bootstrap::Kubeadm) => "runs kubeadm, or looks at what that has left",
            Self::Network(cells) => cells.about_their_networks(),
        };
        f.write_str(why)
    }
}

impl Scenario {
    /// Why it means nothing for a cluster of this cell; nothing where it does.
    pub fn unfit(&self, cell: Cell) -> Option<Unfit> {
        if self.layout != cell.layout {
            return Some(Unfit::Layout(self.layout));
        }
        if !self.families.include(cell.ip_families) {
            return Some(Unfit::Families(self.families));
        }
        let bootstrap = self.cells.bootstrap();
        if let Some(wanted) = bootstrap.filter(|it| *it != cell.bootstrap) {
            return Some(Unfit::Bootstrap(wanted));
        }
        if !self.stage.is_of(cell) {
            return Some(Unfit::Stage(self.stage));
        }
        let network = self.cells.include_network(cell.network);
        (!network).then_some(Unfit::Network(self.cells))
    }

    /// Whether it means something for a cluster of this cell.
    pub fn fits(&self, cell: Cell) -> bool {
        self.unfit(cell).is_none()
    }

    /// Why it means nothing over a Pod network of a manifest, one by its name or the user's, whoever makes the cluster;
    /// nothing where it does.
    pub fn unfit_for_a_manifest(&self) -> Option<Unfit> {
        self.unfit_for_all(Bootstrap::ALL.map(|bootstrap| Cell {
            network: PodNetwork::Manifest,
            ..Cell::usual(bootstrap)
        }))
    }

    /// Why it means nothing for any of these cells, its nodes laid out as it needs them; nothing where it fits one, or
    /// where there are none. That it is about another bootstrap is told only of cells of that bootstrap alone.
    pub fn unfit_for_all(&self, cells: impl IntoIterator<Item = Cell>) -> Option<Unfit> {
        let mut told = None;
        for cell in cells {
            let unfit = self.unfit(cell.laid_out(self.layout))?;
            match told {
                None | Some(Unfit::Bootstrap(_)) => told = Some(unfit),
                Some(_) => {}
            }
        }
        told
    }
}
