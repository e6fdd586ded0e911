//! Roles, and the one table of which action needs which of them.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// What somebody may do. Each role may also do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Run tasks again, revoke them, pause queues: what can be made good.
    Operator,
    /// Also what can't: shut workers down, purge queues.
    Admin,
}

impl Role {
    /// As it is written in settings and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not viewer, operator or admin")]
pub struct NotARole;

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Role, NotARole> {
        [Role::Viewer, Role::Operator, Role::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(NotARole)
    }
}

macro_rules! actions {
    ($($action:ident $name:literal $role:ident,)+) => {
        /// Something that changes workers, queues or tasks, or shows what not everybody may see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum Action { $($action,)+ }

        impl Action {
            /// Every action.
            pub const ALL: &[Action] = &[$(Action::$action,)+];

            /// Its name in addresses, JSON and the audit log.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Action::$action => $name,)+ }
            }

            /// The least role that may do it.
            #[must_use]
            pub fn role(self) -> Role {
                match self { $(Action::$action => Role::$role,)+ }
            }
        }
    };
}

actions! {
    TaskSend "task.send" Operator,
    TaskRetry "task.retry" Operator,
    TaskRevoke "task.revoke" Operator,
    TaskAbort "task.abort" Operator,
    TaskRateLimit "task.rate_limit" Operator,
    TaskTimeLimit "task.time_limit" Operator,
    QueuePause "queue.pause" Operator,
    QueueResume "queue.resume" Operator,
    QueuePurge "queue.purge" Admin,
    AddConsumer "worker.add_consumer" Operator,
    CancelConsumer "worker.cancel_consumer" Operator,
    DeadLetterRequeue "dead_letter.requeue" Operator,
    DeadLetterDrop "dead_letter.drop" Admin,
    WorkerShutdown "worker.shutdown" Admin,
    PoolRestart "worker.pool_restart" Admin,
    PoolGrow "worker.pool_grow" Admin,
    PoolShrink "worker.pool_shrink" Admin,
    Autoscale "worker.autoscale" Admin,
    ScheduleRun "schedule.run" Operator,
    ScheduleEnable "schedule.enable" Operator,
    ScheduleDisable "schedule.disable" Operator,
    ScheduleEdit "schedule.edit" Admin,
    ScheduleRevert "schedule.revert" Admin,
}

impl Action {
    /// The action of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Action> {
        Action::ALL.iter().copied().find(|action| action.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_include_those_below_them() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn nobody_who_may_only_look_can_change_anything() {
        for action in Action::ALL {
            assert!(action.role() >= Role::Operator, "{}", action.name());
            assert_eq!(Action::named(action.name()), Some(*action));
        }
        assert_eq!(Action::QueuePurge.role(), Role::Admin);
        assert_eq!(Action::named("worker"), None);
    }
}
