//! The counterpart of the index and decision benchmarks: `dynamo-kv-router` 1.6.1 over the same workload files.
//!
//!   digest KIND FILE        what every query finds, in each state of the workload
//!   time KIND FILE          CPU time of store, find and churn
//!   memory KIND FILE        live heap bytes after the store phase
//!   decide WORKERS TOKENS   select, reserve and free one prompt again and again
//!
//! KIND is `radix` or `compressed-N` (N event threads). Every command prints one line of JSON.
mod decide;
mod heap;
mod index;
mod workload;

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The value at a share of sorted nanoseconds, in microseconds.
fn quantile_us(sorted: &[u64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize] as f64 / 1e3
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["digest", kind, file] => index::digest(kind, file),
        ["time", kind, file] => index::time(kind, file),
        ["memory", kind, file] => index::memory(kind, file),
        ["decide", workers, tokens] => decide::run(workers.parse().unwrap(), tokens.parse().unwrap()),
        _ => panic!("usage: digest|time|memory KIND FILE, or decide WORKERS TOKENS"),
    }
    // Event threads are not waited for.
    std::process::exit(0);
}
