//! How long steady requests may take.

use std::time::Duration;

use crate::check::clock::millis;
use crate::lab::traffic::StartTraffic;

impl StartTraffic<'_> {
    /// Each request has so long to be answered. No more than 128 may come to be under way at once: a short
    /// pace wants a short limit.
    pub fn within(mut self, limit: Duration) -> Self {
        self.request.limit_ms = millis(limit);
        self
    }
}
