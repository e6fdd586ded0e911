//! Results in this process: for tests of workers and for demonstrations. Same rules as Redis.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use celery_protocol::{GroupId, ResultMeta, ResultTuple, TaskId, TaskState};
use futures_util::stream::BoxStream;

use super::mailbox::Mailbox;
use super::{Answer, ChordClaim, ChordMember, ChordPart, ChordProgress, ResultBackend};
use crate::control::{Cluster, MemoryCluster};
use crate::fenced::{Fenced, MemoryFenced};
use crate::notes::{MemoryNotes, Notes};
use crate::submission::{MemorySubmissions, SubmissionIndex};

/// Results that are kept; the oldest make room.
const CAPACITY: usize = 100_000;

/// Keeps results in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryBackend {
    store: Arc<Mutex<Store>>,
    submissions: MemorySubmissions,
    notes: MemoryNotes,
    cluster: MemoryCluster,
    fenced: MemoryFenced,
}

#[derive(Debug, Default)]
struct Store {
    results: HashMap<TaskId, (u64, ResultMeta)>,
    /// Insertion order, for eviction.
    order: BTreeMap<u64, TaskId>,
    next: u64,
    watchers: HashMap<TaskId, Vec<Mailbox>>,
    groups: HashMap<GroupId, ResultTuple>,
    chords: HashMap<GroupId, Chord>,
}

#[derive(Debug, Default)]
struct Chord {
    size: Option<u64>,
    grown: i64,
    /// By index (`u32::MAX + 1` without one), then by order of arrival.
    members: BTreeMap<(u64, usize), ChordMember>,
    claim: Option<String>,
    done: bool,
}

impl MemoryBackend {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T: Send + 'static>(&self, answer: impl FnOnce(&mut Store) -> T) -> Answer<'static, T> {
        let value = answer(&mut self.lock());
        Box::pin(std::future::ready(Ok(value)))
    }
}

impl Store {
    fn store(&mut self, meta: &ResultMeta) {
        let id = &meta.task_id;
        let old = self.results.get(id);
        if old.is_some_and(|(_, old)| old.status == TaskState::Success) {
            return;
        }
        if let Some((at, _)) = old {
            self.order.remove(at);
        }
        self.next += 1;
        self.order.insert(self.next, id.clone());
        self.results.insert(id.clone(), (self.next, meta.clone()));
        if self.results.len() > CAPACITY
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.results.remove(&oldest);
        }
        if let Some(watchers) = self.watchers.get_mut(id) {
            let bytes = meta.encode();
            watchers.retain(|watcher| watcher.put(meta.clone(), &bytes));
            if watchers.is_empty() {
                self.watchers.remove(id);
            }
        }
    }

    fn chord_part(&mut self, part: &ChordPart) -> ChordProgress {
        let chord = self.chords.entry(part.group.clone()).or_default();
        if chord.done {
            return ChordProgress::Late;
        }
        if !chord.members.values().any(|member| member.task == part.task) {
            let index = part.index.map_or(u64::from(u32::MAX) + 1, u64::from);
            let member = ChordMember {
                task: part.task.clone(),
                state: part.state.clone(),
                result: part.result.clone(),
            };
            chord.members.insert((index, chord.members.len()), member);
        }
        let done = chord.members.len() as u64;
        let total = chord.size.map(|size| size.saturating_add_signed(chord.grown));
        match total {
            Some(total) if total == done && chord.claim.as_ref().is_none_or(|held| *held == part.token) => {
                chord.claim = Some(part.token.clone());
                ChordProgress::Claimed(ChordClaim { group: part.group.clone(), token: part.token.clone() })
            }
            Some(total) if total == done => ChordProgress::Taken,
            total => ChordProgress::Waiting { done, total },
        }
    }

    fn owned(&mut self, claim: &ChordClaim) -> Option<&mut Chord> {
        let chord = self.chords.get_mut(&claim.group)?;
        (chord.claim.as_ref() == Some(&claim.token)).then_some(chord)
    }
}

impl ResultBackend for MemoryBackend {
    fn store_many<'a>(&'a self, metas: &'a [ResultMeta]) -> Answer<'a, ()> {
        self.answer(|store| metas.iter().for_each(|meta| store.store(meta)))
    }

