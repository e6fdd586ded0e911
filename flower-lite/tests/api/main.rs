//! The monitor from outside: over HTTP, fed by hand, by a recording, and by real workers.

#![expect(clippy::expect_used, reason = "a test that can't go on ends")]

mod access;
mod actions;
mod backend;
mod flower;
mod helpers;
mod history;
mod json;
mod oidc;
mod openapi;
mod pages;
mod replay;
mod stream;
mod workers;
