//! The monitor from outside: over HTTP, fed by hand, by a recording, and by real workers.

mod helpers;
mod json;
mod pages;
mod replay;
mod stream;
