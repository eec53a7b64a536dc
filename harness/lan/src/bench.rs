//! The switch measured against `vde_switch`.
