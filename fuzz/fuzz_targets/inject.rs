#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| psn::invariants::check("inject", data));
