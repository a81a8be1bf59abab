//! psn, as the tests run it: the same one line as the binary's own main, and before it what can kill it at a point that a test names.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    psn_tests::points::watch_as_told();
    psn::cli::main()
}
