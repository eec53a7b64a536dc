//! All that can go wrong with a segment.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use crate::PlanError;
use crate::label::SegmentNumber;
use crate::rules::rule::RuleError;

/// A segment, a port or a connection could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LanError {
    /// The plan contradicts itself.
    #[error("the segment's plan is wrong")]
    Plan(#[from] PlanError),
    /// The kernel refused a descriptor or a thread.
    #[error("cannot {doing}; see the limits on open files and threads (ulimit -n, ulimit -u)")]
    System {
        /// What was asked of the kernel.
        doing: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The segment's thread is gone.
    #[error("the segment is stopped; start another")]
    Stopped,
    /// A port of that name has a machine attached.
    #[error("port {name:?} is in use; end the machine attached to it first, or take another name")]
    PortInUse {
        /// The port's name.
        name: String,
    },
    /// No such port.
    #[error("the segment has no port {name:?}; it has {}", known.join(", "))]
    UnknownPort {
        /// The name asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The plan has no such segment.
    #[error("there is no {segment} to attach {name} to; give the plan another segment")]
    NoSegment {
        /// The one asked for.
        segment: SegmentNumber,
        /// The port's name.
        name: String,
    },
    /// No frame goes from one port to the other.
    #[error(
        "{from} and {to} are on different segments, and no frame goes from one to the other; name a port of the router's on the same segment instead"
    )]
    Apart {
        /// The port that frames come from.
        from: String,
        /// The port that they go to.
        to: String,
    },
    /// A rule contradicts itself.
    #[error("the rule is wrong: {0}")]
    Rule(#[from] RuleError),
    /// The machine answered, and nothing listens there.
    #[error("connection to {to} refused: the machine is up and nothing listens on port {}", to.port())]
    Refused {
        /// Where to.
        to: SocketAddrV4,
    },
    /// The machine's address resolved, and no answer came.
    #[error("connection to {to} timed out after {} s: the machine's MAC address is known, and it does not answer", limit.as_secs_f64())]
    TimedOut {
        /// Where to.
        to: SocketAddrV4,
        /// How long was waited.
        limit: Duration,
    },
    /// No machine on the segment has the address.
    #[error("no route to {to}: nobody answered ARP for {} within {} s; the machine is not up, or its address is not set", to.ip(), waited.as_secs_f64())]
    NoRoute {
        /// Where to.
        to: SocketAddrV4,
        /// How long was waited.
        waited: Duration,
    },
    /// The address is on none of the segments, and the gateway has no router.
    #[error("{address} is not on the segment; the gateway reaches only its machines")]
    NotOnSegment {
        /// The address asked for.
        address: Ipv4Addr,
    },
    /// All ports for connections to this address are taken.
    #[error("no free local port for a connection to {to}; close some")]
    NoLocalPort {
        /// Where to.
        to: SocketAddrV4,
    },
    /// A port of the gateway's is taken.
    #[error("somebody listens at the gateway's port {port} already; drop that listener first")]
    Listening {
        /// The port.
        port: u16,
    },
    /// The capture file could not be written.
    #[error("cannot write the capture to {}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody can read along.
    #[error("cannot begin a pcapng stream")]
    Tap {
        /// Why.
        #[source]
        source: pcap_file::PcapError,
    },
    /// The segment was started without a capture.
    #[error("this segment captures nothing; start it with SegmentOptions::capture")]
    NoCapture,
    /// The segment was started without a witness.
    #[error("this segment remembers no frames; start it with SegmentOptions::watch")]
    NotWatched,
}
