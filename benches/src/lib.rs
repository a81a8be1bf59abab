//! Only benchmarks live here: `just bench`.
#![forbid(unsafe_code)]
