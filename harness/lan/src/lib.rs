//! Ethernet segments in user space: a learning switch, and the harness's own host on each.
//!
//! A [`Segment`] owns one thread. Machines attach with a stream socket (QEMU's `-netdev stream`:
//! each frame preceded by its length, 32 bits, big-endian); the [gateway](GatewayHandle) is a port
//! of the same switch that lives inside the thread: it answers ARP, ICMP echo, DHCP and DNS, plays
//! a host outside the cluster, opens TCP connections to machines, and accepts theirs where somebody listens. It is the machines' default
//! router and forwards nothing: what reaches it for somewhere else is dropped and counted.
//!
//! A switch usually has one segment. Of several, each has its own stations, and no frame goes from one to
//! another: what leads there is a machine with a card on both.
//!
//! Nothing is configured on the host, no port of the host is opened, no privilege is needed.
//!
//! ```text
//!                                               rules
//!  QEMU --socket-- [reactor] -- FrameBuffer --> Switch --> SendQueue --socket-- QEMU
//!                                                 |  ^
//!                                                 v  |
//!                                               Gateway  <--channel-- SegmentStream (tokio)
//! ```

mod address;
mod ageing;
pub mod bench;
mod capture;
mod error;
mod frame;
mod framing;
pub mod fuzz;
mod gateway;
mod label;
mod mac_table;
mod mailbox;
mod plan;
mod queue;
mod reactor;
mod rules;
mod rules_handle;
mod segment;
mod state;
mod switch;
mod tap;
mod taps_handle;
pub mod witness;

pub use address::{AddressError, Ipv4Net, MacAddr};
pub use error::LanError;
pub use gateway::{
    ContactProtocol, DropReason, DroppedFlow, GatewayCounters, GatewayHandle, OutsideContact,
    SegmentListener, SegmentStream,
};
pub use label::SegmentNumber;
pub use plan::{Host, Lease, NetworkPlan, PlanError, Route, SegmentPlan};
pub use rules::filter::{AddressFilter, Check, FilterReport};
pub use rules::report::{Realised, RuleId, RuleReport, RulesReport};
pub use rules::rule::{Impairment, Packets, Protocol, Rule, RuleError, Selector};
pub use rules::units::{BitRate, Percent, Size, Time, UnitError};
pub use rules_handle::RulesHandle;
pub use segment::{Segment, SegmentOptions};
pub use state::{HeldFrame, LearnedMac, PortState, SegmentState};
pub use switch::{Drops, PortCounters};
pub use tap::filter::{Filter, FilterError};
pub use tap::{CaptureCount, NotPcapng, Tap};
pub use taps_handle::TapsHandle;
