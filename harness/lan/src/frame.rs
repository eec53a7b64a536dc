//! What the switch reads of a frame: its two addresses, and nothing behind them.

use crate::MacAddr;

/// Octets before the payload: destination, source, type (IEEE 802.3 clause 3.2, without preamble).
pub(crate) const HEADER: usize = 14;

/// Octets of the two addresses with which a frame begins.
pub(crate) const ADDRESSES: usize = 12;

/// Destination and source address of a frame; a VLAN tag comes behind them and is not looked at.
pub(crate) fn addresses(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    if frame.len() < HEADER {
        return None;
    }
    let (destination, rest) = frame.split_first_chunk()?;
    let (source, _) = rest.split_first_chunk()?;
    Some((MacAddr(*destination), MacAddr(*source)))
}
