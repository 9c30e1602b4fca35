#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volt_tests::fuzzing::run("procedure", bytes));
