//! kubectl on the control-plane node, with files of this machine.
//!
//! kubectl runs where its kubeconfig is. The files that `-f` names are here: they are sent along,
//! to a folder that goes when kubectl has ended.

use std::fs;
use std::io;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::slice::Iter;

use podwire_cluster::kubeconfig::ADMIN_PATH;

use crate::{AccessError, Exit, Foreground, Shell, Streams};

/// The node that has root's kubeconfig.
pub const NODE: &str = "node1";

/// What kubectl reads of a folder (`FileExtensions` of k8s.io/cli-runtime).
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// Flags before the subcommand whose value is an argument of its own (those of every command,
/// `kubectl options`).
const GLOBAL_WITH_VALUE: [&str; 24] = [
    "-n",
    "-s",
    "-v",
    "--as",
    "--as-group",
    "--as-uid",
    "--as-user-extra",
    "--cache-dir",
    "--certificate-authority",
    "--client-certificate",
    "--client-key",
    "--cluster",
    "--context",
    "--kubeconfig",
    "--kuberc",
    "--namespace",
    "--password",
    "--profile",
    "--request-timeout",
    "--server",
    "--tls-server-name",
    "--token",
    "--user",
    "--username",
];

/// One-letter flags without a value, which may stand before `f` in one argument: `-Rf folder`.
const WITHOUT_VALUE: &str = "AhiqRtw";

/// A command line of kubectl, with its local files told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubectl {
    words: Vec<Word>,
    /// Whether folders are meant with all that is below them (`-R`).
    recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// As it was typed.
    Plain(String),
    /// What names files: what stands before them in the same argument (`--filename=`), and each.
    Files(String, Vec<Source>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// Standard input (`-`) or a URL: kubectl's own affair.
    Remote(String),
    /// A file or folder of this machine, and its name in the folder on the node.
    Local { path: PathBuf, name: String },
}

impl Kubectl {
    /// Takes kubectl's arguments apart.
    pub fn new(args: &[String]) -> Self {
        let mut parser = Parser {
            args: args.iter().peekable(),
            words: Vec::new(),
            locals: 0,
        };
        // `kubectl logs -f` follows a log; it reads no files.
        if subcommand(args) != Some("logs") {
            parser.options();
        }
        parser.words.extend(parser.args.cloned().map(Word::Plain));
        let recursive = args
            .iter()
            .take_while(|arg| *arg != "--")
            .any(|arg| is_recursive(arg));
        Self {
            words: parser.words,
            recursive,
        }
    }

    /// The local files and folders that it names, and their names on the node.
    fn locals(&self) -> impl Iterator<Item = (&Path, &str)> {
        let sources = self.words.iter().flat_map(|word| match word {
            Word::Plain(_) => &[][..],
            Word::Files(_, sources) => sources.as_slice(),
        });
        sources.filter_map(|source| match source {
            Source::Remote(_) => None,
            Source::Local { path, name } => Some((path.as_path(), name.as_str())),
        })
    }

    /// The command line for the node's shell, where the local files are in `folder`.
    fn command(&self, folder: &str) -> String {
        let words = self.words.iter().map(|word| match word {
            Word::Plain(text) => quoted(text),
            Word::Files(before, sources) => {
                let sources: Vec<String> = sources
                    .iter()
                    .map(|source| match source {
                        Source::Remote(text) => text.clone(),
                        Source::Local { name, .. } => format!("{folder}/{name}"),
                    })
                    .collect();
                quoted(&format!("{before}{}", sources.join(",")))
            }
        });
        std::iter::once("kubectl".to_owned())
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The local files as a tar archive; `None` when there are none.
    ///
    /// # Errors
    /// [`AccessError::File`].
    fn archive(&self) -> Result<Option<Vec<u8>>, AccessError> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut any = false;
        for (path, name) in self.locals() {
            any = true;
            self.add(&mut archive, path, Path::new(name), true)?;
        }
        let archive = archive.into_inner();
        let archive = archive.map_err(AccessError::local("pack the files that -f names"))?;
        Ok(any.then_some(archive))
    }

