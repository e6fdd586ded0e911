//! Manifests against programs: what `manifests/` says of settings, ports, probes, images and grace periods is what the
//! programs say of themselves. `make manifests` checks the manifests' form; this checks their meaning.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod documents;
mod images;
mod machine;
mod pods;
mod tables;
