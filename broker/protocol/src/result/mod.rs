//! Results: the states of a task, the record that the backend keeps, exceptions in it, and the names of its keys.

mod exception;
pub mod keys;
mod meta;
mod state;
mod tuple;

pub use exception::RemoteException;
pub use meta::{Extended, MetaError, ResultMeta, unpack};
pub use state::TaskState;
pub use tuple::{ResultTuple, TupleError};
