//! Digest, time and memory of one index of the crate.
use crate::workload::{Workload, read};
use crate::{cpu_seconds, heap, quantile_us};
use dynamo_kv_router::protocols::*;
use dynamo_kv_router::{ConcurrentRadixTreeCompressed, RadixTree, ThreadPoolIndexer};
use std::hint::black_box;
use std::time::Instant;

enum Index {
    Radix(RadixTree),
    Compressed(ThreadPoolIndexer<ConcurrentRadixTreeCompressed>, tokio::runtime::Runtime),
}

impl Index {
    fn new(kind: &str) -> Index {
        if kind == "radix" {
            return Index::Radix(RadixTree::new());
        }
        let threads = kind.strip_prefix("compressed-").expect("radix or compressed-N").parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Index::Compressed(ThreadPoolIndexer::new(ConcurrentRadixTreeCompressed::new(), threads, 16), runtime)
    }

    /// Applies events and waits until all are.
    fn apply(&mut self, events: impl IntoIterator<Item = RouterEvent>) {
        match self {
            Index::Radix(tree) => events.into_iter().for_each(|event| {
                // A refusal is for the digest to show.
                let _ = tree.apply_event(event);
            }),
            Index::Compressed(pool, runtime) => {
                events.into_iter().for_each(|event| pool.enqueue_event(event).unwrap());
                runtime.block_on(pool.flush());
            }
        }
    }

    fn find(&self, query: &[LocalBlockHash]) -> OverlapScores {
        match self {
            Index::Radix(tree) => tree.find_matches(query.to_vec(), false),
            Index::Compressed(pool, _) => pool.backend().find_matches_impl(query, false),
        }
    }
}

/// Number of matches and two sums over all (query, rank, depth), in any order; `bench/index/digest.ts` does the same.
fn sums(index: &Index, load: &Workload) -> String {
    let (mut count, mut first, mut second) = (0u32, 0u32, 0u32);
    for (number, query) in load.queries.iter().enumerate() {
        for (worker, &depth) in &index.find(query).scores {
            if depth == 0 {
                continue;
            }
            let mut mixed = (number as u32 + 1).wrapping_mul(0x9e37_79b1) ^ (worker.worker_id as u32 + 1).wrapping_mul(0x85eb_ca77);
            mixed = (mixed ^ mixed >> 15).wrapping_mul(0xc2b2_ae3d) ^ depth.wrapping_mul(0x27d4_eb2f);
            mixed = (mixed ^ mixed >> 13).wrapping_mul(0x1656_67b1);
            count += 1;
            first = first.wrapping_add(mixed);
            second = second.wrapping_add(mixed.rotate_left(11).wrapping_mul(depth));
        }
    }
    format!("[{count},{first},{second}]")
}

pub fn digest(kind: &str, file: &str) {
    let load = read(file);
    let mut index = Index::new(kind);
    index.apply(load.stores.events());
    let stored = sums(&index, &load);
    let (removals, restores): (Vec<_>, Vec<_>) =
        load.churn.events().into_iter().partition(|event| matches!(event.event.data, KvCacheEventData::Removed(_)));
    index.apply(removals);
    let evicted = sums(&index, &load);
    index.apply(restores);
    let restored = sums(&index, &load);
    index.apply(load.cuts.events());
    println!("{{\"stored\":{stored},\"evicted\":{evicted},\"restored\":{restored},\"cut\":{}}}", sums(&index, &load));
}

pub fn time(kind: &str, file: &str) {
    let load = read(file);
    let mut index = Index::new(kind);
    let mut store = f64::INFINITY;
    for pass in 0..if load.stores.blocks < 500_000 { 8 } else { 1 } {
        if pass > 0 {
            index = Index::new(kind);
        }
        let events = load.stores.events();
        let begin = cpu_seconds();
        index.apply(events);
        store = store.min(cpu_seconds() - begin);
    }
    let mut find = f64::INFINITY;
    for _ in 0..4 {
        let begin = cpu_seconds();
        for query in &load.queries {
            black_box(index.find(query));
        }
        find = find.min(cpu_seconds() - begin);
    }
    let mut calls: Vec<u64> = load.queries.iter().map(|query| {
        let begin = Instant::now();
        black_box(index.find(query));
        begin.elapsed().as_nanos() as u64
    }).collect();
    calls.sort_unstable();
    let mut churn = f64::INFINITY;
    for _ in 0..6 {
        let events = load.churn.events();
        let begin = cpu_seconds();
        index.apply(events);
        churn = churn.min(cpu_seconds() - begin);
    }
    let per_block = |seconds: f64, blocks: usize| 1e9 * seconds / blocks as f64;
    println!(
        "{{\"storeNsPerBlock\":{},\"findUs\":{},\"findP50Us\":{},\"findP99Us\":{},\"churnNsPerBlock\":{}}}",
        per_block(store, load.stores.blocks), 1e6 * find / load.queries.len() as f64, quantile_us(&calls, 0.5), quantile_us(&calls, 0.99),
        per_block(churn, load.churn.blocks),
    );
}

pub fn memory(kind: &str, file: &str) {
    let load = read(file);
    heap::start();
    let before = heap::live();
    let mut index = Index::new(kind);
    index.apply(load.stores.events());
    println!("{{\"bytes\":{},\"ranks\":{}}}", heap::live() - before, load.ranks);
}
