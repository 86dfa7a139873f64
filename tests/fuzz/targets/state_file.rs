#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kvmha::fuzzed::state_file(data));
