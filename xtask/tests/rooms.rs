//! The rooms of a crate: folders of modules, in an order. A module imports from its own room and from
//! those below it, its tests too, and no modules need each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;
use std::path::Path;
use std::{fs, io};

/// Crates with rooms: the folder of each one's sources, and its rooms from the bottom up.
const CRATES: [(&str, &[&str]); 3] = [
    (
        "xtask/src",
        &[
            "say", "plan", "command", "report", "prepare", "lab", "house", "run", "bench",
        ],
    ),
    (
        "harness/cluster/src",
        &["plan", "parts", "steps", "running", "stages"],
    ),
    (
        "harness/scenario/src",
        &["check", "wait", "lab", "scenario", "run"],
    ),
];

/// Sources by the module's path: `plan::phase`.
type Sources = BTreeMap<String, String>;

#[test]
fn every_room_stands_on_those_below_it() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (folder, rooms) in CRATES {
        let sources = read(&workspace.join(folder)).unwrap();
        assert!(!sources.is_empty(), "{folder} has no modules");
        let mut wrong = upwards(rooms, &sources);
        wrong.extend(circles(&sources));
        assert!(wrong.is_empty(), "{folder}:\n{}", wrong.join("\n"));
    }
}

/// All modules below a folder but the crate's root, which puts them together.
fn read(folder: &Path) -> io::Result<Sources> {
    let mut sources = Sources::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                folders.push((path.clone(), format!("{prefix}{stem}::")));
            } else if path.extension().is_some_and(|it| it == "rs")
                && !(prefix.is_empty() && ["main", "lib"].contains(&&*stem))
            {
                let text = fs::read_to_string(&path)?;
                sources.insert(format!("{prefix}{stem}"), text);
            }
        }
    }
    Ok(sources)
}

/// What is in no room, or imports something that is not in its room or below it.
fn upwards(rooms: &[&str], sources: &Sources) -> Vec<String> {
    let floor = |path: &str| {
        let room = path.split("::").next();
        rooms.iter().position(|known| Some(*known) == room)
    };
    let mut wrong = Vec::new();
    for (module, text) in sources {
        let Some(own) = floor(module) else {
            wrong.push(format!("{module} is in no room"));
            continue;
        };
        for path in imports(module, text) {
            match floor(&path) {
                Some(other) if other <= own => {}
                Some(_) => wrong.push(format!("{module} imports {path} from a room above it")),
                None => wrong.push(format!("{module} imports {path}, which is in no room")),
            }
        }
    }
    wrong
}

/// Imports between modules that need each other; what unit tests import counts for nothing.
fn circles(sources: &Sources) -> Vec<String> {
    let mut left: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (module, text) in sources {
        let code = text.split("mod tests {").next().unwrap_or_default();
        for path in imports(module, code) {
            let mut prefixes = successors(Some(path.as_str()), |path| {
                path.rsplit_once("::").map(|(prefix, _)| prefix)
            });
            if let Some((other, _)) = prefixes.find_map(|path| sources.get_key_value(path))
                && other != module
            {
                left.insert((module, other));
            }
        }
    }
    // What nobody needs, or needs nobody, is in no circle.
    loop {
        let before = left.len();
        let from: BTreeSet<&str> = left.iter().map(|(from, _)| *from).collect();
        let to: BTreeSet<&str> = left.iter().map(|(_, to)| *to).collect();
        left.retain(|(module, other)| to.contains(module) && from.contains(other));
        if left.len() == before {
            break;
        }
    }
    let left = left.iter();
    left.map(|(module, other)| format!("in a circle: {module} imports {other}"))
        .collect()
}

/// The paths within its crate that a module names, from the crate's root on.
fn imports(module: &str, text: &str) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = Vec::new();
    for (word, base) in [("crate::", ""), ("super::", parent)] {
        for (at, _) in code.match_indices(word) {
            // Behind a `$` stands what whoever uses a macro names, from outside.
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !(before.is_alphanumeric() || ['_', ':', '$'].contains(&before)) {
                tree(&code[at + word.len()..], base, &mut found);
            }
        }
    }
    // `super::*` of a module's own tests.
    let found = found.into_iter().filter(|path| path != parent);
    found.filter(|path| !path.is_empty()).collect()
}

/// Reads a path or a braced list of them; gives what follows.
fn tree<'a>(text: &'a str, base: &str, found: &mut Vec<String>) -> &'a str {
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = tree(rest.trim_start(), base, found);
            // An `as` counts for nothing.
            rest = &rest[rest.find([',', '}']).unwrap_or(rest.len())..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let path = match name {
        "super" => base.rsplit_once("::").map_or("", |(up, _)| up).to_owned(),
        "" | "self" => base.to_owned(),
        name if base.is_empty() => name.to_owned(),
        name => format!("{base}::{name}"),
    };
    match rest.strip_prefix("::") {
        Some(rest) => tree(rest, &path, found),
        None => {
            found.push(path);
            rest
        }
    }
}

/// Modules of a crate that stands nowhere.
fn sources(modules: &[(&str, &str)]) -> Sources {
    let modules = modules.iter();
    modules
        .map(|(module, text)| ((*module).to_owned(), (*text).to_owned()))
        .collect()
}

#[test]
fn an_import_from_above_is_found_however_it_is_written() {
    let rooms = ["low", "high"];
    for import in [
        "use crate::high::b;",
        "use crate::{high::b, low::c as d};",
        "use crate::{\n    low::{self, c},\n    high::{b},\n};",
        "fn f() { crate::high::b::g() }",
        "use super::super::high::b;",
        "mod tests {\n    use crate::high::b::fixture;\n}",
    ] {
        let wrong = upwards(&rooms, &sources(&[("low::a", import)]));
        assert_eq!(wrong.len(), 1, "{import}: {wrong:?}");
        assert!(wrong[0].starts_with("low::a imports high::b"), "{wrong:?}");
        // The same from the other side is as it should be.
        let import = import.replace("high", "low");
        assert_eq!(
            upwards(&rooms, &sources(&[("high::b", &import)])),
            [""; 0],
            "{import}"
        );
    }
    for fine in [
        "//! See [`b`](crate::high::b).",
        "use podwire_crate::high::b;",
        "macro_rules! m { () => { $crate::high::b }; }",
        "use super::*;",
        "use super::{c, d};",
    ] {
        assert_eq!(
            upwards(&rooms, &sources(&[("low::a", fine)])),
            [""; 0],
            "{fine}"
        );
    }
}

#[test]
fn what_is_in_no_room_is_found() {
    let stray = sources(&[("stray", ""), ("low::a", "use crate::Thing;")]);
    assert_eq!(
        upwards(&["low"], &stray),
        [
            "low::a imports Thing, which is in no room",
            "stray is in no room"
        ]
    );
}

#[test]
fn modules_that_need_each_other_are_found_and_nobody_else() {
    let all = sources(&[
        ("low::a", "use super::b::B;"),
        ("low::b", "use crate::low::c;\nuse crate::low::d::D;"),
        ("low::c", "use crate::low::{a::A, d};"),
        (
            "low::d",
            "#[cfg(test)]\nmod tests {\n    use crate::low::a;\n}",
        ),
        ("high::e", "use crate::low::a::A;"),
    ]);
    assert_eq!(
        circles(&all),
        [
            "in a circle: low::a imports low::b",
            "in a circle: low::b imports low::c",
            "in a circle: low::c imports low::a"
        ]
    );
}
