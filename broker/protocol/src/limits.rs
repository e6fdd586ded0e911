//! The bounds that every decoder keeps: what is larger is refused before memory or time is spent on it.

use crate::content::Accept;

/// Upper bounds for input from the broker. `Default` is what a worker should use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message body as delivered. Default: 16 MiB, the most that RabbitMQ 4 takes.
    pub body: usize,
    /// Bytes of all headers together (keys and values, roughly). Default: 128 KiB.
    pub headers: usize,
    /// Bytes of a body after decompression. Default: 64 MiB.
    pub decompressed: usize,
    /// How often larger than its compressed form a body beyond 1 MiB may be. Default: 200.
    pub ratio: usize,
    /// Nesting of arrays and objects in JSON, at most [`pyjson::MAX_DEPTH`](crate::pyjson::MAX_DEPTH). Default: 512.
    pub depth: usize,
    /// Positional or keyword arguments of one call. Default: 65,536.
    pub arguments: usize,
    /// Content types that are read. Default: JSON.
    pub accept: Accept,
    /// Signatures in each of `callbacks`, `errbacks` and `chain`. Default: 1,000.
    pub signatures: usize,
}

impl Limits {
    /// The defaults, for use in constants.
    pub const DEFAULT: Limits = Limits {
        body: 16 * 1024 * 1024,
        headers: 128 * 1024,
        decompressed: 64 * 1024 * 1024,
        ratio: 200,
        depth: crate::pyjson::MAX_DEPTH,
        arguments: 65_536,
        accept: Accept::JSON,
        signatures: 1_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
