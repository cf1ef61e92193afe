//! Places in the code for calls, by which a handler of a signal tells how far a call has come (`interrupted.rs`).

unsafe extern "C" {
    pub safe fn call_landings();
    pub safe fn call_landings_end();
    pub safe fn call_probe();
    pub safe fn call_framed();
    pub safe fn call_saved();
    pub safe fn call_flags();
    pub safe fn call_loads();
    pub safe fn call_stored();
    pub safe fn call_own();
    pub safe fn call_owned();
    pub safe fn call_own_ends();
    pub safe fn call_unanswered();
    pub safe fn call_takes();
    pub safe fn call_reads();
    pub safe fn call_asks();
    pub safe fn call_commit();
    pub safe fn call_rang();
    pub safe fn call_replied();
    pub safe fn call_taken();
    pub safe fn call_gives();
    pub safe fn call_copies();
    pub safe fn call_resume();
    pub safe fn call_resume_end();
    pub safe fn call_begins();
    pub safe fn call_begun();
    pub safe fn call_begun_end();
    pub safe fn call_kicked();
    pub safe fn call_frame();
    pub safe fn call_order_loads();
    pub safe fn call_order();
    pub safe fn call_order_made();
    pub safe fn call_end();
}

/// The address of a label.
macro_rules! label {
    ($name:ident) => {
        $crate::raw::address($crate::call::$name as *const ())
    };
}
pub(crate) use label;
