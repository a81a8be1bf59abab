//! psn's worker: `psn cloud-run` alone, without a compiler. All it does is in the library.
#![forbid(unsafe_code)]

use psn::worker::{MARKER_LEN, marker};

/// How psn knows this program, and of which build it is, by its bytes alone.
static MARKER: [u8; MARKER_LEN] = marker();

fn main() -> std::process::ExitCode {
    // Otherwise nothing refers to it, and it is left out.
    std::hint::black_box(&MARKER);
    psn::cli::worker::main()
}