    fn add(
        &self,
        archive: &mut tar::Builder<Vec<u8>>,
        path: &Path,
        name: &Path,
        named: bool,
    ) -> Result<(), AccessError> {
        let failed = |source: io::Error| AccessError::File {
            path: path.to_owned(),
            source,
        };
        let is_folder = fs::metadata(path).map_err(failed)?.is_dir();
        if !is_folder {
            // Read as a whole: it may be a pipe, `-f <(program)`.
            let content = fs::read(path).map_err(failed)?;
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o600);
            header.set_size(content.len() as u64);
            return archive
                .append_data(&mut header, name, content.as_slice())
                .map_err(failed);
        }
        // As kubectl does it: what is below only with -R, and no links to folders.
        if !named && (!self.recursive || path.is_symlink()) {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o700);
        header.set_size(0);
        archive
            .append_data(&mut header, name, io::empty())
            .map_err(failed)?;
        let entries = fs::read_dir(path).map_err(failed)?;
        let entries: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut entries = entries.map_err(failed)?;
        entries.sort();
        for entry in entries {
            let read = entry.is_dir()
                || entry
                    .extension()
                    .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
            if let (true, Some(last)) = (read, entry.file_name()) {
                self.add(archive, &entry, &name.join(last), false)?;
            }
        }
        Ok(())
    }

    /// Runs it on the node that `shell` leads to, with this process's streams. With a terminal,
    /// kubectl has one too.
    ///
    /// # Errors
    /// [`AccessError`]; but another exit status than 0 is not one.
    pub async fn run(&self, shell: &Shell) -> Result<Exit, AccessError> {
        // Before anything happens on the node: a file that is not there is the commonest mistake.
        let archive = self.archive()?;
        let command = match archive {
            None => self.command(""),
            Some(archive) => {
                let folder = send(shell, &archive).await?;
                cleaned_up(&self.command(&folder), &folder)
            }
        };
        let command = format!("{}; {command}", hint());
        // Only now: while files are sent, Ctrl-C ends this process.
        let foreground = Some(Foreground::take()?);
        shell.run(Some(&command), Streams::own()?, foreground).await
    }
}

/// Says what kubectl's own words do not: without a kubeconfig it looks for an API server of its own
/// machine, where nobody has started one.
fn hint() -> String {
    format!("[ -e {ADMIN_PATH} ] || echo '{}' >&2", without_kubeconfig())
}

/// What there is to say where root has no kubeconfig.
pub(crate) fn without_kubeconfig() -> String {
    format!(
        "{NODE} has no kubeconfig ({ADMIN_PATH}): a stage before control-plane, or init with kubeadm, has \
         no API server yet"
    )
}

/// Unpacks an archive on the node; the folder that it is in.
async fn send(shell: &Shell, archive: &[u8]) -> Result<String, AccessError> {
    let refused = |reason: String| AccessError::Upload {
        node: shell.node().to_owned(),
        reason,
    };
    let command = "d=$(mktemp -d) && { tar -x -C \"$d\" -f - || { rm -rf \"$d\"; false; }; } && \
                   echo \"$d\"";
    let (exit, folder, said) = shell.capture(command, archive).await?;
    match exit {
        Exit::Code(0) if folder.starts_with('/') => Ok(folder),
        Exit::Code(_) if !said.is_empty() => Err(refused(said)),
        exit => Err(refused(format!("the command ended with {exit:?}"))),
    }
}

/// The same command line, which removes `folder` however it ends. The shell survives the signals
/// that are meant for kubectl.
fn cleaned_up(command: &str, folder: &str) -> String {
    format!(
        "trap : HUP INT QUIT TERM PIPE; {command}; s=$?; rm -rf {}; exit $s",
        quoted(folder)
    )
}

/// A word as the node's shell takes it literally (POSIX shell, 2.2.2).
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The first argument that is neither a flag nor a flag's value.
fn subcommand(args: &[String]) -> Option<&str> {
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if GLOBAL_WITH_VALUE.contains(&arg) {
            args.next();
        } else if arg == "--" || !arg.starts_with('-') {
            return Some(arg);
        }
    }
    None
}

