//! QEMU's control channel: qapi's types over a transport of our own.
//!
//! qapi's client decodes every message against its schema, so an event it does not know ends the
//! connection. Here a message stays plain JSON until somebody who knows its type asks for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qapi::qmp::{QmpCommand, RunState, query_status};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;

use crate::transcript::Transcript;

/// Why a QMP command gave no result.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused it.
    #[error("QEMU refused `{command}`: {description} ({class})")]
    Refused {
        /// The command's name.
        command: &'static str,
        /// QEMU's error class, `GenericError` for most.
        class: String,
        /// QEMU's explanation.
        description: String,
    },
    /// No reply came in time. It is dropped when it comes later; the channel stays usable.
    #[error("QEMU did not answer `{command}` within {limit:?}")]
    TimedOut {
        /// The command's name.
        command: &'static str,
        /// What was allowed.
        limit: Duration,
    },
    /// The channel is closed, which means that QEMU has ended.
    #[error("the connection to QEMU ended before `{command}` was answered")]
    Lost {
        /// The command's name.
        command: &'static str,
    },
    /// The reply is not of the command's type.
    #[error("QEMU's answer to `{command}` cannot be understood")]
    Reply {
        /// The command's name.
        command: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The arguments cannot be written as JSON.
    #[error("the arguments of `{command}` cannot be encoded")]
    Arguments {
        /// The command's name.
        command: &'static str,
        /// What is wrong with them.
        source: serde_json::Error,
    },
    /// The other side did not begin as QMP does.
    #[error("the other end of the control channel does not speak QMP: {0}")]
    Greeting(String),
}

/// Something that QEMU reported by itself, known to our schema or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, `STOP`.
    pub name: String,
    /// What it carries; null when nothing.
    pub data: Value,
}

