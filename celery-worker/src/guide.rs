//! The guides of `docs/`, here so that their examples are compiled and run as tests.

/// A first worker.
#[doc = include_str!("../../docs/tutorial.md")]
pub mod tutorial {}

/// Workflows.
#[doc = include_str!("../../docs/canvas.md")]
pub mod canvas {}

/// For a team that has Celery.
#[doc = include_str!("../../docs/migration.md")]
pub mod migration {}
