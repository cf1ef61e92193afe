#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| moat_fuzz::sockets::rtnetlink(data));
