//! `cargo xtask capture`: the frames of a cluster that another process runs.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write, stdout};
use std::path::Path;

use anyhow::Context as _;
use podwire_access::AccessError;
use podwire_lan::Filter;
use tokio::signal::ctrl_c;

use crate::command::cli::lab::CaptureArgs;
use crate::lab::access::{drive, reach};
use crate::lab::impair::usage;
use crate::say::stop::Stop;

/// Stands for standard output.
const STDOUT: &str = "-";

/// Writes frames as they are switched, until Ctrl-C, the cluster's end, or that of the reader.
pub(crate) fn capture(args: &CaptureArgs) -> Result<(), Stop> {
    let parsed = args.filter.parse::<Filter>();
    parsed.map_err(|error| Stop::Usage(format!("--filter: {error}")))?;
    let mut to = target(&args.write, stdout().is_terminal())?;
    drive(async {
        let link = reach(&args.run, None).await?;
        errln!("capturing; Ctrl-C ends it");
        let mut gone = false;
        let take = |bytes: &[u8]| to.write_all(bytes).and_then(|()| to.flush());
        let take = noting_whose_reader_has_gone(take, &mut gone);
        let enough = async {
            // Without a handler Ctrl-C ends the process, and what is written is whole all the same.
            let _ = ctrl_c().await;
        };
        let captured = link.capture(args.node.clone(), args.filter.clone(), enough, take);
        match captured.await {
            Ok(count) => {
                errln!("{} frames, {} lost", count.frames(), count.lost());
                Ok(())
            }
            // Wireshark was closed.
            Err(AccessError::Local { .. }) if gone => Ok(()),
            Err(error) => Err(usage(error)),
        }
    })
}

fn target(path: &Path, terminal: bool) -> Result<Box<dyn Write>, Stop> {
    if path != Path::new(STDOUT) {
        let file = File::create(path);
        let file = file.with_context(|| format!("cannot write to {}", path.display()))?;
        return Ok(Box::new(file));
    }
    if terminal {
        return Err(Stop::Usage(
            "a capture is not for a terminal: -w FILE writes it to a file, and \
             `cargo xtask capture | wireshark -k -i -` shows it live"
                .to_owned(),
        ));
    }
    Ok(Box::new(stdout()))
}

fn noting_whose_reader_has_gone(
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
    gone: &mut bool,
) -> impl FnMut(&[u8]) -> io::Result<()> {
    move |bytes| {
        let written = write(bytes);
        let kind = written.as_ref().err().map(io::Error::kind);
        *gone |= kind == Some(io::ErrorKind::BrokenPipe);
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_no_place_for_a_capture() {
        assert!(matches!(target(Path::new("-"), true), Err(Stop::Usage(_))));
        assert!(target(Path::new("-"), false).is_ok());
        let dir = tempfile::tempdir().unwrap();
        target(&dir.path().join("wire.pcapng"), true).unwrap();
        let nowhere = dir.path().join("nobody/wire.pcapng");
        assert!(matches!(target(&nowhere, false), Err(Stop::Setup(_))));
    }

    #[test]
    fn a_reader_that_has_gone_is_told_from_a_disk_that_is_full() {
        let gone = |kind: io::ErrorKind| {
            let mut gone = false;
            let mut write = noting_whose_reader_has_gone(|_| Err(kind.into()), &mut gone);
            assert!(write(&[]).is_err());
            drop(write);
            gone
        };
        assert!(gone(io::ErrorKind::BrokenPipe));
        assert!(!gone(io::ErrorKind::StorageFull));
    }
}
