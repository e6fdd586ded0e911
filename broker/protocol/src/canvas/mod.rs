//! Workflows: signatures, and the trees that are made of them.

mod options;
mod sig;
mod signature;

pub use options::SignatureOptions;
pub use sig::{Sig, SigError};
pub use signature::{Signature, SignatureError};
