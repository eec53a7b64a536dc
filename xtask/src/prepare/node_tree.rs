//! `--node-files DIR`: files of the user's that nodes have before anything starts, read before anything is
//! done.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use podwire_cluster::{Cell, Laid, NodeTree};
use podwire_process::plain;
use podwire_vm::Accelerator;

use crate::prepare::given::{at_most, outline};
use crate::say::stop::Stop;

/// Files and links that a tree may have, and octets in all of them: they are settings, and are kept in each
/// stage's manifest.
const MOST: usize = 1000;
const MOST_OCTETS: u64 = 1 << 20;
/// Folders in one another.
const DEEP: usize = 32;

/// What the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// As it was typed.
    pub(crate) dir: String,
    pub(crate) tree: NodeTree,
}

impl Given {
    /// Reads the folder, where there is one, and looks whether it can be laid over the nodes of these cells.
    pub(crate) fn read(
        dir: Option<&Path>,
        nodes: u32,
        cells: &[Cell],
    ) -> Result<Option<Self>, Stop> {
        let Some(dir) = dir else {
            return Ok(None);
        };
        let usage = |why: String| {
            Stop::Usage(format!(
                "--node-files {}: {why}",
                plain::text(&dir.display().to_string())
            ))
        };
        let tree = Reading::of(dir).map_err(usage)?;
        for cell in cells {
            let plan = outline(nodes, *cell, "", Accelerator::Tcg)?;
            let checked = plan.with_node_tree(Some(tree.clone())).check_node_tree();
            checked.map_err(|error| usage(error.to_string()))?;
        }
        Ok(Some(Self {
            dir: dir.display().to_string(),
            tree,
        }))
    }

    /// For reports: what was laid, and what it is recognised by.
    pub(crate) fn about(&self) -> String {
        let digest = self.tree.digest();
        let files = match self.tree.count() {
            1 => "1 file".to_owned(),
            many => format!("{many} files"),
        };
        format!("{} ({files}, sha256 {})", self.dir, &digest[..12])
    }
}

/// A folder that is being read.
struct Reading {
    tree: NodeTree,
    octets: u64,
}

impl Reading {
    fn of(dir: &Path) -> Result<NodeTree, String> {
        let mut reading = Self {
            tree: NodeTree::default(),
            octets: 0,
        };
        for (name, path) in entries(dir)? {
            let kind = fs::symlink_metadata(&path).map_err(|error| told(&path, &error))?;
            if !kind.is_dir() {
                return Err(format!(
                    "{name} lies directly in it, and would be /{name} on the nodes: files are in folders as on \
                     a node (etc/sysctl.d/9.conf), those of one node below its name (node2/etc/...)"
                ));
            }
            match node(&name)? {
                Some(number) => {
                    let mut own = BTreeMap::new();
                    for (name, path) in entries(&path)? {
                        reading.walk(&path, &format!("/{name}"), 0, &mut own)?;
                    }
                    reading.tree.one.insert(number, own);
                }
                None => {
                    let mut every = std::mem::take(&mut reading.tree.every);
                    reading.walk(&path, &format!("/{name}"), 0, &mut every)?;
                    reading.tree.every = every;
                }
            }
        }
        match reading.tree.count() {
            0 => Err("there is no file in it".to_owned()),
            _ => Ok(reading.tree),
        }
    }

    /// Takes what is at `path`, and will be at `at` on a node.
    fn walk(
        &mut self,
        path: &Path,
        at: &str,
        depth: usize,
        to: &mut BTreeMap<String, Laid>,
    ) -> Result<(), String> {
        let kind = fs::symlink_metadata(path).map_err(|error| told(path, &error))?;
        if kind.is_dir() {
            if depth == DEEP {
                return Err(format!(
                    "more than {DEEP} folders are in one another at {at}"
                ));
            }
            for (name, path) in entries(path)? {
                self.walk(&path, &format!("{at}/{name}"), depth + 1, to)?;
            }
            return Ok(());
        }
        let laid = if kind.is_symlink() {
            let target = fs::read_link(path).map_err(|error| told(path, &error))?;
            let target = target.to_str().filter(|it| is_one_line(it));
            Laid::Link {
                to: target
                    .ok_or_else(|| format!("the link {at} leads to what is no name"))?
                    .to_owned(),
            }
        } else if kind.is_file() {
            Laid::File {
                mode: kind.permissions().mode() & 0o777,
                text: self.text(path, at)?,
            }
        } else {
            return Err(format!("{at} is neither a file, nor a folder, nor a link"));
        };
        to.insert(at.to_owned(), laid);
        match self.tree.count() + to.len() > MOST {
            true => Err(format!("there are more than {MOST} files in it")),
            false => Ok(()),
        }
    }

    fn text(&mut self, path: &Path, at: &str) -> Result<String, String> {
        let left = MOST_OCTETS - self.octets;
        let read = at_most(path, left).map_err(|error| told(path, &error))?;
        let bytes = read.ok_or_else(|| {
            format!(
                "its files have more than {} KiB together: programs and modules belong into an image",
                MOST_OCTETS >> 10
            )
        })?;
        self.octets += bytes.len() as u64;
        String::from_utf8(bytes).map_err(|_| format!("{at} is no text (UTF-8)"))
    }
}

/// What is in a folder, by name.
fn entries(dir: &Path) -> Result<BTreeMap<String, std::path::PathBuf>, String> {
    let all = fs::read_dir(dir).map_err(|error| told(dir, &error))?;
    let named = all.map(|entry| {
        let entry = entry.map_err(|error| told(dir, &error))?;
        let name = entry.file_name();
        let name = name.to_str().filter(|it| is_one_line(it));
        let name = name.ok_or_else(|| {
            let name = plain::text(&entry.file_name().to_string_lossy());
            format!("the name `{name}` is none that a node's settings have")
        })?;
        Ok((name.to_owned(), entry.path()))
    });
    named.collect()
}

