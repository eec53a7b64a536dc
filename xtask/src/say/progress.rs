//! What a person sees while something takes long.

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use podwire_process::plain;
use time::OffsetDateTime;

use crate::say::text::{about, clock};

/// Longest silence without a terminal.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Longest silence without a terminal after a phase has begun.
const FIRST: Duration = Duration::from_secs(2);

/// One live line on a terminal; plain lines with the time elsewhere. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
    /// Dropping the last one ends the thread that keeps the display alive.
    _alive: mpsc::Sender<()>,
}

struct Shared {
    bar: Option<ProgressBar>,
    started: Instant,
    state: Mutex<State>,
}

/// What is going on, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    phase: String,
    step: String,
    waiting: String,
    since: Instant,
    said: Instant,
    /// When all of the run should be over, where somebody has an idea.
    ends: Option<Instant>,
}

impl Progress {
    /// A live line when standard error is a terminal and this is no CI job.
    pub(crate) fn start() -> Self {
        let live = std::io::stderr().is_terminal() && !is_ci();
        let bar = live.then(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            ProgressBar::new_spinner().with_style(style)
        });
        let now = Instant::now();
        let shared = Arc::new(Shared {
            bar,
            started: now,
            state: Mutex::new(State {
                phase: String::new(),
                step: String::new(),
                waiting: String::new(),
                since: now,
                said: now,
                ends: None,
            }),
        });
        let (alive, ended) = mpsc::channel::<()>();
        let seen = Arc::clone(&shared);
        thread::spawn(move || {
            while ended.recv_timeout(Duration::from_millis(250)) == Err(RecvTimeoutError::Timeout) {
                seen.tick();
            }
        });
        Self {
            shared,
            _alive: alive,
        }
    }

    /// A new phase begins.
    pub(crate) fn phase(&self, name: &str) {
        {
            let mut state = self.shared.state();
            state.phase = name.to_owned();
            state.step.clear();
            state.waiting.clear();
            state.since = Instant::now();
        }
        if let Some(bar) = &self.shared.bar {
            // After `idle` it counts as finished, and would not be drawn again.
            bar.reset();
        }
        self.shared.tick();
    }

    /// No phase any more: the live line goes.
    pub(crate) fn idle(&self) {
        self.shared.state().phase.clear();
        if let Some(bar) = &self.shared.bar {
            bar.finish_and_clear();
        }
    }

    /// What is done now.
    pub(crate) fn step(&self, text: &str) {
        {
            let mut state = self.shared.state();
            if state.step == text {
                return;
            }
            state.step = text.to_owned();
            state.waiting.clear();
            state.since = Instant::now();
        }
        if self.shared.bar.is_none() {
            let phase = self.shared.state().phase.clone();
            let left = self.shared.state().left(Instant::now());
            self.line(&format!("{}{left}", join(&phase, text)));
        }
    }

    /// How long all of the run should still take, where somebody has an idea.
    pub(crate) fn left(&self, left: Option<Duration>) {
        self.shared.state().ends = left.and_then(|left| Instant::now().checked_add(left));
    }

    /// What the present step waits for; shown live, or with the next heartbeat.
    pub(crate) fn waiting(&self, text: &str) {
        text.trim().clone_into(&mut self.shared.state().waiting);
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        match &self.shared.bar {
            Some(bar) => bar.suspend(|| errln!("{text}")),
            None => self.shared.say(text),
        }
    }

    /// Does something while nothing else writes to the terminal.
    pub(crate) fn suspend<R>(&self, something: impl FnOnce() -> R) -> R {
        match &self.shared.bar {
            Some(bar) => bar.suspend(something),
            None => something(),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data: whatever a panicking holder left is still fit to be shown.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let state = self.state().clone();
        if state.phase.is_empty() {
            return;
        }
        let now = Instant::now();
        match &self.bar {
            Some(bar) => {
                bar.set_message(live_line(&state, now, now - self.started));
                bar.tick();
            }
            None if state.is_silent(now) => self.say(&heartbeat(&state, now)),
            None => {}
        }
    }

    fn say(&self, text: &str) {
        self.state().said = Instant::now();
        errln!(
            "{}",
            plain_line(OffsetDateTime::now_utc(), self.started.elapsed(), text)
        );
    }
}

impl podwire_process::Report for Progress {
    fn step(&self, text: &str) {
        Progress::step(self, text);
    }

    fn waiting(&self, text: &str) {
        Progress::waiting(self, text);
    }
}

/// Whether a CI service runs this, by the variable `CI` that all of them set.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| says_yes(&value.to_string_lossy()))
}

/// Services write `true`, `True`, `1`, or their own name; a person who wants none says so.
fn says_yes(value: &str) -> bool {
    let no = ["", "false", "0", "no", "off"];
    !no.iter().any(|no| value.trim().eq_ignore_ascii_case(no))
}

fn join(phase: &str, text: &str) -> String {
    if phase.is_empty() {
        text.to_owned()
    } else {
        format!("{phase}: {text}")
    }
}

impl State {
    /// Whether nothing was said for too long.
    fn is_silent(&self, now: Instant) -> bool {
        let first = self.said <= self.since && now - self.since >= FIRST;
        first || now - self.said >= HEARTBEAT
    }

