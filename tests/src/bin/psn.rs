//! psn, as the tests run it: the same one line as the binary's own main.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    psn::cli::main()
}
