//! What travels in bodies: requests as they are read, answers as they are written.
//!
//! Wire types only: rules about them live in `plan.rs` (submission) and `view.rs` (reading).

pub mod batch;
pub mod canvas;
pub mod dry_run;
pub mod form;
pub mod list;
pub mod stream;
pub mod submit;
pub mod task;
