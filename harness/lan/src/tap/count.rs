//! What a pcapng stream holds, counted while it passes.

use pcap_file::PcapError;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgParser};

/// Counts the frames of a pcapng stream, and those that it says were lost.
#[derive(Default)]
pub struct CaptureCount {
    /// The part of a block.
    rest: Vec<u8>,
    parser: Option<PcapNgParser>,
    frames: u64,
    /// Lost in front of a frame, by what frames say.
    lost_between: u64,
    /// Lost since the stream began, by its last statistics.
    lost_until: u64,
}

/// The stream is no pcapng.
#[derive(Debug, thiserror::Error)]
#[error("what comes is no pcapng stream")]
pub struct NotPcapng(#[source] PcapError);

impl std::fmt::Debug for CaptureCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} frames, {} lost", self.frames, self.lost())
    }
}

impl CaptureCount {
    /// Takes the next part of the stream, cut anywhere.
    ///
    /// # Errors
    /// [`NotPcapng`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), NotPcapng> {
        self.rest.extend_from_slice(bytes);
        let mut left = &self.rest[..];
        let end = loop {
            let Some(parser) = &mut self.parser else {
                match PcapNgParser::new(left) {
                    Ok((rest, parser)) => {
                        left = rest;
                        self.parser = Some(parser);
                        continue;
                    }
                    Err(error) => break error,
                }
            };
            match parser.next_block(left) {
                Ok((rest, block)) => {
                    left = rest;
                    match block {
                        Block::EnhancedPacket(packet) => {
                            self.frames += 1;
                            self.lost_between += packet.options.iter().map(lost).sum::<u64>();
                        }
                        Block::InterfaceStatistics(all) => {
                            let lost = all.options.iter().find_map(lost_until);
                            self.lost_until = lost.unwrap_or(self.lost_until);
                        }
                        _ => {}
                    }
                }
                Err(error) => break error,
            }
        };
        let taken = self.rest.len() - left.len();
        self.rest.drain(..taken);
        match end {
            PcapError::IncompleteBuffer => Ok(()),
            other => Err(NotPcapng(other)),
        }
    }

    /// Frames.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Frames that are not in the stream, because whoever reads it was too slow.
    #[must_use]
    pub fn lost(&self) -> u64 {
        // What statistics have told, the next frame tells again.
        self.lost_between.max(self.lost_until)
    }
}

fn lost(option: &EnhancedPacketOption<'_>) -> u64 {
    match option {
        EnhancedPacketOption::DropCount(lost) => *lost,
        _ => 0,
    }
}

fn lost_until(option: &InterfaceStatisticsOption<'_>) -> Option<u64> {
    match option {
        InterfaceStatisticsOption::IsbIfDrop(lost) => Some(*lost),
        _ => None,
    }
}
