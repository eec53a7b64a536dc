//! The last frames of a segment, kept in memory and written as pcapng on demand.
//!
//! A frame is recorded once, on the port it came from. Memory is bounded: frames go into one of two
//! arenas, and when one is full the other, older one is emptied and used next.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use crate::label::Label;

/// Octets kept in each of the two arenas.
const ARENA: usize = 16 * 1024 * 1024;

/// Octets kept of a frame: all of one of the usual size, the head of a jumbo frame.
const SNAP: usize = 2048;

/// Octets before each record: port, time in nanoseconds, length on the wire, length kept.
const RECORD: usize = 4 + 8 + 4 + 4;

#[derive(Debug)]
pub(crate) struct Capture {
    path: PathBuf,
    /// Wall clock at the origin of the times given.
    origin: Duration,
    older: Vec<u8>,
    newer: Vec<u8>,
    arena: usize,
}

impl Capture {
    /// A capture that [`Capture::flush`] writes to `path`; `now` is the caller's clock now.
    pub(crate) fn new(path: PathBuf, now: Duration) -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Capture {
            path,
            origin: wall.saturating_sub(now),
            older: Vec::new(),
            newer: Vec::new(),
            arena: ARENA,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn record(&mut self, port: usize, frame: &[u8], now: Duration) {
        if self.newer.len() + RECORD + frame.len().min(SNAP) > self.arena {
            std::mem::swap(&mut self.older, &mut self.newer);
            self.newer.clear();
        }
        push_record(&mut self.newer, port, frame, self.origin + now);
    }

    /// Writes a complete file, one interface for each of `ports`, and puts it in place of the
    /// previous one.
    pub(crate) fn flush(&self, ports: &[Label]) -> io::Result<()> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".part");
        let file = BufWriter::new(File::create(&beside)?);
        self.write(ports, file).map_err(|error| match error {
            PcapError::IoError(error) => error,
            other => io::Error::other(other),
        })?;
        std::fs::rename(&beside, &self.path)
    }

    fn write(&self, ports: &[Label], to: impl Write) -> Result<(), PcapError> {
        let mut writer = PcapNgWriter::new(to)?;
        for port in ports {
            writer.write_pcapng_block(interface(port))?;
        }
        for arena in [&self.older, &self.newer] {
            let mut rest = &arena[..];
            while let Some(record) = next_record(&mut rest) {
                writer.write_pcapng_block(packet(&record))?;
            }
        }
        writer.get_mut().flush().map_err(PcapError::IoError)
    }
}

/// A frame in memory.
pub(crate) struct Record<'a> {
    port: u32,
    /// Nanoseconds since 1970.
    time: u64,
    /// Octets on the wire.
    length: u32,
    data: &'a [u8],
}

/// Appends a record of a frame that a port has sent, or got, at a time since 1970.
pub(crate) fn push_record(to: &mut Vec<u8>, port: usize, frame: &[u8], time: Duration) {
    let kept = &frame[..frame.len().min(SNAP)];
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes();
    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    to.extend_from_slice(&number(port));
    to.extend_from_slice(&time.to_ne_bytes());
    to.extend_from_slice(&number(frame.len()));
    to.extend_from_slice(&number(kept.len()));
    to.extend_from_slice(kept);
}

/// Takes the first record.
pub(crate) fn next_record<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let (port, tail) = rest.split_first_chunk()?;
    let (time, tail) = tail.split_first_chunk()?;
    let (length, tail) = tail.split_first_chunk()?;
    let (kept, tail) = tail.split_first_chunk()?;
    let (data, tail) = tail.split_at_checked(u32::from_ne_bytes(*kept) as usize)?;
    *rest = tail;
    Some(Record {
        port: u32::from_ne_bytes(*port),
        time: u64::from_ne_bytes(*time),
        length: u32::from_ne_bytes(*length),
        data,
    })
}

