//! Which station is behind which port (IEEE 802.1D-2004 clause 7.8 and 7.9): learned from source
//! addresses, forgotten when unused.

use std::collections::HashMap;
use std::time::Duration;

use crate::MacAddr;

/// How long a station that sends nothing is remembered: 300 s, the recommended default of
/// IEEE 802.1D-2004 table 7-5.
pub(crate) const AGEING: Duration = Duration::from_secs(300);

/// Stations remembered at most; beyond it none is learned and its frames are flooded.
const CAPACITY: usize = 4096;

/// Times are durations since an origin that the caller chooses and that lies at least [`AGEING`]
/// before the first call, so that a restored entry's last use can be expressed.
#[derive(Debug, Default)]
pub(crate) struct MacTable {
    stations: HashMap<MacAddr, Station>,
}

#[derive(Debug, Clone, Copy)]
struct Station {
    port: usize,
    seen: Duration,
}

impl MacTable {
    /// Notes that `mac` sent from `port`. A group address is never a sender and is not learned.
    pub(crate) fn learn(&mut self, mac: MacAddr, port: usize, now: Duration) {
        if mac.is_group() {
            return;
        }
        if let Some(station) = self.stations.get_mut(&mac) {
            *station = Station { port, seen: now };
            return;
        }
        if self.stations.len() >= CAPACITY {
            self.stations.retain(|_, station| !is_stale(*station, now));
            if self.stations.len() >= CAPACITY {
                return;
            }
        }
        self.stations.insert(mac, Station { port, seen: now });
    }

    /// The port behind which `mac` is, unless unknown or stale.
    pub(crate) fn lookup(&self, mac: MacAddr, now: Duration) -> Option<usize> {
        self.stations
            .get(&mac)
            .filter(|station| !is_stale(**station, now))
            .map(|station| station.port)
    }

    /// Forgets every station behind `port`.
    pub(crate) fn forget_port(&mut self, port: usize) {
        self.stations.retain(|_, station| station.port != port);
    }

    /// What is known and not stale: address, port, time since it was last used; by address.
    pub(crate) fn entries(&self, now: Duration) -> Vec<(MacAddr, usize, Duration)> {
        let mut entries: Vec<_> = self
            .stations
            .iter()
            .filter(|(_, station)| !is_stale(**station, now))
            .map(|(mac, station)| (*mac, station.port, now.saturating_sub(station.seen)))
            .collect();
        entries.sort_unstable();
        entries
    }
}

fn is_stale(station: Station, now: Duration) -> bool {
    now.saturating_sub(station.seen) >= AGEING
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([0x52, 0x54, 0, 0, 1, 1]);
    const START: Duration = AGEING;

    fn after(seconds: u64) -> Duration {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_station_is_where_it_last_sent_from() {
        let mut table = MacTable::default();
        assert_eq!(table.lookup(A, START), None);
        table.learn(A, 1, START);
        assert_eq!(table.lookup(A, START), Some(1));
        table.learn(A, 2, after(1));
        assert_eq!(table.lookup(A, after(1)), Some(2));
        assert_eq!(table.entries(after(4)), [(A, 2, Duration::from_secs(3))]);
    }

    #[test]
    fn a_silent_station_is_forgotten_and_one_that_sends_is_not() {
        let mut table = MacTable::default();
        table.learn(A, 1, START);
        assert_eq!(table.lookup(A, after(299)), Some(1));
        assert_eq!(table.lookup(A, after(300)), None);
        assert_eq!(table.entries(after(300)), []);
        table.learn(A, 1, after(299));
        assert_eq!(table.lookup(A, after(598)), Some(1));
    }

    #[test]
    fn group_addresses_are_no_stations() {
        let mut table = MacTable::default();
        table.learn(MacAddr::BROADCAST, 1, START);
        table.learn(MacAddr([0x33, 0x33, 0, 0, 0, 1]), 1, START);
        assert_eq!(table.entries(START), []);
    }

    #[test]
    fn a_port_is_forgotten_alone() {
        let mut table = MacTable::default();
        let b = MacAddr([0x52, 0x54, 0, 0, 1, 2]);
        table.learn(A, 1, START);
        table.learn(b, 2, START);
        table.forget_port(1);
        assert_eq!(table.lookup(A, START), None);
        assert_eq!(table.lookup(b, START), Some(2));
    }

    #[test]
    fn a_full_table_learns_again_once_entries_are_stale() {
        let mut table = MacTable::default();
        let station = |n: usize| {
            let [.., high, low] = n.to_be_bytes();
            MacAddr([2, 0, 0, 0, high, low])
        };
        for n in 0..CAPACITY {
            table.learn(station(n), 1, START);
        }
        table.learn(A, 2, START);
        assert_eq!(table.lookup(A, START), None);
        assert_eq!(table.lookup(station(0), START), Some(1));
        table.learn(A, 2, after(300));
        assert_eq!(table.lookup(A, after(300)), Some(2));
    }
}
