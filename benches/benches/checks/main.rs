//! What psn's checks cost, as ratios in one run: `cargo bench --package psn-benches --bench checks`.
//!
//! Each pair is measured by turns, a batch of the one and a batch of the other, and the medians are compared: another program on the
//! machine slows both down. Figures of different runs are not to be compared.
#![allow(clippy::print_stdout, reason = "the table is the answer")]

mod database;
mod guest;
mod policy;

use std::time::{Duration, Instant};

fn main() {
    // `cargo test --benches` asks only whether it starts.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    println!("{:<78} {:>10} {:>8}", "", "measured", "goal");
    policy::bench();
    runtime.block_on(guest::bench());
    runtime.block_on(database::bench());
}

fn show(what: &str, measured: &str, goal: &str) {
    println!("{what:<78} {measured:>10} {goal:>8}");
}

fn show_ratio(what: &str, ratio: f64, goal: &str) {
    show(what, &format!("{ratio:.2}x"), goal);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let begin = Instant::now();
    std::hint::black_box(work.await);
    begin.elapsed()
}
