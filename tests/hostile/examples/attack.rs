//! Runs the suite against another psn than the one it is built into: `cargo run -p psn-hostile --example attack -- PSN [ID]…`
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a command for people")]
async fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        println!("attack PSN [ID]…");
        return ExitCode::from(2);
    };
    let only = args.map(|a| a.to_string_lossy().into_owned()).collect();
    let options = psn_hostile::Options { program: program.into(), only, limit: Duration::from_secs(3600) };
    let mut tell = |row: &psn_hostile::Row| {
        println!("{} {:6} ms {:28} {}", if row.held { "held  " } else { "FAILED" }, row.ms, row.id, row.observed);
    };
    match psn_hostile::run(&options, &mut tell).await {
        Ok(rows) if rows.iter().all(|row| row.held) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}
