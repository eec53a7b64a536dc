//! Frames of a running segment, as they are switched, for somebody who reads along.
//!
//! The segment's thread never waits for a reader: what one does not take in time is lost to it, and it is
//! told how many frames that were.

mod count;
pub(crate) mod filter;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcap_file::PcapError;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use tokio::sync::Notify;

pub use self::count::{CaptureCount, NotPcapng};
use self::filter::Filter;
use crate::capture::{interface, next_record, packet, push_record};
use crate::framing::{LENGTH, first_frame};
use crate::label::Label;
use crate::rules::Headers;

/// Octets that wait for a reader at most.
const LIMIT: usize = 4 * 1024 * 1024;

/// A reader of a segment's frames, as a pcapng stream. It ends when it is dropped.
pub struct Tap {
    shared: Arc<Shared>,
    writer: PcapNgWriter<Vec<u8>>,
    /// How many ports the stream has as its interfaces.
    interfaces: usize,
    /// Frames lost since the last in the stream.
    lost: u64,
    /// Frames lost since the stream began.
    lost_in_all: u64,
    /// How many of these it tells of.
    told: u64,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<u8>,
    /// Frames for which there was no room behind the records.
    lost: u64,
    ports: Vec<Label>,
    ended: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("shared", &self.shared)
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

impl Tap {
    /// What was switched since the last call, once there is something: whole blocks of pcapng. The first
    /// begin the stream. A packet in front of which frames were lost says how many (`epb_dropcount`); until
    /// there is one, statistics say how many are lost in all (`isb_ifdrop`). None when the segment has ended.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let (records, lost, ports, ended) = {
                let mut waiting = self.shared.waiting();
                (
                    std::mem::take(&mut waiting.records),
                    std::mem::take(&mut waiting.lost),
                    waiting.ports[self.interfaces..].to_vec(),
                    waiting.ended,
                )
            };
            // A Vec takes all that is written to it.
            let _ = self.write(&ports, &records);
            self.lost += lost;
            self.lost_in_all += lost;
            if records.is_empty() {
                let _ = self.write_losses();
            }
            let bytes = std::mem::take(self.writer.get_mut());
            if !bytes.is_empty() {
                return Some(bytes);
            }
            if ended {
                return None;
            }
            self.shared.changed.notified().await;
        }
    }

    fn write(&mut self, ports: &[Label], records: &[u8]) -> Result<(), PcapError> {
        for port in ports {
            self.writer.write_pcapng_block(interface(port))?;
            self.interfaces += 1;
        }
        let mut rest = records;
        while let Some(record) = next_record(&mut rest) {
            let mut block = packet(&record);
            let lost = std::mem::take(&mut self.lost);
            if lost > 0 {
                block.options.push(EnhancedPacketOption::DropCount(lost));
                self.told = self.lost_in_all;
            }
            self.writer.write_pcapng_block(block)?;
        }
        Ok(())
    }

    /// Tells of losses behind which nothing has come: the stream may end here.
    fn write_losses(&mut self) -> Result<(), PcapError> {
        if self.told == self.lost_in_all {
            return Ok(());
        }
        self.told = self.lost_in_all;
        let time = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        self.writer.write_pcapng_block(InterfaceStatisticsBlock {
            // By which ports they came is not counted.
            interface_id: 0,
            // The format has the upper half first, and pcap-file writes one number in this host's order.
            timestamp: if cfg!(target_endian = "little") {
                time.rotate_left(32)
            } else {
                time
            },
            options: vec![InterfaceStatisticsOption::IsbIfDrop(self.lost_in_all)],
        })?;
        Ok(())
    }
}

/// The segment's side of all its readers.
#[derive(Debug, Default)]
pub(crate) struct Taps(Vec<Lead>);

/// The segment's side of one reader.
#[derive(Debug)]
struct Lead {
    /// Only what enters and leaves by this port; without it, everything, where it enters.
    port: Option<usize>,
    filter: Filter,
    shared: Arc<Shared>,
    limit: usize,
}

impl Taps {
    pub(crate) fn add(
        &mut self,
        port: Option<usize>,
        filter: Filter,
        ports: Vec<Label>,
    ) -> Result<Tap, PcapError> {
        let shared = Arc::new(Shared::default());
        shared.waiting().ports = ports;
        self.0.push(Lead {
            port,
            filter,
            shared: Arc::clone(&shared),
            limit: LIMIT,
        });
        Ok(Tap {
            shared,
            writer: PcapNgWriter::new(Vec::new())?,
            interfaces: 0,
            lost: 0,
            lost_in_all: 0,
            told: 0,
        })
    }

    /// Another port was made.
    pub(crate) fn port_added(&self, port: &Label) {
        for lead in &self.0 {
            lead.shared.waiting().ports.push(port.clone());
        }
    }

    /// A frame entered by a port.
    #[inline]
    pub(crate) fn entered(&mut self, port: usize, frame: &[u8]) {
        if !self.0.is_empty() {
            self.record(port, frame, |of| of.is_none_or(|of| of == port));
        }
    }

    /// The first `count` of these framed frames leave by a port.
    #[inline]
    pub(crate) fn left(&mut self, port: usize, run: &[u8], count: u64) {
        if self.0.iter().all(|lead| lead.port != Some(port)) {
            return;
        }
        let mut at = 0;
        for _ in 0..count {
            let Ok(Some(frame)) = first_frame(&run[at..]) else {
                return;
            };
            at += LENGTH + frame.len();
            self.record(port, frame, |of| of == Some(port));
        }
    }

