//! What the harness's own tests against real QEMU share: where the guest comes from, and a pair of
//! machines on a segment that is booted and frozen once per run and cloned by each test; and two segments
//! with a router between them.
//!
//! `cargo xtask test` runs these tests, because it makes the image and sets the environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `PODWIRE_TEST_IMAGE` | folder with `disk.qcow2`, `kernel`, `initrd` of the small base image |
//! | `PODWIRE_SSH_KEY` | private key (OpenSSH PEM) that its root user accepts |
//! | `PODWIRE_ACCELERATOR` | `tcg`, `kvm`, or `kvm,` and what the guest is shown of the processor |
//! | `PODWIRE_QEMU`, `PODWIRE_QEMU_IMG` | programs, when not those in `PATH` |

mod pair;
mod routed;
mod setup;

pub use pair::{Frozen, Pair, address};
pub use routed::{FrozenRouted, Routed, Who, subnet};
pub use setup::{Scratch, Setup};