fn is_one_line(name: &str) -> bool {
    !name.is_empty() && !name.contains(|it: char| it.is_control())
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", plain::text(&path.display().to_string()))
}

/// The number of the node that a folder is for. What only looks like one would be a folder on every node, or be
/// taken for another's.
fn node(name: &str) -> Result<Option<u32>, String> {
    let Some(number) = name.strip_prefix("node") else {
        return Ok(None);
    };
    let digits = number.trim_start_matches(['+', '-']);
    if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return Ok(None);
    }
    match number.parse::<u32>() {
        Ok(read) if read.to_string() == number => Ok(Some(read)),
        Ok(read) => Err(format!(
            "no node is called {name}: its files are below node{read}"
        )),
        Err(_) => Err(format!(
            "no node is called {name}: a node's files are below node1, node2, ..."
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use podwire_cluster::Bootstrap;

    use super::*;

    fn read(dir: &Path) -> Result<Option<Given>, Stop> {
        Given::read(Some(dir), 3, &[Cell::usual(Bootstrap::ByHand)])
    }

    fn refused(dir: &Path) -> String {
        match read(dir) {
            Err(Stop::Usage(why)) => why.replace(&dir.display().to_string(), "DIR"),
            other => panic!("{other:?}"),
        }
    }

    fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_tree_is_every_node_s_and_what_is_below_a_name_that_node_s() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "etc/sysctl.d/9.conf", "net.core.somaxconn = 1");
        write(dir.path(), "node2/etc/nftables.conf", "flush ruleset");
        fs::create_dir_all(dir.path().join("etc/systemd/system/sysinit.target.wants")).unwrap();
        let unit = "/usr/lib/systemd/system/nftables.service";
        let wanted = "etc/systemd/system/sysinit.target.wants/nftables.service";
        symlink(unit, dir.path().join(wanted)).unwrap();
        let given = read(dir.path()).unwrap().unwrap();
        let paths: Vec<&String> = given.tree.every.keys().collect();
        assert_eq!(paths, ["/etc/sysctl.d/9.conf", &format!("/{wanted}")]);
        let link = Laid::Link { to: unit.into() };
        assert_eq!(given.tree.every[&format!("/{wanted}")], link);
        assert_eq!(given.tree.one[&2].len(), 1);
        assert!(
            given.about().contains(" (3 files, sha256 "),
            "{}",
            given.about()
        );
        assert_eq!(Given::read(None, 3, &[]).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_laid_is_refused_in_words() {
        let all = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let dir = all.path().join(name);
            fs::create_dir(&dir).unwrap();
            dir
        };
        let absent = all.path().join("absent");
        let empty = dir("empty");
        let top = dir("top");
        write(&top, "README", "");
        let binary = dir("binary");
        write(&binary, "usr/bin/x", [0x7f, b'E', 0xff]);
        let large = dir("large");
        write(&large, "etc/a", vec![b' '; 700 << 10]);
        write(&large, "etc/b", vec![b' '; 700 << 10]);
        let socket = dir("socket");
        fs::create_dir(socket.join("run")).unwrap();
        let _listener = UnixListener::bind(socket.join("run/s")).unwrap();
        let name = dir("name");
        write(&name, "etc/a\u{1b}[2J", "");
        let nobody = dir("nobody");
        write(&nobody, "node4/etc/a", "");
        let taken = dir("taken");
        write(&taken, "node1/etc/machine-id", "");
        let zero = dir("zero");
        write(&zero, "node02/etc/a", "");
        write(&zero, "node2/etc/b", "");
        let sign = dir("sign");
        write(&sign, "node+2/etc/a", "");
        let many = dir("many");
        write(&many, "node99999999999/etc/a", "");
        let memory = dir("memory");
        write(&memory, "run/sysctl.d/9.conf", "");
        let below = dir("below");
        write(&below, "etc/a", "");
        write(&below, "node2/etc/a/b", "");
        let said = [
            absent, empty, top, binary, large, socket, name, nobody, taken, zero, sign, many,
            memory, below,
        ]
        .map(|it| refused(&it));
        insta::assert_snapshot!(said.join("\n"), @r#"
        --node-files DIR: DIR: No such file or directory (os error 2)
        --node-files DIR: there is no file in it
        --node-files DIR: README lies directly in it, and would be /README on the nodes: files are in folders as on a node (etc/sysctl.d/9.conf), those of one node below its name (node2/etc/...)
        --node-files DIR: /usr/bin/x is no text (UTF-8)
        --node-files DIR: its files have more than 1024 KiB together: programs and modules belong into an image
        --node-files DIR: /run/s is neither a file, nor a folder, nor a link
        --node-files DIR: the name `a\u001b[2J` is none that a node's settings have
        --node-files DIR: there are files for node4, and the cluster has 3 nodes
        --node-files DIR: /etc/machine-id is written on the nodes by podwire itself, on the way to the stage identified, and yours would be gone
        --node-files DIR: no node is called node02: its files are below node2
        --node-files DIR: no node is called node+2: its files are below node2
        --node-files DIR: no node is called node99999999999: a node's files are below node1, node2, ...
        --node-files DIR: /run/sysctl.d/9.conf would be gone once the nodes have booted: /run is made anew with every boot; give what makes it then, as /etc/tmpfiles.d/NAME.conf (tmpfiles.d(5)), or a place on the disk (/etc, /usr/local, /var/lib)
        --node-files DIR: on node2 /etc/a would be a file, and /etc/a/b lies below it; leave one of them out, or give each to the nodes that it is for (node1/etc/a, ...)
        "#);
    }
}
