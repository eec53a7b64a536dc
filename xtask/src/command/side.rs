//! One side of a comparison: the flags by which it is named.

use std::fs;
use std::path::Path;

use clap::{Arg, CommandFactory as _, Parser as _};

use crate::command::cli::ChangeArgs;

/// The flags of a side: those of a file, where there is one of that name; else the words themselves, as a
/// shell would take them apart. None at all name what is tested when nothing is said.
///
/// # Errors
/// In words, when they cannot be taken apart, or name something that is no change.
pub(crate) fn flags(asked: &str) -> Result<Vec<String>, String> {
    let path = Path::new(asked);
    let text = match path.is_file() {
        true => {
            fs::read_to_string(path).map_err(|error| format!("cannot read {asked}: {error}"))?
        }
        false => asked.to_owned(),
    };
    let words = shell_words::split(&text)
        .map_err(|_| "a quotation mark, or a backslash, has nothing behind it".to_owned())?;
    match words.first() {
        Some(first) if !first.starts_with('-') => Err(format!(
            "`{first}` is neither a file nor a flag; a side is a file with flags, or a quoted list of \
             them (\"--kube-proxy iptables\"), or \"\""
        )),
        _ => match ChangeArgs::try_parse_from(&words) {
            Ok(_) => Ok(words),
            Err(error) => Err(told(&error)),
        },
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
        ]
        .map(|asked| {
            format!(
                "{asked}\n  {}",
                flags(asked).unwrap_err().replace('\n', "\n  ")
            )
        });
        insta::assert_snapshot!(told.join("\n\n"));
    }
}
