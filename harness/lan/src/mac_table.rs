//! Which station is behind which port (IEEE 802.1D-2004 clause 7.8 and 7.9): learned from source
//! addresses, forgotten when unused.

use std::time::Duration;

use crate::MacAddr;
use crate::ageing::Ageing;

/// How long a station that sends nothing is remembered: 300 s, the recommended default of
/// IEEE 802.1D-2004 table 7-5.
pub(crate) const AGEING: Duration = Duration::from_secs(300);

/// Times are durations since an origin that the caller chooses and that lies at least [`AGEING`]
/// before the first call, so that a restored entry's last use can be expressed. Of more stations than
/// the table holds none is learned, and their frames are flooded.
#[derive(Debug)]
pub(crate) struct MacTable {
    /// The port behind which each is.
    stations: Ageing<MacAddr, usize>,
}

impl Default for MacTable {
    fn default() -> Self {
        MacTable {
            stations: Ageing::new(AGEING),
        }
    }
}

impl MacTable {
    /// Notes that `mac` sent from `port`. A group address is never a sender and is not learned.
    pub(crate) fn learn(&mut self, mac: MacAddr, port: usize, now: Duration) {
        if !mac.is_group() {
            self.stations.learn(mac, port, now);
        }
    }

    /// The port behind which `mac` is, unless unknown or stale.
    pub(crate) fn lookup(&self, mac: MacAddr, now: Duration) -> Option<usize> {
        self.stations
            .get(&mac)
            .filter(|station| station.age(now) < AGEING)
            .map(|station| station.value)
    }

    /// Forgets every station behind `port`.
    pub(crate) fn forget_port(&mut self, port: usize) {
        self.stations.retain(|behind| *behind != port);
    }

    /// What is known and not stale: address, port, time since it was last used; by address.
    pub(crate) fn entries(&self, now: Duration) -> Vec<(MacAddr, usize, Duration)> {
        let mut entries: Vec<_> = self
            .stations
            .iter()
            .map(|(mac, station)| (*mac, station.value, station.age(now)))
            .filter(|(_, _, age)| *age < AGEING)
            .collect();
        entries.sort_unstable();
        entries
    }
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
}
