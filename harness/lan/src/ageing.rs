//! Who was heard of when: a bounded table whose entries make room once they are old.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Entries at most.
pub(crate) const CAPACITY: usize = 4096;

/// How often a full table looks for old entries at most. Whoever fills it on purpose would have all
/// of them looked at with each frame.
pub(crate) const SWEEP: Duration = Duration::from_secs(1);

/// Times are durations since an origin that the caller chooses.
#[derive(Debug)]
pub(crate) struct Ageing<K, V> {
    entries: HashMap<K, Heard<V>>,
    /// How old an entry is that makes room for another.
    age: Duration,
    swept: Option<Duration>,
}

/// What an entry says, and when that was last heard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<V> {
    pub(crate) value: V,
    pub(crate) seen: Duration,
}

impl<V> Heard<V> {
    pub(crate) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.seen)
    }
}

impl<K: Eq + Hash, V> Ageing<K, V> {
    pub(crate) fn new(age: Duration) -> Self {
        Ageing {
            entries: HashMap::new(),
            age,
            swept: None,
        }
    }

    /// Notes what was heard. A full table notes nothing of somebody new.
    pub(crate) fn learn(&mut self, key: K, value: V, now: Duration) {
        let heard = Heard { value, seen: now };
        if let Some(known) = self.entries.get_mut(&key) {
            *known = heard;
        } else if self.has_room(now) {
            self.entries.insert(key, heard);
        }
    }

    fn has_room(&mut self, now: Duration) -> bool {
        let due = self
            .swept
            .is_none_or(|swept| now.saturating_sub(swept) >= SWEEP);
        if self.entries.len() >= CAPACITY && due {
            self.swept = Some(now);
            let age = self.age;
            self.entries.retain(|_, heard| heard.age(now) < age);
        }
        self.entries.len() < CAPACITY
    }

    /// The last that was heard, however old.
    pub(crate) fn get(&self, key: &K) -> Option<&Heard<V>> {
        self.entries.get(key)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.entries.retain(|_, heard| keep(&heard.value));
    }

    /// In no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &Heard<V>)> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);

    #[test]
    fn a_full_table_has_room_again_once_entries_are_old() {
        let mut table = Ageing::new(AGE);
        for key in 0..CAPACITY {
            table.learn(key, 'a', AGE);
        }
        table.learn(CAPACITY, 'b', AGE);
        assert!(table.get(&CAPACITY).is_none());
        assert!(table.get(&0).is_some());
        table.learn(0, 'c', AGE + SWEEP);
        table.learn(CAPACITY, 'b', AGE * 2);
        assert_eq!(table.get(&CAPACITY).map(|heard| heard.value), Some('b'));
        assert_eq!(table.get(&0).map(|heard| heard.value), Some('c'));
        assert_eq!(table.iter().count(), 2);
    }

    /// Looking for old entries costs as much as there are entries: nobody is to have that done for
    /// each frame.
    #[test]
    fn a_full_table_looks_for_old_entries_once_a_second_at_most() {
        let mut table = Ageing::new(AGE);
        for key in 0..CAPACITY {
            table.learn(key, (), Duration::ZERO);
        }
        let looked = AGE - SWEEP / 2;
        table.learn(CAPACITY, (), looked);
        table.learn(CAPACITY, (), AGE);
        assert_eq!(
            table.iter().count(),
            CAPACITY,
            "all are old and still there"
        );
        table.learn(CAPACITY, (), looked + SWEEP);
        assert_eq!(table.iter().count(), 1);
    }
}