/// A port as pcapng has it; they come in the order of their numbers. Its description says on which
/// segment it is, where there are several.
pub(crate) fn interface(port: &Label) -> InterfaceDescriptionBlock<'_> {
    let segment = port.segment.map(|segment| segment.to_string());
    let segment = segment.map(|it| InterfaceDescriptionOption::IfDescription(Cow::Owned(it)));
    InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        snaplen: u32::try_from(SNAP).unwrap_or(u32::MAX),
        options: [InterfaceDescriptionOption::IfName(Cow::Borrowed(
            &port.name,
        ))]
        .into_iter()
        .chain(segment)
        // pcap-file writes nanoseconds; without this option they would be read as microseconds.
        .chain([InterfaceDescriptionOption::IfTsResol(9)])
        .collect(),
    }
}

/// A frame as pcapng has it.
pub(crate) fn packet<'a>(record: &Record<'a>) -> EnhancedPacketBlock<'a> {
    EnhancedPacketBlock {
        interface_id: record.port,
        timestamp: Duration::from_nanos(record.time),
        original_len: record.length,
        data: Cow::Borrowed(record.data),
        options: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::label::SegmentNumber;

    /// Interface, time, length on the wire, what was kept.
    type Packet = (u32, Duration, u32, Vec<u8>);

    fn read_back(path: &Path) -> (Vec<String>, Vec<Packet>) {
        let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
        let (mut names, mut packets) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(interface) => {
                    names.extend(interface.options.iter().filter_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(packet) => packets.push((
                    packet.interface_id,
                    packet.timestamp,
                    packet.original_len,
                    packet.data.to_vec(),
                )),
                _ => {}
            }
        }
        (names, packets)
    }

    #[test]
    fn a_capture_reads_back_by_port_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wire.pcapng");
        let mut capture = Capture::new(path.clone(), Duration::ZERO);
        capture.origin = Duration::from_secs(1_700_000_000);
        capture.record(1, &[7; 60], Duration::from_nanos(5));
        capture.record(0, &[8; 61], Duration::from_millis(1));
        capture.record(1, &[9; 9000], Duration::from_secs(1));
        let names = ["gateway", "node1"];
        capture.flush(&names.map(Label::from)).unwrap();
        let (seen, packets) = read_back(&path);
        assert_eq!(seen, names);
        let start = capture.origin;
        assert_eq!(
            packets[0],
            (1, start + Duration::from_nanos(5), 60, vec![7; 60])
        );
        assert_eq!(
            packets[1],
            (0, start + Duration::from_millis(1), 61, vec![8; 61])
        );
        assert_eq!(
            packets[2],
            (1, start + Duration::from_secs(1), 9000, vec![9; SNAP])
        );
        assert_eq!(packets.len(), 3);
    }

    #[test]
    fn of_several_segments_a_port_says_on_which_it_is() {
        let described = |port: &Label| {
            let options = interface(port).options.into_iter();
            let mut described = options.filter_map(|option| match option {
                InterfaceDescriptionOption::IfDescription(text) => Some(text.into_owned()),
                _ => None,
            });
            described.next()
        };
        assert_eq!(described(&"node1".into()), None);
        let port = Label {
            segment: Some(SegmentNumber::of_index(1)),
            ..Label::from("router-2")
        };
        assert_eq!(described(&port).as_deref(), Some("segment 2"));
    }

    #[test]
    fn the_oldest_frames_go_first_and_memory_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wire.pcapng");
        let mut capture = Capture::new(path.clone(), Duration::ZERO);
        capture.arena = 1000;
        for n in 0..100 {
            capture.record(0, &[n; 80], Duration::ZERO);
            assert!(capture.older.len() + capture.newer.len() <= 2000);
        }
        capture.flush(&["gateway".into()]).unwrap();
        let (_, packets) = read_back(&path);
        let seen: Vec<u8> = packets.iter().map(|packet| packet.3[0]).collect();
        let first = seen[0];
        assert_eq!(first, 80);
        assert_eq!(seen, (first..100).collect::<Vec<u8>>());
    }
}
