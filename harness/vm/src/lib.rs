//! One machine: QEMU as a value, a process, a console, a control channel and a way in.
//!
//! The crate knows neither Kubernetes nor the network segment: it is given a descriptor for the
//! network card, and for SSH a byte stream, and gives back [`Machine`] and [`Guest`].
//!
//! - [`MachineSpec`] is QEMU's command line as plain data;
//! - [`Machine`] runs it, freezes it to a file and brings it back, and tells at once when it fails
//!   ([`MachineFault`]);
//! - [`Qmp`] is the control channel, [`Console`] the recorded serial line;
//! - [`Guest`] runs commands in it, whatever its network does;
//! - [`SshSession`] is for people, on any stream;
//! - [`clock`] measures what an emulated guest cannot find out reliably by itself;
//! - [`accelerator`] judges KVM and emulation by running a guest;
//! - [`keys`] makes the SSH keys, [`create_overlay`] a machine's private disk.

pub mod accelerator;
pub mod clock;
mod console;
mod disk;
mod error;
mod fault;
mod guest;
mod instructions;
pub mod keys;
mod machine;
pub mod memory;
mod output;
mod processor;
mod qmp;
mod scheduled;
mod spec;
mod ssh;
mod transcript;
mod words;

pub use console::Console;
pub use disk::create_overlay;
pub use error::VmError;
pub use fault::{FaultKind, FaultWatch, MachineFault};
pub use guest::{Guest, GuestError};
pub use instructions::{Instructions, NotCounted, count_instructions};
pub use machine::{Machine, Nic};
pub use output::{ExitStatus, Output};
pub use processor::{Accelerator, Features, KvmProcessor, UnknownAccelerator, cpuinfo_field};
pub use qmp::{Event, Events, Qmp, QmpError};
pub use scheduled::Scheduled;
pub use spec::{Descriptors, MachineSpec, NicDescriptor, Ram};
pub use ssh::{SshCredentials, SshError, SshSession};
pub use transcript::Transcript;
