#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shoal_fuzz::people::people_groups(data));
