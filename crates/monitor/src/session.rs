//! [`Session`]: what is told and to whom; [`Monitor`]: all sessions of a kernel.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_control::session::{SessionConfig, SessionInfo};
use moat_sync::{LockClass, RwLock};

use crate::messages::Event;
use crate::points::{self, Fields, Point};
use crate::sink::Sink;

/// Sessions at a time.
const MAX_SESSIONS: usize = 8;

/// Why there is no session.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionError {
    /// There is one of this name.
    Exists(String),
    /// There is none of this name.
    Missing(String),
    /// The configuration asks for what there is not.
    Invalid(String),
}

impl std::fmt::Display for SessionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SessionError::Exists(name) => write!(f, "there is a trace session {name:?} already"),
            SessionError::Missing(name) => write!(f, "there is no trace session {name:?}"),
            SessionError::Invalid(why) => f.write_str(why),
        }
    }
}

/// What is told, and to whom.
pub struct Session {
    name: String,
    /// For each point what of it is told, if it is.
    points: Vec<Option<Fields>>,
    sinks: Vec<Sink>,
}

/// What each point's fields are by a configuration.
///
/// # Errors
/// A point or field that there is not, unless that is to be passed over.
pub fn check(config: &SessionConfig) -> Result<Vec<Option<Fields>>, SessionError> {
    let mut points = vec![None; points::COUNT];
    for wanted in &config.points {
        let Some(point) = Point::by_name(&wanted.name) else {
            if config.ignore_missing {
                continue;
            }
            return Err(SessionError::Invalid(format!("there is no point {:?}", wanted.name)));
        };
        let mut fields = Fields::empty();
        let context = wanted.context_fields.iter().map(|name| (name, Fields::context_by_name(name), point.context()));
        let optional =
            wanted.optional_fields.iter().map(|name| (name, Fields::optional_by_name(name), point.optional()));
        for (name, field, there) in context.chain(optional) {
            // A field that the point does not have would never be filled: said now, unless it is not to matter.
            match field.filter(|field| there.contains(*field)) {
                Some(field) => fields |= field,
                None if config.ignore_missing => {}
                None => return Err(SessionError::Invalid(format!("point {:?} has no field {name:?}", wanted.name))),
            }
        }
        if let Some(place) = point.index().and_then(|index| points.get_mut(index)) {
            *place = Some(fields);
        }
    }
    Ok(points)
}

impl Session {
    /// A session; each sink but "null" takes one of `files`, in order: a socket whose handshake is done, or a file. A sink that was to be
    /// done without is not in the configuration any more.
    ///
    /// # Errors
    /// See [`check`]; a kind of sink that there is not, or files that do not fit.
    pub fn new(config: &SessionConfig, files: Vec<OwnedFd>) -> Result<Session, SessionError> {
        let points = check(config)?;
        let mut files = files.into_iter();
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            // Files come in the order of the sinks that need one.
            let mut file =
                || files.next().ok_or_else(|| SessionError::Invalid(format!("sink {:?} has no file", sink.name)));
            sinks.push(match sink.name.as_str() {
                "remote" => Sink::remote(file()?),
                "file" => Sink::file(file()?),
                "null" => Sink::null(),
                other => return Err(SessionError::Invalid(format!("there is no sink {other:?}"))),
            });
        }
        let name = if config.name.is_empty() { "Default".to_owned() } else { config.name.clone() };
        Ok(Session { name, points, sinks })
    }

    fn fields(&self, index: usize) -> Option<Fields> {
        self.points.get(index).copied().flatten()
    }

    fn info(&self) -> SessionInfo {
        SessionInfo { name: self.name.clone(), sinks: self.sinks.iter().map(Sink::info).collect() }
    }
}

/// The sessions of a kernel.
pub struct Monitor {
    /// Whether there is any: all that it costs when there is none.
    on: AtomicBool,
    state: RwLock<Arc<SessionsState>>,
}

/// Sessions at a time.
#[derive(Default)]
struct SessionsState {
    sessions: Vec<Arc<Session>>,
    /// For each point, the fields that any of them asks for, if one does.
    points: Vec<Option<Fields>>,
}

impl SessionsState {
    fn new(sessions: Vec<Arc<Session>>) -> SessionsState {
        let union = |index: usize| {
            let fields = sessions.iter().filter_map(|session| session.fields(index));
            fields.reduce(|all, more| all | more)
        };
        SessionsState { points: (0..points::COUNT).map(union).collect(), sessions }
    }
}

impl Default for Monitor {
    fn default() -> Monitor {
        Monitor { on: AtomicBool::new(false), state: RwLock::new(LockClass::Leaf, Arc::default()) }
    }
}

/// What happens to a session of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// It stays, and the new one is refused.
    Refuse,
    /// It is deleted.
    Replace,
}

impl Monitor {
    /// Whether anybody wants to know of anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// What somebody wants to know of `point`, if anybody does: of several sessions, what any asks for.
    #[must_use]
    pub fn wanted(&self, point: Point) -> Option<Fields> {
        if !self.is_on() {
            return None;
        }
        self.state.read().points.get(point.index()?).copied().flatten()
    }

    /// Tells those of `event` who want to know of `point`. Never waits.
    pub fn tell(&self, point: Point, event: &Event) {
        let Some(index) = point.index() else { return };
        // A session that is deleted meanwhile hears of it all the same.
        let state = self.state.read().clone();
        let asked = state.sessions.iter().filter(|session| session.fields(index).is_some());
        asked.flat_map(|session| &session.sinks).for_each(|sink| sink.tell(point, event));
    }