/// QEMU's events from the moment of the call to [`Qmp::events`].
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` once the channel has ended. Who falls 1,024 events behind loses the
    /// oldest.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// QEMU's control channel. Cheap to clone; commands may run in parallel.
#[derive(Debug, Clone)]
pub struct Qmp {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    outgoing: mpsc::UnboundedSender<String>,
    next_id: AtomicU64,
    pending: Mutex<Pending>,
    transcript: Transcript,
}

#[derive(Debug)]
struct Pending {
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    /// Gone once the channel has ended, which ends every [`Events`].
    events: Option<broadcast::Sender<Event>>,
}

#[derive(Serialize)]
struct Request {
    execute: &'static str,
    arguments: Value,
    id: u64,
}

/// Forgets a command whose caller has stopped waiting, however that came about.
struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        locked(&self.shared.pending).waiting.remove(&self.id);
    }
}

impl Qmp {
    /// Waits for the greeting on `stream`, negotiates no capability and starts to serve commands.
    ///
    /// # Errors
    /// [`QmpError::Greeting`], [`QmpError::TimedOut`] or [`QmpError::Lost`].
    pub async fn connect<S>(
        stream: S,
        transcript: Transcript,
        limit: Duration,
    ) -> Result<Self, QmpError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let mut greeting = String::new();
        let read = timeout(limit, reader.read_line(&mut greeting)).await;
        let command = "greeting";
        match read {
            Err(_) => return Err(QmpError::TimedOut { command, limit }),
            Ok(Err(_) | Ok(0)) => return Err(QmpError::Lost { command }),
            Ok(Ok(_)) => {}
        }
        transcript.note('<', &greeting);
        let known = serde_json::from_str::<Value>(&greeting).is_ok_and(|v| v.get("QMP").is_some());
        if !known {
            return Err(QmpError::Greeting(greeting));
        }

        let (outgoing, mut lines) = mpsc::unbounded_channel::<String>();
        let shared = Arc::new(Shared {
            outgoing,
            next_id: AtomicU64::new(1),
            pending: Mutex::new(Pending {
                waiting: HashMap::new(),
                events: Some(broadcast::Sender::new(1024)),
            }),
            transcript,
        });
        // The tasks end with the stream. The writer also ends when the last handle goes, which
        // closes our end of the stream only together with the reader's half.
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                if writer.write_all(line.as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        let routed = Arc::downgrade(&shared);
        tokio::spawn(async move {
            let mut line = Vec::new();
            loop {
                line.clear();
                let count = reader.read_until(b'\n', &mut line).await.unwrap_or(0);
                let Some(shared) = routed.upgrade() else {
                    break;
                };
                if count == 0 {
                    shared.end();
                    break;
                }
                shared.route(&String::from_utf8_lossy(&line));
            }
        });
        let qmp = Self { shared };
        let negotiate = qapi::qmp::qmp_capabilities { enable: None };
        qmp.execute(negotiate, limit).await?;
        Ok(qmp)
    }

    /// Runs one command and waits for its result.
    ///
    /// # Errors
    /// [`QmpError`]; after a time-out the command may still take effect.
    pub async fn execute<C: QmpCommand>(
        &self,
        command: C,
        limit: Duration,
    ) -> Result<C::Ok, QmpError> {
        let name = C::NAME;
        let arguments = serde_json::to_value(&command).map_err(|source| QmpError::Arguments {
            command: name,
            source,
        })?;
        let reply = self.ask(name, arguments, limit).await?;
        serde_json::from_value(reply).map_err(|source| QmpError::Reply {
            command: name,
            source,
        })
    }

    async fn ask(
        &self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            execute: command,
            arguments,
            id,
        };
        let line = serde_json::to_string(&request)
            .map_err(|source| QmpError::Arguments { command, source })?;
        let (sender, reply) = oneshot::channel();
        {
            let mut pending = locked(&self.shared.pending);
            if pending.events.is_none() {
                return Err(QmpError::Lost { command });
            }
            pending.waiting.insert(id, sender);
        }
        let _waiting = Waiting {
            shared: &self.shared,
            id,
        };
        self.shared.transcript.note('>', &line);
        // A closed queue shows as a lost reply below.
        let _ = self.shared.outgoing.send(format!("{line}\n"));
        let mut reply = match timeout(limit, reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => return Err(QmpError::Lost { command }),
            Err(_) => {
                let remark = format!("gave up on {id} ({command}) after {limit:?}");
                self.shared.transcript.note('!', &remark);
                return Err(QmpError::TimedOut { command, limit });
            }
        };
        if let Some(error) = reply.get("error") {
            let text = |key| {
                error
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or("?")
                    .to_owned()
            };
            return Err(QmpError::Refused {
                command,
                class: text("class"),
                description: text("desc"),
            });
        }
        let empty = || Value::Object(Map::new());
        Ok(reply.get_mut("return").map_or_else(empty, Value::take))
    }

    /// Resolves once QEMU has stopped a guest that it cannot go on with (QEMU QMP reference,
    /// `RunState`): it, or KVM, met what it cannot do, or the disk's file cannot be written. Its word for
    /// that; nothing once the channel has ended. Whoever waits for such a guest waits for nothing.
    pub(crate) async fn gave_up(&self, limit: Duration) -> Option<&'static str> {
        let mut events = self.events();
        loop {
            // First of all: it may have stopped before anybody listened.
            match self.execute(query_status {}, limit).await.ok()?.status {
                RunState::internal_error => return Some("internal-error"),
                RunState::io_error => return Some("io-error"),
                _ => {}
            }
            while events.next().await?.name != "STOP" {}
        }
    }

    /// QEMU's events from now on.
    pub fn events(&self) -> Events {
        let pending = locked(&self.shared.pending);
        Events(match &pending.events {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        })
    }
}

impl Shared {
    fn route(&self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        self.transcript.note('<', line);
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            self.transcript.note('!', "not JSON: ignored");
            return;
        };
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            let event = Event {
                name: name.to_owned(),
                data: message.get("data").cloned().unwrap_or_default(),
            };
            if let Some(events) = &locked(&self.pending).events {
                // Nobody listening is no reason to stop.
                let _ = events.send(event);
            }
            return;
        }
        let id = message.get("id").and_then(Value::as_u64);
        let waiting = id.and_then(|id| locked(&self.pending).waiting.remove(&id));
        match waiting {
            // A caller that gave up meanwhile wants no answer.
            Some(waiting) => drop(waiting.send(message)),
            None => self
                .transcript
                .note('!', "nobody waits for this reply: dropped"),
        }
    }

    fn end(&self) {
        self.transcript.note('!', "the connection ended");
        let mut pending = locked(&self.pending);
        pending.waiting.clear();
        pending.events = None;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qapi::qmp::{query_name, stop};
    use serde_json::json;
    use std::io::Write;
    use tokio::io::{DuplexStream, Lines, ReadHalf, WriteHalf};

    const LIMIT: Duration = Duration::from_secs(10);
    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;

    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            locked(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The far end of a control channel, played by the test.
    struct FakeQemu {
        commands: Lines<BufReader<ReadHalf<DuplexStream>>>,
        out: WriteHalf<DuplexStream>,
    }

    impl FakeQemu {
        async fn say(&mut self, text: &str) {
            self.out.write_all(text.as_bytes()).await.unwrap();
            self.out.write_all(b"\r\n").await.unwrap();
        }

        async fn command(&mut self) -> Value {
            let line = self.commands.next_line().await.unwrap().unwrap();
            serde_json::from_str(&line).unwrap()
        }

        async fn answer(&mut self, command: &Value, reply: Value) {
            self.say(&json!({ "id": command["id"], "return": reply }).to_string())
                .await;
        }
    }

    async fn connected() -> (Qmp, FakeQemu, Written) {
        let (ours, theirs) = tokio::io::duplex(64);
        let (reader, out) = tokio::io::split(theirs);
        let mut qemu = FakeQemu {
            commands: BufReader::new(reader).lines(),
            out,
        };
        let written = Written::default();
        let transcript = Transcript::new(written.clone());
        let (qmp, qemu) = tokio::join!(Qmp::connect(ours, transcript, LIMIT), async move {
            qemu.say(GREETING).await;
            let negotiation = qemu.command().await;
            assert_eq!(negotiation["execute"], "qmp_capabilities");
            qemu.answer(&negotiation, json!({})).await;
            qemu
        });
        (qmp.unwrap(), qemu, written)
    }

    #[tokio::test]
    async fn replies_find_their_commands_in_any_order() {
        let (qmp, mut qemu, _) = connected().await;
        let (name, stopped, ()) = tokio::join!(
            qmp.execute(query_name {}, LIMIT),
            qmp.execute(stop {}, LIMIT),
            async {
                let first = qemu.command().await;
                let second = qemu.command().await;
                assert_eq!(
                    (&first["execute"], &second["execute"]),
                    (&json!("query-name"), &json!("stop"))
                );
                qemu.answer(&second, json!({})).await;
                qemu.answer(&first, json!({ "name": "node1" })).await;
            }
        );
        assert_eq!(name.unwrap().name.unwrap(), "node1");
        stopped.unwrap();
    }

    #[tokio::test]
    async fn a_guest_that_qemu_stops_itself_is_told_from_one_that_it_was_told_to_stop() {
        let (qmp, mut qemu, _) = connected().await;
        let status = |of: &str| json!({ "status": of, "running": of == "running" });
        let (gave_up, ()) = tokio::join!(qmp.gave_up(LIMIT), async {
            for (state, then) in [("running", "STOP"), ("paused", "RESUME"), ("io-error", "")] {
                let asked = qemu.command().await;
                assert_eq!(asked["execute"], "query-status");
                qemu.answer(&asked, status(state)).await;
                for name in [then, "STOP"].iter().filter(|it| !it.is_empty()) {
                    qemu.say(&json!({ "event": name, "data": {}, "timestamp": {} }).to_string())
                        .await;
                    if *name == "STOP" {
                        break;
                    }
                }
            }
        });
        assert_eq!(gave_up, Some("io-error"));
        drop(qemu);
        assert_eq!(qmp.gave_up(LIMIT).await, None);
    }

    #[tokio::test]
    async fn events_that_no_schema_knows_are_kept_and_harm_nothing() {
        let (qmp, mut qemu, _) = connected().await;
        let mut events = qmp.events();
        let serve = async {
            let command = qemu.command().await;
            qemu.say(r#"{"event": "NETDEV_FROM_THE_FUTURE", "data": {"x": 1}, "timestamp": {}}"#)
                .await;
            qemu.answer(&command, json!({})).await;
        };
        let (stopped, ()) = tokio::join!(qmp.execute(stop {}, LIMIT), serve);
        stopped.unwrap();
        let event = events.next().await.unwrap();
        assert_eq!(event.name, "NETDEV_FROM_THE_FUTURE");
        assert_eq!(event.data, json!({ "x": 1 }));
        drop(qemu);
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn a_reply_after_the_limit_is_dropped_and_the_channel_lives_on() {
        let (qmp, mut qemu, written) = connected().await;
        let brief = Duration::from_millis(20);
        let error = qmp.execute(stop {}, brief).await.unwrap_err();
        assert!(
            matches!(
                error,
                QmpError::TimedOut {
                    command: "stop",
                    ..
                }
            ),
            "{error}"
        );
        let late = qemu.command().await;
        let serve = async {
            qemu.answer(&late, json!({})).await;
            let next = qemu.command().await;
            qemu.answer(&next, json!({ "name": "n" })).await;
        };
        let (name, ()) = tokio::join!(qmp.execute(query_name {}, LIMIT), serve);
        assert_eq!(name.unwrap().name.unwrap(), "n");
        let transcript = String::from_utf8(locked(&written.0).clone()).unwrap();
        assert!(
            transcript.contains("nobody waits for this reply: dropped"),
            "{transcript}"
        );
    }

    #[tokio::test]
    async fn refusals_and_replies_of_another_type_are_told_apart() {
        let (qmp, mut qemu, _) = connected().await;
        let serve = async {
            let command = qemu.command().await;
            let error = json!({ "class": "GenericError", "desc": "no such thing" });
            qemu.say(&json!({ "error": error, "id": command["id"] }).to_string())
                .await;
            let command = qemu.command().await;
            qemu.answer(&command, json!("text")).await;
        };
        let commands = async {
            let refused = qmp.execute(stop {}, LIMIT).await.unwrap_err();
            let strange = qmp.execute(query_status {}, LIMIT).await.unwrap_err();
            (refused, strange)
        };
        let ((refused, strange), ()) = tokio::join!(commands, serve);
        insta::assert_snapshot!(refused, @"QEMU refused `stop`: no such thing (GenericError)");
        assert!(matches!(strange, QmpError::Reply { .. }), "{strange}");
    }

    #[tokio::test]
    async fn the_end_of_qemu_ends_every_command_at_once() {
        let (qmp, mut qemu, _) = connected().await;
        let (lost, ()) = tokio::join!(qmp.execute(stop {}, LIMIT), async {
            qemu.command().await;
            drop(qemu);
        });
        assert!(matches!(
            lost.unwrap_err(),
            QmpError::Lost { command: "stop" }
        ));
        let later = qmp.execute(query_name {}, LIMIT).await.unwrap_err();
        assert!(matches!(later, QmpError::Lost { .. }), "{later}");
        assert_eq!(qmp.events().next().await, None);
    }

    #[tokio::test]
    async fn what_is_not_qmp_is_shown() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"hello\n").await.unwrap();
        let error = Qmp::connect(ours, Transcript::new(std::io::sink()), LIMIT)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("hello"), "{error}");
    }

    #[tokio::test]
    async fn the_transcript_has_both_directions() {
        let (_qmp, _qemu, written) = connected().await;
        let text = String::from_utf8(locked(&written.0).clone()).unwrap();
        let untimed: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, said)| said)
            .collect();
        insta::assert_snapshot!(untimed.join("\n"), @r#"
        < {"QMP": {"version": {}, "capabilities": ["oob"]}}
        > {"execute":"qmp_capabilities","arguments":{},"id":1}
        < {"id":1,"return":{}}
        "#);
    }
}
