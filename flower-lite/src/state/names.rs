//! One copy of each name: tasks and workers by the thousand share a few of them.

use std::collections::HashSet;
use std::sync::Arc;

/// How many names are kept before those that nobody uses any more are looked for.
const SWEEP_AT_LEAST: usize = 1_024;

/// The names in use.
#[derive(Debug, Default)]
pub struct Names {
    names: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Names {
    /// The shared copy of `name`.
    pub fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        if self.names.len() >= self.sweep_at.max(SWEEP_AT_LEAST) {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = self.names.len() * 2;
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_out_of_use_are_dropped() {
        let mut names = Names::default();
        let kept = names.share("kept");
        for index in 0..100_000 {
            names.share(&format!("flood-{index}"));
        }
        assert!(names.names.len() <= SWEEP_AT_LEAST + 1, "{}", names.names.len());
        assert!(Arc::ptr_eq(&kept, &names.share("kept")));
    }
}
