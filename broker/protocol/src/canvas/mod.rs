//! Workflows: calls, and the trees that are made of them.
//!
//! A [`Signature`] is one call as data; it is all that a message holds, also of a chain, group or chord. A [`Canvas`] is
//! the tree that such a signature stands for. Everything here is a function of values:
//!
//! * [`compose`](Canvas::then) joins trees as Python's `|` does,
//! * [`Canvas::freeze`] gives ids to all calls in a tree,
//! * [`plan`] says what has to be published, in order, to run a tree,
//! * [`Replacement`] makes a tree take the place of a running call.
//!
//! Ids come from the caller ([`IdSource`]), so that nothing here is random.

mod build;
mod compose;
mod freeze;
mod options;
mod plan;
mod replace;
mod sig;
mod signature;
mod stamp;
mod tree;

pub use build::{Chain, Chord, Group, IntoCanvas, chain, chord, group};
pub use freeze::{Freeze, IdSource};
pub use options::SignatureOptions;
pub use plan::{Call, Plan, Step, plan};
pub use replace::Replacement;
pub use sig::{Sig, SigError};
pub use signature::{Signature, SignatureError};
pub use tree::{Canvas, ChainNode, ChordNode, Frame, GroupNode};
