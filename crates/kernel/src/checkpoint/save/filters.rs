//! Seccomp filters, into an image.

use std::sync::Arc;

use moat_image::state::{SeccompFilterState, SeccompState};
use moat_image::{Ref, Refusal};

use super::{Walk, address};
use crate::checkpoint::Configured;
use crate::seccomp::{Filter, Logged, Mode};

impl Walk<'_> {
    pub(super) fn seccomp(&mut self, mode: Option<&Mode>) -> Result<SeccompState, Refusal> {
        Ok(match mode {
            None => SeccompState::None,
            Some(Mode::Strict) => SeccompState::Strict,
            Some(Mode::Filter(filter)) => {
                // The oldest first, as each names the one before it.
                let mut chain = vec![filter];
                while let Some(previous) = chain.last().and_then(|f| f.previous()) {
                    chain.push(previous);
                }
                let mut newest = None;
                for filter in chain.into_iter().rev() {
                    newest = Some(self.filter(filter, newest)?);
                }
                newest.map_or(SeccompState::None, SeccompState::Filter)
            }
        })
    }

    fn filter(
        &mut self,
        filter: &Arc<Filter>,
        previous: Option<Ref<SeccompFilterState>>,
    ) -> Result<Ref<SeccompFilterState>, Refusal> {
        // By the object: a guest may install a program that says the same.
        let profile = |c: &Configured| c.profile.as_ref().is_some_and(|p| Arc::ptr_eq(p, filter));
        let container = (0..).zip(self.containers).find(|(_, c)| profile(c)).map(|(container, _)| container);
        self.filters.save(address(filter), || {
            Ok(match container {
                Some(0) => SeccompFilterState::Profile,
                Some(container) => SeccompFilterState::ProfileOf(container),
                None => {
                    let program = filter.instructions().iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
                    SeccompFilterState::Program { program, log_all: filter.logged() == Logged::All, previous }
                }
            })
        })
    }
}
