//! The guides of `docs/`, here so that their examples are compiled and run as tests.

/// The first page: its example is compiled, and it is no part of this documentation.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub mod readme {}

/// A first worker.
#[doc = include_str!("../../docs/tutorial.md")]
pub mod tutorial {}

/// Workflows.
#[doc = include_str!("../../docs/canvas.md")]
pub mod canvas {}

/// For a team that has Celery.
#[doc = include_str!("../../docs/migration.md")]
pub mod migration {}
