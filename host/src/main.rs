//! The command line. All it does is in the library; here the process begins and ends.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    psn::cli::main()
}
