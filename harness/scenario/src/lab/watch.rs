//! Waiting in a lab: looking again and again, or watching the API's objects.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watched};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::check::failure::Cause;
use crate::lab::Lab;
use crate::wait::eventually::{BETWEEN_QUESTIONS, wait};
use crate::wait::history::History;
use crate::wait::needs::Needs;
use crate::wait::probe::{Lacking, Probe};

impl Lab {
    /// Looks until the condition holds, a look finds it hopeless, whoever would have to act for it
    /// ([`Probe::needs`]) does not, or the limit has passed.
    ///
    /// An event to wait for is better where there is one ([`Lab::watch`]); this is for the rest. The
    /// limit is that of a usual machine, and stretched here. One last look is taken after it, so that a
    /// slow look is not mistaken for a dead cluster.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with the last state, since when it was so, and the history of
    /// distinct states with their times; an error of `look` itself ends the wait at once. That who would
    /// have to act cannot be asked is no evidence.
    pub async fn eventually<T>(
        &self,
        expected: impl AsRef<str>,
        limit: Duration,
        look: impl AsyncFnMut() -> anyhow::Result<Probe<T>>,
    ) -> anyhow::Result<T> {
        let ask = async |needs: &Needs| self.prospects(needs).await;
        wait(expected.as_ref(), self.limit(limit), ask, look).await
    }

    /// As [`Lab::eventually`] for what the API's objects show: `judge` looks at all of them whenever one
    /// changes (Kubernetes API concepts, "Efficient detection of changes"), and nobody asks in between.
    /// After the limit they are listed anew and judged once more, so that a watch which has broken off
    /// is not mistaken for a dead cluster.
    ///
    /// # Errors
    /// As [`Lab::eventually`].
    pub async fn watch<K, T>(
        &self,
        expected: impl AsRef<str>,
        limit: Duration,
        api: Api<K>,
        select: watcher::Config,
        mut judge: impl FnMut(&[K]) -> anyhow::Result<Probe<T>>,
    ) -> anyhow::Result<T>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default,
    {
        let expected = expected.as_ref();
        let limit = self.limit(limit);
        let again = ListParams {
            label_selector: select.label_selector.clone(),
            field_selector: select.field_selector.clone(),
            ..ListParams::default()
        };
        let mut events = watched(api.clone(), select).default_backoff().boxed();
        let mut seen = Seen::default();
        let mut history = History::new(limit);
        let started = Instant::now();
        let mut asked = started;
        loop {
            let began = started.elapsed();
            let ask = asked + BETWEEN_QUESTIONS;
            let until = ask.min(started + limit);
            let mut last = tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        if !seen.takes(event) {
                            continue;
                        }
                        match judge(&seen.all())? {
                            Probe::Done(value) => return Ok(value),
                            Probe::Lacking(lacking) => lacking,
                        }
                    }
                    Some(Err(error)) => unanswered(&error),
                    None => unanswered(&"the watch has ended"),
                },
                () = tokio::time::sleep_until(until) => {
                    let listed = if began >= limit {
                        api.list(&again).await.ok().map(|listed| listed.items)
                    } else {
                        None
                    };
                    match listed.or_else(|| seen.known()) {
                        Some(objects) => match judge(&objects)? {
                            Probe::Done(value) => return Ok(value),
                            Probe::Lacking(lacking) => lacking,
                        },
                        None => unanswered(&"it has not listed them yet"),
                    }
                }
            };
            let told = last.evidence.is_some() || Instant::now() >= ask;
            if last.evidence.is_none() && told {
                last.evidence = self.prospects(&last.needs).await.unwrap_or_default();
                asked = Instant::now();
            }
            if let Some(why) = history.note(began, started.elapsed(), &last, told) {
                return Err(history.failure(expected, &last, &why).into());
            }
        }
    }
}

fn unanswered(why: &dyn std::fmt::Display) -> Lacking {
    Lacking::new(Cause::Other, format!("the API server: {why}"))
}

/// The objects of a watch, by namespace and name.
struct Seen<K> {
    all: BTreeMap<(String, String), K>,
    complete: bool,
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            complete: false,
        }
    }
}

impl<K: Resource + Clone> Seen<K> {
    /// Takes note of an event; whether all objects are known then.
    fn takes(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => {
                self.all.clear();
                self.complete = false;
            }
            Event::InitApply(object) | Event::Apply(object) => {
                self.all.insert(key(&object), object);
            }
            Event::InitDone => self.complete = true,
            Event::Delete(object) => {
                self.all.remove(&key(&object));
            }
        }
        self.complete
    }

    fn all(&self) -> Vec<K> {
        self.all.values().cloned().collect()
    }

    /// All of them, once all are known: that there are none yet says nothing of what there is.
    fn known(&self) -> Option<Vec<K>> {
        self.complete.then(|| self.all())
    }
}

fn key<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn pod(name: &str) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
    }

    #[test]
    fn nothing_is_judged_before_all_are_known_and_a_new_list_replaces_the_old() {
        let mut seen = Seen::default();
        let names = |seen: &Seen<Pod>| {
            seen.all()
                .iter()
                .map(|it| it.name_any())
                .collect::<Vec<_>>()
        };
        assert_eq!(seen.known(), None);
        assert!(!seen.takes(Event::Init));
        assert!(!seen.takes(Event::InitApply(pod("a"))));
        assert_eq!(seen.known(), None);
        assert!(seen.takes(Event::InitDone));
        assert_eq!(seen.known(), Some(vec![pod("a")]));
        assert!(seen.takes(Event::Apply(pod("b"))));
        assert_eq!(names(&seen), ["a", "b"]);
        assert!(seen.takes(Event::Delete(pod("a"))));
        assert_eq!(names(&seen), ["b"]);
        // The connection broke off: it lists anew.
        assert!(!seen.takes(Event::Init));
        assert!(!seen.takes(Event::InitApply(pod("c"))));
        assert!(seen.takes(Event::InitDone));
        assert_eq!(names(&seen), ["c"]);
    }
}
