//! One side of a comparison: how it is named.

use std::fs;
use std::path::Path;

use clap::{Arg, CommandFactory as _, Parser as _};

use crate::command::cli::change::ChangeArgs;

/// What stands before the name of a revision.
const REVISION: &str = "git:";

/// What stands for the folder of a revision's checkout.
const CHECKOUT: &str = "{}";

/// How a side is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    /// By the flags of a change; none at all name what is tested when nothing is said.
    Flags(Vec<String>),
    /// By a revision of the user's repository, as git understands it.
    Revision(String),
}

/// Reads a side's name: `git:` and a revision; or the flags of a file, where there is one of that name; else the
/// words themselves, as a shell would take them apart.
///
/// # Errors
/// In words, when they cannot be taken apart, or name something that is no change.
pub(crate) fn side(asked: &str) -> Result<Side, String> {
    if let Some(revision) = asked.strip_prefix(REVISION) {
        return match revision.trim() {
            "" => Err(format!(
                "`{asked}` names no revision; {REVISION}HEAD is one"
            )),
            revision => Ok(Side::Revision(revision.to_owned())),
        };
    }
    let path = Path::new(asked);
    let text = match path.is_file() {
        true => {
            fs::read_to_string(path).map_err(|error| format!("cannot read {asked}: {error}"))?
        }
        false => asked.to_owned(),
    };
    let words = words(&text)?;
    match words.first() {
        Some(first) if !first.starts_with('-') => Err(format!(
            "`{first}` is neither a file nor a flag; a side is a file with flags, a quoted list of them \
             (\"--kube-proxy iptables\"), \"\", or a revision (\"{REVISION}main\")"
        )),
        _ => checked(words).map(Side::Flags),
    }
}

/// The flags by which a revision is tested whose checkout is there.
///
/// # Errors
/// In words, when they are no flags of a change, or name nothing of the checkout.
pub(crate) fn taken(takes: &str, checkout: &str) -> Result<Vec<String>, String> {
    let words = words(takes)?;
    if !words.iter().any(|word| word.contains(CHECKOUT)) {
        return Err(format!(
            "`{takes}` takes nothing from a revision: {CHECKOUT} is its checkout (\"--replace \
             kube-proxy={CHECKOUT}/out/kube-proxy\")"
        ));
    }
    checked(
        words
            .iter()
            .map(|word| word.replace(CHECKOUT, checkout))
            .collect(),
    )
}

fn words(text: &str) -> Result<Vec<String>, String> {
    shell_words::split(text)
        .map_err(|_| "a quotation mark, or a backslash, has nothing behind it".to_owned())
}

/// The same words, if they name a change.
fn checked(words: Vec<String>) -> Result<Vec<String>, String> {
    match ChangeArgs::try_parse_from(&words) {
        Ok(_) => Ok(words),
        Err(error) => Err(told(&error)),
    }
}

/// What clap says, without what is about a command of its own.
fn told(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let (said, _) = text.split_once("\n\nUsage:").unwrap_or((&text, ""));
    let said = said.trim().trim_start_matches("error: ");
    let command = ChangeArgs::command();
    let flags = command.get_arguments().filter_map(Arg::get_long);
    let flags: Vec<String> = flags.map(|flag| format!("--{flag}")).collect();
    format!(
        "{said}\n(a side has the flags by which a change is named: {}; what holds for both sides stands \
         outside their quotes)",
        flags.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_quoted_list_or_a_file_of_lines_with_comments() {
        let flags = |asked: &str| {
            side(asked).map(|side| match side {
                Side::Flags(flags) => flags,
                Side::Revision(revision) => panic!("{revision}"),
            })
        };
        assert_eq!(flags(""), Ok(vec![]));
        let list = "--kube-proxy iptables --pod-network=flannel";
        let words = ["--kube-proxy", "iptables", "--pod-network=flannel"];
        assert_eq!(flags(list).unwrap(), words);
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("my proxy");
        fs::write(&program, "").unwrap();
        let file = dir.path().join("head");
        let program = program.display();
        let text = format!(
            "# what is under test\n--replace 'kube-proxy={program}'   # mine\n\n--kubernetes 1.36.4\n"
        );
        fs::write(&file, text).unwrap();
        let replaced = format!("kube-proxy={program}");
        let words = ["--replace", &replaced, "--kubernetes", "1.36.4"];
        assert_eq!(flags(file.to_str().unwrap()).unwrap(), words);
    }

    #[test]
    fn what_is_no_change_is_told_in_words() {
        let told = [
            "--nodes 4",
            "--filter every_pair",
            "--tests ./mine",
            "--kube-proxy ipvs",
            "--kube-proxy 'iptables",
            "./out/no-such-file",
            "--kube-proxy iptables flannel",
            "--replace kube-proxy",
            "--help",
            "git: ",
        ]
        .map(|asked| {
            format!(
                "{asked}\n  {}",
                side(asked).unwrap_err().replace('\n', "\n  ")
            )
        });
        insta::assert_snapshot!(told.join("\n\n"));
    }

    #[test]
    fn a_revision_s_flags_name_files_of_its_checkout() {
        assert_eq!(side("git:v1.36.4"), Ok(Side::Revision("v1.36.4".into())));
        let takes = "--replace 'kube-proxy={}/out dir/kube-proxy' --node-files={}/tree";
        let words = taken(takes, "/the checkout").unwrap();
        let replaced = "kube-proxy=/the checkout/out dir/kube-proxy";
        assert_eq!(
            words,
            ["--replace", replaced, "--node-files=/the checkout/tree"]
        );
        let told = [
            "--replace kube-proxy=out/kube-proxy",
            "{}/out",
            "--filter {}",
            "'{}",
        ]
        .map(|takes| taken(takes, "/checkout").unwrap_err());
        insta::assert_snapshot!(told.join("\n\n"));
    }
}
