//! x
pub mod eta; pub mod prefetch; pub mod rate_limit; pub mod revoked;