fn is_recursive(arg: &str) -> bool {
    let letters = arg.strip_prefix('-').unwrap_or_default();
    matches!(arg, "--recursive" | "--recursive=true")
        || letters
            .chars()
            .take_while(|letter| WITHOUT_VALUE.contains(*letter))
            .any(|letter| letter == 'R')
}

struct Parser<'a> {
    args: Peekable<Iter<'a, String>>,
    words: Vec<Word>,
    locals: usize,
}

impl Parser<'_> {
    /// Takes the arguments up to `--`, behind which are those of a program in a Pod.
    fn options(&mut self) {
        while let Some(arg) = self.args.next_if(|arg| *arg != "--") {
            let (before, value) = match flag(arg) {
                None => {
                    self.words.push(Word::Plain(arg.clone()));
                    continue;
                }
                Some(Flag::Attached(before, value)) => (before, value),
                Some(Flag::Apart) => {
                    self.words.push(Word::Plain(arg.clone()));
                    match self.args.next() {
                        Some(value) => ("", value.as_str()),
                        // kubectl says what is missing.
                        None => return,
                    }
                }
            };
            let sources = value.split(',').map(|source| self.source(source)).collect();
            self.words.push(Word::Files(before.to_owned(), sources));
        }
    }

    fn source(&mut self, text: &str) -> Source {
        let is_url = text.starts_with("http://") || text.starts_with("https://");
        if text == "-" || text.is_empty() || is_url {
            return Source::Remote(text.to_owned());
        }
        let path = PathBuf::from(text);
        // kubectl shows the name in its errors; two may have the same one.
        let last = path.file_name().unwrap_or("folder".as_ref());
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let last: String = last
            .to_string_lossy()
            .chars()
            .map(|c| if plain(c) { c } else { '_' })
            .collect();
        let name = format!("{}/{last}", self.locals);
        self.locals += 1;
        Source::Local { path, name }
    }
}

enum Flag<'a> {
    /// The value is in the same argument, behind this.
    Attached(&'a str, &'a str),
    /// The value is the next argument.
    Apart,
}