    fn record(&mut self, port: usize, frame: &[u8], meant: impl Fn(Option<usize>) -> bool) {
        let headers = Headers::of(frame);
        let time = now();
        self.0.retain(|lead| {
            if meant(lead.port) && lead.filter.meets(&headers) {
                lead.record(port, frame, time);
            }
            // Whose reader has gone.
            Arc::strong_count(&lead.shared) > 1
        });
    }
}

impl Lead {
    fn record(&self, port: usize, frame: &[u8], time: Duration) {
        let mut waiting = self.shared.waiting();
        // What comes behind a lost frame is lost until the reader has caught up: it is told once.
        if waiting.lost > 0 || waiting.records.len() + frame.len() > self.limit {
            waiting.lost += 1;
            return;
        }
        push_record(&mut waiting.records, port, frame, time);
        drop(waiting);
        self.shared.changed.notify_one();
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.shared.waiting().ended = true;
        self.shared.changed.notify_one();
    }
}

fn now() -> Duration {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    wall.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::udp;

    fn datagram(number: u8, port: u16) -> Vec<u8> {
        udp([10, 1, 1, 2], [10, 1, 2, 3], (port, 53), &[number; 40])
    }

    fn tap(taps: &mut Taps, port: Option<usize>, filter: &str) -> Tap {
        let ports = ["gateway", "node1"].map(Label::from).to_vec();
        taps.add(port, filter.parse().unwrap(), ports).unwrap()
    }

    fn numbers(stream: &[u8]) -> Vec<u8> {
        let mut rest = stream;
        let mut reader = pcap_file::pcapng::PcapNgReader::new(&mut rest).unwrap();
        let mut numbers = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Some(packet) = block.unwrap().into_enhanced_packet() {
                numbers.push(*packet.data.last().unwrap());
            }
        }
        numbers
    }

    #[tokio::test]
    async fn a_reader_gets_what_enters_and_one_of_a_port_what_leaves_by_it_too() {
        let mut taps = Taps::default();
        let (mut all, mut one) = (tap(&mut taps, None, ""), tap(&mut taps, Some(1), ""));
        let mut dns = tap(&mut taps, None, "udp and port 40000");
        let sent = datagram(1, 40_000);
        taps.entered(0, &sent);
        taps.entered(1, &datagram(2, 9));
        let mut framed = Vec::new();
        crate::framing::append(&mut framed, &sent);
        crate::framing::append(&mut framed, &datagram(3, 40_000));
        taps.left(1, &framed, 1);
        taps.left(0, &framed, 2);
        assert_eq!(numbers(&all.next().await.unwrap()), [1, 2]);
        assert_eq!(numbers(&one.next().await.unwrap()), [2, 1]);
        assert_eq!(numbers(&dns.next().await.unwrap()), [1]);
        drop((one, dns));
        taps.entered(0, &sent);
        assert_eq!(taps.0.len(), 1, "who has gone is forgotten");
    }

    #[tokio::test]
    async fn a_slow_reader_loses_frames_and_is_told_how_many() {
        let mut taps = Taps::default();
        let mut slow = tap(&mut taps, None, "");
        taps.0[0].limit = 1000;
        let mut count = CaptureCount::default();
        for _ in 0..3 {
            for n in 0..100 {
                taps.entered(0, &datagram(n, 40_000));
            }
            count.feed(&slow.next().await.unwrap()).unwrap();
        }
        taps.entered(0, &datagram(0, 40_000));
        taps.port_added(&"node2".into());
        drop(taps);
        // In pieces, as a socket gives them.
        for octet in slow.next().await.unwrap() {
            count.feed(&[octet]).unwrap();
        }
        assert!((3..100).contains(&count.frames()), "{count:?}");
        assert_eq!(count.frames() + count.lost(), 301);
        assert!(slow.next().await.is_none());
    }

    #[tokio::test]
    async fn who_loses_the_last_frames_is_told_without_a_further_one() {
        let slow = || {
            let mut taps = Taps::default();
            let slow = tap(&mut taps, None, "");
            taps.0[0].limit = 1000;
            (taps, slow, CaptureCount::default())
        };
        let enter = |taps: &mut Taps| {
            for n in 0..100 {
                taps.entered(0, &datagram(n, 40_000));
            }
        };
        let (mut taps, mut tap, mut count) = slow();
        enter(&mut taps);
        drop(taps);
        while let Some(blocks) = tap.next().await {
            count.feed(&blocks).unwrap();
        }
        assert!((1..100).contains(&count.frames()), "{count:?}");
        assert_eq!(count.frames() + count.lost(), 100);

        // Where more comes, its packets say the same again.
        let (mut taps, mut tap, mut count) = slow();
        for all in [100, 200] {
            enter(&mut taps);
            for _ in 0..2 {
                count.feed(&tap.next().await.unwrap()).unwrap();
            }
            assert_eq!(count.frames() + count.lost(), all);
        }
    }

    #[tokio::test]
    async fn nothing_behind_a_lost_frame_is_taken_before_the_reader_is_told() {
        let mut taps = Taps::default();
        let mut slow = tap(&mut taps, None, "");
        taps.0[0].limit = 200;
        taps.entered(0, &datagram(1, 40_000));
        taps.entered(0, &[0; 180]);
        taps.entered(0, &datagram(2, 40_000)[..42]);
        let mut count = CaptureCount::default();
        count.feed(&slow.next().await.unwrap()).unwrap();
        taps.entered(0, &datagram(3, 40_000));
        count.feed(&slow.next().await.unwrap()).unwrap();
        assert_eq!((count.frames(), count.lost()), (2, 2));
    }

    #[test]
    fn what_is_not_pcapng_is_refused() {
        let mut count = CaptureCount::default();
        assert!(count.feed(&[7; 64]).is_err());
    }
}
