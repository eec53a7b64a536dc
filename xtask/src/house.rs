//! Whether this machine will do, what podwire keeps on it, and the project's own checks.

pub(crate) mod chaos;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod docs;
pub(crate) mod doctor;
pub(crate) mod fuzz;
pub(crate) mod stages;