/// Whether an argument is `-f` or `--filename`, in any of the forms that kubectl knows.
fn flag(arg: &str) -> Option<Flag<'_>> {
    const LONG: &str = "--filename";
    if arg == LONG {
        return Some(Flag::Apart);
    }
    if let Some(value) = arg.strip_prefix("--filename=") {
        return Some(Flag::Attached(&arg[..LONG.len() + 1], value));
    }
    let letters = arg.strip_prefix('-')?;
    let before: usize = letters
        .chars()
        .take_while(|letter| WITHOUT_VALUE.contains(*letter))
        .map(char::len_utf8)
        .sum();
    let value = letters.get(before..)?.strip_prefix('f')?;
    if value.is_empty() {
        return Some(Flag::Apart);
    }
    let value = value.strip_prefix('=').unwrap_or(value);
    Some(Flag::Attached(&arg[..arg.len() - value.len()], value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// The command line without the quotes, which stand around every word.
    fn rewritten(line: &str) -> String {
        let command = Kubectl::new(&words(line)).command("/tmp/d");
        command.replace('\'', "")
    }

    #[test]
    fn every_form_of_the_flag_is_rewritten() {
        let forms = [
            "apply -f deploy.yaml",
            "apply -fdeploy.yaml",
            "apply -f=deploy.yaml",
            "apply --filename deploy.yaml",
            "apply --filename=deploy.yaml",
            "apply -Rf manifests",
            "apply -R -f ../up/manifests/",
            "apply -f a.yaml,b.yaml -f sub/a.yaml",
            "-n web delete --wait=false -f web.yaml",
        ];
        insta::assert_snapshot!(forms.map(rewritten).join("\n"), @r"
        kubectl apply -f /tmp/d/0/deploy.yaml
        kubectl apply -f/tmp/d/0/deploy.yaml
        kubectl apply -f=/tmp/d/0/deploy.yaml
        kubectl apply --filename /tmp/d/0/deploy.yaml
        kubectl apply --filename=/tmp/d/0/deploy.yaml
        kubectl apply -Rf /tmp/d/0/manifests
        kubectl apply -R -f /tmp/d/0/manifests
        kubectl apply -f /tmp/d/0/a.yaml,/tmp/d/1/b.yaml -f /tmp/d/2/a.yaml
        kubectl -n web delete --wait=false -f /tmp/d/0/web.yaml
        ");
    }

    #[test]
    fn what_is_no_local_file_stays() {
        for line in [
            "kubectl apply -f -",
            "kubectl apply -f https://example.com/a.yaml,-",
            "kubectl get pods -o=jsonpath={.items} -A",
            "kubectl logs -f web-1",
            "kubectl -n kube-system logs web-1 -f",
            "kubectl exec -it web-1 -- tail -f /var/log/x",
            "kubectl get pods --field-selector status.phase=Running",
            "kubectl apply -f",
        ] {
            let args = line.strip_prefix("kubectl ").unwrap();
            assert_eq!(rewritten(args), line);
            assert_eq!(Kubectl::new(&words(args)).locals().count(), 0, "{line}");
        }
    }

    #[test]
    fn a_name_that_kubectl_or_the_shell_would_take_apart_becomes_harmless() {
        let args = ["apply", "-f", "it's \"a\" folder/$x y.yaml"].map(String::from);
        let kubectl = Kubectl::new(&args);
        let (path, name) = kubectl.locals().next().unwrap();
        assert_eq!(path, Path::new("it's \"a\" folder/$x y.yaml"));
        assert_eq!(name, "0/_x_y.yaml");
    }

    fn packed(args: &str, dir: &Path) -> Vec<String> {
        let args: Vec<String> = words(args)
            .into_iter()
            .map(|word| word.replace("DIR", dir.to_str().unwrap()))
            .collect();
        let archive = Kubectl::new(&args).archive().unwrap().unwrap();
        tar::Archive::new(archive.as_slice())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn a_folder_is_sent_as_far_as_kubectl_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = dir.path().join("m");
        fs::create_dir_all(manifests.join("below")).unwrap();
        for file in ["a.yaml", "b.json", "README.md", "below/c.yml", "plain"] {
            fs::write(manifests.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink(&manifests, manifests.join("loop")).unwrap();
        assert_eq!(
            packed("apply -f DIR/m", dir.path()),
            ["0/m", "0/m/a.yaml", "0/m/b.json"]
        );
        assert_eq!(
            packed("apply -Rf DIR/m", dir.path()),
            [
                "0/m",
                "0/m/a.yaml",
                "0/m/b.json",
                "0/m/below",
                "0/m/below/c.yml"
            ]
        );
        // One that is named is read whatever it is called.
        assert_eq!(packed("apply -f DIR/m/plain", dir.path()), ["0/plain"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let kubectl = Kubectl::new(&["apply", "-f", "no/such.yaml"].map(String::from));
        let error = kubectl.archive().unwrap_err().to_string();
        assert!(error.contains("no/such.yaml"), "{error}");
        let none = Kubectl::new(&["get", "nodes"].map(String::from));
        assert!(none.archive().unwrap().is_none());
    }

    #[test]
    fn the_folder_goes_and_the_exit_status_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("it's");
        fs::create_dir(&folder).unwrap();
        let command = cleaned_up("sh -c 'exit 7'", folder.to_str().unwrap());
        let status = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert_eq!(status.code(), Some(7));
        assert!(!folder.exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_takes_every_word_as_it_is(words in prop::collection::vec("[^\0]{0,12}", 1..5)) {
            let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let script = format!("printf '%s\\0' {}", line.join(" "));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            let mut expected = words.join("\0").into_bytes();
            expected.push(0);
            prop_assert_eq!(output.stdout, expected);
        }

        #[test]
        fn arguments_without_files_are_passed_on_one_by_one(
            args in prop::collection::vec("[a-eg-z=./ -]{0,8}", 0..6)
        ) {
            let kubectl = Kubectl::new(&args);
            prop_assume!(kubectl.locals().count() == 0);
            let mut expected = vec!["kubectl".to_owned()];
            expected.extend(args.iter().map(|arg| quoted(arg)));
            prop_assert_eq!(kubectl.command(""), expected.join(" "));
        }
    }
}