    /// Adds a session.
    ///
    /// # Errors
    /// There is one of that name, or there are too many.
    pub fn add(&self, session: Session, conflict: Conflict) -> Result<(), SessionError> {
        self.change(|sessions| {
            let other = sessions.iter().position(|other| other.name == session.name);
            match (other, conflict) {
                (Some(_), Conflict::Refuse) => return Err(SessionError::Exists(session.name.clone())),
                (Some(other), Conflict::Replace) => {
                    sessions.remove(other);
                }
                // Each makes every call that it wants slower, and has queues of its own.
                (None, _) if sessions.len() >= MAX_SESSIONS => {
                    return Err(SessionError::Invalid(format!("there are {MAX_SESSIONS} trace sessions already")));
                }
                (None, _) => {}
            }
            sessions.push(Arc::new(session));
            Ok(())
        })
    }

    /// Ends a session; whoever is telling it something may still do so.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove(&self, name: &str) -> Result<(), SessionError> {
        self.change(|sessions| {
            let at = sessions.iter().position(|session| session.name == name);
            at.map(|at| drop(sessions.remove(at))).ok_or_else(|| SessionError::Missing(name.to_owned()))
        })
    }

    /// The sessions.
    #[must_use]
    pub fn list(&self) -> Vec<SessionInfo> {
        let state = self.state.read().clone();
        state.sessions.iter().map(|session| session.info()).collect()
    }

    /// Ends all sessions, and waits until files have what was told.
    pub async fn finish(&self) {
        let mut lines = Vec::new();
        // No error: all of them go.
        let _ = self.change(|sessions| {
            lines.extend(sessions.iter().flat_map(|session| &session.sinks).filter_map(Sink::lines));
            sessions.clear();
            Ok(())
        });
        for lines in lines {
            lines.written().await;
        }
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Arc<Session>>) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let mut place = self.state.write();
        let mut sessions = place.sessions.clone();
        change(&mut sessions)?;
        self.on.store(!sessions.is_empty(), Ordering::Relaxed);
        let old = std::mem::replace(&mut *place, Arc::new(SessionsState::new(sessions)));
        drop(place);
        // Sinks close their descriptors and wake their writers.
        drop(old);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Fork;
    use moat_control::session::{PointConfig, SinkConfig};

    fn config(name: &str, points: &[(&str, &[&str])]) -> SessionConfig {
        let point = |(name, fields): &(&str, &[&str])| PointConfig {
            name: (*name).to_owned(),
            context_fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            ..PointConfig::default()
        };
        let null = SinkConfig { name: "null".into(), ..SinkConfig::default() };
        SessionConfig {
            name: name.to_owned(),
            points: points.iter().map(point).collect(),
            sinks: vec![null],
            ..SessionConfig::default()
        }
    }

    #[test]
    fn sessions_come_and_go() {
        let monitor = Monitor::default();
        let fork = Point::by_name("syscall/fork/enter").unwrap();
        assert!(!monitor.is_on() && monitor.wanted(fork).is_none());
        let session =
            |name: &str| Session::new(&config(name, &[("syscall/fork/enter", &["time"])]), Vec::new()).unwrap();
        monitor.add(session(""), Conflict::Refuse).unwrap();
        assert_eq!(monitor.add(session("Default"), Conflict::Refuse), Err(SessionError::Exists("Default".into())));
        let more = config("b", &[("syscall/fork/enter", &["cwd"])]);
        monitor.add(Session::new(&more, Vec::new()).unwrap(), Conflict::Refuse).unwrap();
        assert_eq!(monitor.wanted(fork), Some(Fields::TIME | Fields::CWD));
        assert_eq!(monitor.wanted(Point::Clone), None);
        monitor.tell(fork, &Event::Fork(Fork::default()));
        monitor.tell(Point::Clone, &Event::Fork(Fork::default()));
        assert_eq!(
            monitor.list().iter().map(|s| (s.name.as_str(), s.sinks[0].sent)).collect::<Vec<_>>(),
            [("Default", 1), ("b", 1)]
        );
        monitor.add(session("b"), Conflict::Replace).unwrap();
        assert_eq!(monitor.list()[1].sinks[0].sent, 0);
        for name in ["b", "Default"] {
            monitor.remove(name).unwrap();
        }
        assert!(!monitor.is_on() && monitor.list().is_empty());
        assert_eq!(monitor.remove("b"), Err(SessionError::Missing("b".into())));
        (0..MAX_SESSIONS).for_each(|n| monitor.add(session(&n.to_string()), Conflict::Refuse).unwrap());
        assert!(matches!(monitor.add(session("more"), Conflict::Refuse), Err(SessionError::Invalid(_))));
    }

    #[test]
    fn what_there_is_not_is_refused_or_passed_over() {
        for points in [
            &[("sentry/none", &[][..])],
            &[("sentry/clone", &["fd_path"][..])],
            &[("sentry/exit_notify_parent", &["cwd"][..])],
        ] {
            let config = config("a", points);
            assert!(matches!(check(&config), Err(SessionError::Invalid(_))), "{points:?}");
            check(&SessionConfig { ignore_missing: true, ..config }).unwrap();
        }
        let mut odd = config("a", &[]);
        odd.sinks[0].name = "remote".into();
        assert!(matches!(Session::new(&odd, Vec::new()), Err(SessionError::Invalid(_))));
    }
}
