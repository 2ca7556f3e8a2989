//! A whole decision by the crate's selection core: hash, look up, weigh, reserve, free.
use crate::{cpu_seconds, quantile_us};
use dynamo_kv_router::identity::RoutingPartitionId;
use dynamo_kv_router::indexer::KvIndexerInterface;
use dynamo_kv_router::protocols::*;
use dynamo_kv_router::services::indexer::backend::Indexer;
use dynamo_kv_router::services::selection::{PromptRequest, SelectAndReserveRequest, SelectionCacheConfig, SelectionCore, WorkerRequest};
use dynamo_kv_router::{KvRouterConfig, WorkerSelectionPolicy};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

const BLOCK_SIZE: u32 = 16;

fn request(selection_id: &str, tokens: &[u32]) -> SelectAndReserveRequest {
    SelectAndReserveRequest {
        model_name: "default".into(),
        routing_group: "default".into(),
        selection_id: Some(selection_id.into()),
        prompt: PromptRequest { token_ids: Some(tokens.to_vec()), ..PromptRequest::default() },
        router_config_override: None,
        expected_output_tokens: None,
        priority_jump: None,
        strict_priority: None,
        session_id: None,
        session_context: None,
        affinity_target: None,
        pinned_worker: None,
        allowed_worker_ids: None,
        routing_constraints: RoutingConstraints::default(),
    }
}

async fn prepared(workers: u64, tokens: &[u32]) -> SelectionCore {
    let config = KvRouterConfig { use_kv_events: true, router_queue_threshold: None, ..KvRouterConfig::default() };
    let core = SelectionCore::try_new_local(
        config, 1, CancellationToken::new(), SelectionCacheConfig::default(),
        Arc::new(|config, role, _| WorkerSelectionPolicy::reference(config.clone(), role.default_selector_label())),
    ).unwrap();
    for worker_id in 1..=workers {
        core.upsert_worker(WorkerRequest {
            worker_id,
            endpoint: Some(format!("http://worker-{worker_id}:8000")),
            kv_events_endpoint: Some(format!("tcp://127.0.0.1:{}", 30_000 + worker_id)),
            block_size: Some(BLOCK_SIZE),
            max_num_batched_tokens: Some(8192),
            ..WorkerRequest::default()
        }).await.unwrap();
    }
    let contents = compute_block_hash_for_seq(tokens, BLOCK_SIZE, BlockHashOptions::default());
    let names = compute_seq_hash_for_block(&contents);
    let partition = core.partition(&RoutingPartitionId::new("default", "default")).unwrap();
    let indexer = partition.indexer().clone();
    // The later a worker, the more of the prompt it holds.
    for worker in 1..=workers {
        let held = (contents.len() * worker as usize / workers as usize).max(1);
        let blocks = (0..held)
            .map(|at| KvCacheStoredBlockData { block_hash: ExternalSequenceBlockHash(names[at]), tokens_hash: contents[at], mm_extra_info: None })
            .collect();
        let data = KvCacheEventData::Stored(KvCacheStoreData { parent_hash: None, start_position: None, blocks });
        indexer.apply_event_routed(RouterEvent::new(worker, KvCacheEvent { event_id: 1, dp_rank: 0, data })).await.unwrap();
    }
    if let Indexer::Single { primary, .. } = &indexer {
        primary.flush().await;
    }
    core
}

pub fn run(workers: u64, prompt: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tokens: Vec<u32> = (0..prompt).map(|at| at.wrapping_mul(2_654_435_761) % 150_000).collect();
    let core = runtime.block_on(prepared(workers, &tokens));
    let calls = (2_000_000 / (prompt as usize + 100 * workers as usize)).clamp(800, 10_000);
    let warm = calls / 4;
    let mut times = Vec::with_capacity(calls);
    let mut spent = 0.0;
    for call in 0..calls + warm {
        let id = format!("request-{call}");
        let request = request(&id, &tokens);
        let (cpu, begin) = (cpu_seconds(), Instant::now());
        runtime.block_on(async {
            core.select_and_reserve(request).await.unwrap();
            core.free_reservation(&id).await.unwrap();
        });
        let elapsed = begin.elapsed().as_nanos() as u64;
        if call >= warm {
            times.push(elapsed);
            spent += cpu_seconds() - cpu;
        }
    }
    times.sort_unstable();
    println!("{{\"cpuUs\":{},\"p50Us\":{},\"p99Us\":{}}}", 1e6 * spent / calls as f64, quantile_us(&times, 0.5), quantile_us(&times, 0.99));
}
