//! x
pub mod settings; mod supervisor;