    /// `, about 7 min left`; nothing when that is not known, or was too little.
    fn left(&self, now: Instant) -> String {
        let left = self.ends.and_then(|ends| ends.checked_duration_since(now));
        let left = left.filter(|left| !left.is_zero());
        left.map_or(String::new(), |left| {
            format!(", about {} left", about(left))
        })
    }
}

fn live_line(state: &State, now: Instant, total: Duration) -> String {
    let mut line = format!("[{}] {}", clock(total), state.phase);
    if !state.step.is_empty() {
        line += &format!(": {}", state.step);
    }
    line += &format!(" ({}){}", clock(now - state.since), state.left(now));
    if !state.waiting.is_empty() {
        line += &format!(", waiting for: {}", state.waiting);
    }
    // It is drawn past everything that the rest of what is said goes through.
    plain::line(&line)
}

fn heartbeat(state: &State, now: Instant) -> String {
    let what = if state.step.is_empty() {
        "at work"
    } else {
        &state.step
    };
    let mut line = join(
        &state.phase,
        &format!("{what} ({} so far", clock(now - state.since)),
    );
    if !state.waiting.is_empty() {
        line += &format!(", waiting for: {}", state.waiting);
    }
    line + ")" + &state.left(now)
}

fn plain_line(now: OffsetDateTime, total: Duration, text: &str) -> String {
    let (hour, minute, second) = now.to_hms();
    format!(
        "{hour:02}:{minute:02}:{second:02}Z [{:>5}] {text}",
        clock(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(since: Instant) -> State {
        State {
            phase: "stage".into(),
            step: "starting the control plane".into(),
            waiting: "kube-apiserver's /readyz".into(),
            since,
            said: since,
            ends: None,
        }
    }

    #[test]
    fn lines_say_the_step_its_time_and_what_it_waits_for() {
        let since = Instant::now();
        let now = since + Duration::from_secs(65);
        insta::assert_snapshot!(
            live_line(&state(since), now, Duration::from_secs(3700)),
            @"[1:01:40] stage: starting the control plane (1:05), waiting for: kube-apiserver's /readyz"
        );
        insta::assert_snapshot!(
            heartbeat(&state(since), now),
            @"stage: starting the control plane (1:05 so far, waiting for: kube-apiserver's /readyz)"
        );
    }

    #[test]
    fn a_step_that_a_guest_has_words_in_is_one_harmless_line() {
        let since = Instant::now();
        let state = State {
            step: "failed: \u{1b}[2J\n::error::x".into(),
            waiting: String::new(),
            ..state(since)
        };
        insta::assert_snapshot!(
            live_line(&state, since, Duration::ZERO),
            @r"[0:00] stage: failed: \u001b[2J\u000a\u003a:error::x (0:00)"
        );
    }

    #[test]
    fn lines_say_what_is_left_until_it_has_passed() {
        let since = Instant::now();
        let at = |seconds| since + Duration::from_secs(seconds);
        let state = State {
            ends: Some(at(400)),
            waiting: String::new(),
            ..state(since)
        };
        insta::assert_snapshot!(
            live_line(&state, at(5), Duration::from_secs(5)),
            @"[0:05] stage: starting the control plane (0:05), about 7 min left"
        );
        insta::assert_snapshot!(
            heartbeat(&state, at(5)),
            @"stage: starting the control plane (0:05 so far), about 7 min left"
        );
        insta::assert_snapshot!(
            heartbeat(&state, at(400)),
            @"stage: starting the control plane (6:40 so far)"
        );
    }

    #[test]
    fn a_phase_says_something_after_two_seconds_and_then_every_thirty() {
        let since = Instant::now();
        let at = |seconds| since + Duration::from_secs(seconds);
        let begun = state(since);
        assert!(!begun.is_silent(at(1)));
        assert!(begun.is_silent(at(2)));
        let told = State {
            said: at(2),
            ..begun
        };
        assert!(!told.is_silent(at(31)));
        assert!(told.is_silent(at(32)));
    }

    #[test]
    fn a_phase_without_a_step_still_shows_its_time() {
        let since = Instant::now();
        let state = State {
            step: String::new(),
            waiting: String::new(),
            ..state(since)
        };
        let now = since + Duration::from_secs(31);
        insta::assert_snapshot!(live_line(&state, now, Duration::from_secs(40)), @"[0:40] stage (0:31)");
        insta::assert_snapshot!(heartbeat(&state, now), @"stage: at work (0:31 so far)");
    }

    #[test]
    fn a_ci_service_is_known_however_it_writes_yes() {
        for yes in ["true", "True", "TRUE", "1", "yes", "woodpecker"] {
            assert!(says_yes(yes), "{yes}");
        }
        for no in ["", "false", "False", "0", "no", " "] {
            assert!(!says_yes(no), "{no:?}");
        }
    }

    #[test]
    fn plain_lines_carry_the_time_and_the_run_s_age() {
        let now = time::macros::datetime!(2026-11-21 09:05:03 UTC);
        insta::assert_snapshot!(
            plain_line(now, Duration::from_secs(185), "image: unpacking"),
            @"09:05:03Z [ 3:05] image: unpacking"
        );
    }
}