    fn get<'a>(&'a self, id: &'a TaskId) -> Answer<'a, Option<ResultMeta>> {
        self.answer(|store| store.results.get(id).map(|(_, meta)| meta.clone()))
    }

    fn get_many<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, Vec<Option<ResultMeta>>> {
        self.answer(|store| {
            ids.iter().map(|id| store.results.get(id).map(|(_, meta)| meta.clone())).collect()
        })
    }

    fn watch<'a>(&'a self, id: &'a TaskId) -> Answer<'a, BoxStream<'static, ResultMeta>> {
        self.answer(|store| {
            let (mailbox, watch) = Mailbox::new(|| {});
            let wanted = match store.results.get(id) {
                Some((_, meta)) => mailbox.put(meta.clone(), &meta.encode()),
                None => true,
            };
            if wanted {
                store.watchers.entry(id.clone()).or_default().push(mailbox);
            }
            Box::pin(watch) as BoxStream<'static, ResultMeta>
        })
    }

    fn forget<'a>(&'a self, id: &'a TaskId) -> Answer<'a, ()> {
        self.answer(|store| {
            if let Some((at, _)) = store.results.remove(id) {
                store.order.remove(&at);
            }
        })
    }

    fn store_group<'a>(&'a self, group: &'a ResultTuple) -> Answer<'a, ()> {
        self.answer(|store| {
            store.groups.insert(GroupId::from(group.id.clone()), group.clone());
        })
    }

    fn get_group<'a>(&'a self, id: &'a GroupId) -> Answer<'a, Option<ResultTuple>> {
        self.answer(|store| store.groups.get(id).cloned())
    }

    fn forget_group<'a>(&'a self, id: &'a GroupId) -> Answer<'a, ()> {
        self.answer(|store| drop(store.groups.remove(id)))
    }

    fn chord_start<'a>(&'a self, group: &'a GroupId, size: u64) -> Answer<'a, ()> {
        self.answer(|store| {
            let chord = store.chords.entry(group.clone()).or_default();
            (chord.size, chord.claim, chord.done) = (Some(size), None, false);
        })
    }

    fn chord_grow<'a>(&'a self, group: &'a GroupId, by: i64) -> Answer<'a, ()> {
        self.answer(|store| store.chords.entry(group.clone()).or_default().grown += by)
    }

    fn chord_part<'a>(&'a self, part: &'a ChordPart) -> Answer<'a, ChordProgress> {
        self.answer(|store| store.chord_part(part))
    }

    fn chord_results<'a>(&'a self, group: &'a GroupId) -> Answer<'a, Vec<ChordMember>> {
        self.answer(|store| {
            store.chords.get(group).map(|chord| chord.members.values().cloned().collect()).unwrap_or_default()
        })
    }

    fn chord_extend<'a>(&'a self, claim: &'a ChordClaim, _seconds: u64) -> Answer<'a, bool> {
        self.answer(|store| store.owned(claim).is_some())
    }

    fn chord_release<'a>(&'a self, claim: &'a ChordClaim) -> Answer<'a, ()> {
        self.answer(|store| {
            if let Some(chord) = store.owned(claim) {
                chord.claim = None;
            }
        })
    }

    fn chord_done<'a>(&'a self, claim: &'a ChordClaim) -> Answer<'a, ()> {
        self.answer(|store| {
            if let Some(chord) = store.owned(claim) {
                *chord = Chord { done: true, ..Chord::default() };
            }
        })
    }

    fn chord_abort<'a>(&'a self, group: &'a GroupId) -> Answer<'a, ()> {
        self.answer(|store| {
            if let Some(chord) = store.chords.get_mut(group) {
                chord.size = None;
            }
        })
    }

    fn ping(&self) -> Answer<'_, ()> {
        self.answer(|_| ())
    }

    fn submissions(&self) -> Option<Arc<dyn SubmissionIndex>> {
        Some(Arc::new(self.submissions.clone()))
    }

    fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        Some(Arc::new(self.cluster.clone()))
    }

    fn fenced(&self) -> Option<Arc<dyn Fenced>> {
        Some(Arc::new(self.fenced.clone()))
    }

    fn notes(&self) -> Option<Arc<dyn Notes>> {
        Some(Arc::new(self.notes.clone()))
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}
