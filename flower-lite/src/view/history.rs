//! Pages of the history, and workflows as trees.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::Task;
use crate::history::search::Page;
use crate::state::task;

/// How deep a tree is shown; what is deeper hangs from there.
const MAX_DEPTH: usize = 64;

/// A page of the history.
#[derive(Debug, Serialize)]
pub struct HistoryPage {
    items: Vec<Task>,
    next_cursor: Option<String>,
    /// Whether the page is full, or everything was looked at; if not, there may be more from `next_cursor` on.
    complete: bool,
}

impl HistoryPage {
    /// A page as it was found.
    #[must_use]
    pub fn of(page: &Page) -> HistoryPage {
        HistoryPage {
            items: page.tasks.iter().map(Task::of).collect(),
            next_cursor: page.next.map(|next| next.to_string()),
            complete: page.complete,
        }
    }
}

/// A workflow: all tasks that have one root, as they called each other.
#[derive(Debug, Serialize)]
pub struct Workflow {
    version: u64,
    root: String,
    total: usize,
    by_state: BTreeMap<String, usize>,
    /// The root; and tasks whose caller is not known any more.
    tree: Vec<Node>,
}

/// A task of a workflow, and those that it called.
#[derive(Debug, Serialize)]
pub struct Node {
    #[serde(flatten)]
    task: Task,
    children: Vec<Node>,
}

impl Workflow {
    /// The tree of `members`; each of them is in it once, whatever they say of their callers.
    #[must_use]
    pub fn of(version: u64, root: &str, mut members: Vec<task::Task>) -> Workflow {
        members.sort_by(|a, b| a.listed_at().cmp(&b.listed_at()).then_with(|| a.id().cmp(b.id())));
        let mut by_state = BTreeMap::new();
        for member in &members {
            *by_state.entry(member.state().as_str().to_owned()).or_default() += 1;
        }
        let known: HashMap<&str, usize> =
            members.iter().enumerate().map(|(index, member)| (member.id(), index)).collect();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); members.len()];
        let mut tops = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let parent = member.parent().and_then(|parent| known.get(parent)).copied();
            match parent.filter(|_| member.id() != root) {
                Some(parent) => children[parent].push(index),
                None => tops.push(index),
            }
        }
        let total = members.len();
        let mut forest = Forest { members: members.into_iter().map(Some).collect(), children };
        let mut tree: Vec<Node> = tops.into_iter().filter_map(|top| forest.grow(top, 0)).collect();
        // Tasks that call each other in a circle hang from nothing.
        for index in 0..total {
            tree.extend(forest.grow(index, 0));
        }
        Workflow { version, root: root.to_owned(), total, by_state, tree }
    }
}

struct Forest {
    /// Each task until it is put into the tree.
    members: Vec<Option<task::Task>>,
    children: Vec<Vec<usize>>,
}

impl Forest {
    fn grow(&mut self, index: usize, depth: usize) -> Option<Node> {
        let task = self.members[index].take()?;
        let mut node = Node { task: Task::of(&task), children: Vec::new() };
        let below = std::mem::take(&mut self.children[index]);
        if depth < MAX_DEPTH {
            node.children = below.into_iter().filter_map(|child| self.grow(child, depth + 1)).collect();
        }
        Some(node)
    }
}
