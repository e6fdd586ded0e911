//! Bounds on how many requests do the same expensive thing at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts who is inside and turns away the rest: nobody queues at a gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    inside: AtomicUsize,
    limit: usize,
}

/// One place behind a [`Gate`], given back on drop.
#[derive(Debug)]
pub struct Pass(Arc<Inner>);

impl Gate {
    /// A gate for at most `limit` at once.
    pub fn new(limit: usize) -> Self {
        Gate(Arc::new(Inner { inside: AtomicUsize::new(0), limit }))
    }

    /// A place, if there is one.
    pub fn enter(&self) -> Option<Pass> {
        let before = self.0.inside.fetch_add(1, Ordering::Relaxed);
        let pass = Pass(self.0.clone());
        (before < self.0.limit).then_some(pass)
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.0.inside.load(Ordering::Relaxed).min(self.0.limit)
    }

    /// How many may be inside.
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_in_up_to_its_limit() {
        let gate = Gate::new(2);
        let first = gate.enter();
        let second = gate.enter();
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 2);
        drop(first);
        assert!(gate.enter().is_some());
        drop(second);
        assert_eq!(gate.inside(), 0);
    }
}
