//! Why a command ends early, and the exit code that says so.

use std::process::ExitCode;

use podwire_images::hidden;

/// What kind of end it was; scripts and CI tell them apart by the exit code.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Assertions did not hold; what there is to say has been printed.
    Failed,
    /// The command line asks for something that does not exist.
    Usage(String),
    /// The machine, or something to be set up on it, does not do what is needed.
    Setup(anyhow::Error),
    /// Somebody ended it with Ctrl-C, SIGTERM or SIGHUP; what there is to say has been printed.
    Interrupted,
}

/// Exit code of a run that somebody ended with Ctrl-C, SIGTERM or SIGHUP.
pub(crate) const INTERRUPTED: u8 = 130;

impl Stop {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage(_) => 2,
            Self::Setup(_) => 3,
            Self::Interrupted => INTERRUPTED,
        }
    }

    /// Why, where that has not been said yet. No address in it has a password: it is for the terminal and for
    /// files.
    pub(crate) fn words(&self) -> Option<String> {
        match self {
            Self::Failed | Self::Interrupted => None,
            Self::Usage(text) => Some(hidden(text)),
            Self::Setup(error) => Some(hidden(&format!("{error:#}"))),
        }
    }

    /// A set-up problem in words.
    pub(crate) fn setup(text: impl std::fmt::Display) -> Self {
        Self::Setup(anyhow::anyhow!("{text}"))
    }
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Setup(error.into())
    }
}

/// Gives the exit code: that of a command on a node, or of an early end, whose reason it prints.
pub(crate) fn end(result: Result<u8, Stop>) -> ExitCode {
    let stop = match result {
        Ok(status) => return ExitCode::from(status),
        Err(stop) => stop,
    };
    if let Some(words) = stop.words() {
        errln!("error: {words}");
    }
    ExitCode::from(stop.code())
}

/// Gives the exit code of a command line that is not understood, or asks for help. What is wrong with it
/// is quoted, and may be an address with a password.
pub(crate) fn misspelt(error: &clap::Error) -> ExitCode {
    let plain = error.render().to_string();
    if error.use_stderr() && hidden(&plain) != plain {
        errln!("{}", hidden(plain.trim_end()));
    } else {
        // There is nobody left to tell that nobody listens.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_end_has_its_documented_code() {
        assert_eq!(Stop::Failed.code(), 1);
        assert_eq!(Stop::Usage("x".into()).code(), 2);
        assert_eq!(Stop::from(std::io::Error::other("disk full")).code(), 3);
        assert_eq!(Stop::Interrupted.code(), 130);
    }

    #[test]
    fn no_words_have_a_password_wherever_in_the_error_it_is() {
        let tail = "its log ends with:\n  GET http://user:s3cret@m.example/b\n  404";
        let step = anyhow::anyhow!(tail).context("cannot fetch https://user:s3cret@m.example/a");
        for stop in [Stop::Setup(step), Stop::Usage(tail.into())] {
            let words = stop.words().unwrap();
            assert!(words.contains("http://***@m.example/b"), "{words}");
            assert!(!words.contains("s3cret"), "{words}");
        }
        assert_eq!(Stop::Failed.words(), None);
    }
}
