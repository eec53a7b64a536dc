//! Figures: where the time goes, and how fast the parts are, beside a rival where there is one.

pub(crate) mod clone;
pub(crate) mod conformance;
pub(crate) mod last_run;
pub(crate) mod red;
pub(crate) mod suite;
pub(crate) mod switch;
pub(crate) mod truth;
