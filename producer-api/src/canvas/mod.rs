//! Workflows over HTTP: chain, group, chord, map, starmap and chunks, nested at will.
//!
//! [`read`] makes the tree of a body, with every call in it judged as a submission of its own; [`plan`] says which
//! messages start it and which tasks it will have; [`run`] publishes them. The shape of the messages is
//! `celery-protocol`'s, as for every other producer of this project.

pub mod plan;
pub mod read;
pub mod run;
#[cfg(test)]
mod tests;
