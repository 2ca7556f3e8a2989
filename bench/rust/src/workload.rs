//! Reads a workload file (`bench/index/workload.ts` writes it and describes the format).
use dynamo_kv_router::protocols::*;

pub struct Workload {
    pub ranks: u32,
    pub stores: Words,
    pub churn: Words,
    pub cuts: Words,
    pub queries: Vec<Vec<LocalBlockHash>>,
}

/// Encoded events of one phase.
pub struct Words {
    pub events: usize,
    pub blocks: usize,
    words: Vec<u32>,
}

struct Reader<'a> {
    words: &'a [u32],
    at: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> u32 {
        self.at += 1;
        self.words[self.at - 1]
    }
    fn hash(&mut self) -> u64 {
        let low = u64::from(self.word());
        low | u64::from(self.word()) << 32
    }
    fn hashes(&mut self, count: u32) -> Vec<u64> {
        (0..count).map(|_| self.hash()).collect()
    }
}

impl Words {
    /// The events as the crate takes them, made outside of any timing.
    pub fn events(&self) -> Vec<RouterEvent> {
        let mut reader = Reader { words: &self.words, at: 0 };
        (0..self.events as u64).map(|event_id| event(&mut reader, event_id)).collect()
    }
}

fn event(reader: &mut Reader, event_id: u64) -> RouterEvent {
    let (kind, rank, count, has_parent) = (reader.word(), reader.word(), reader.word(), reader.word());
    let parent = reader.hash();
    let names = reader.hashes(count).into_iter().map(ExternalSequenceBlockHash);
    let data = if kind == 1 {
        KvCacheEventData::Removed(KvCacheRemoveData { block_hashes: names.collect() })
    } else {
        let contents = reader.hashes(count).into_iter().map(LocalBlockHash);
        KvCacheEventData::Stored(KvCacheStoreData {
            parent_hash: (has_parent == 1).then_some(ExternalSequenceBlockHash(parent)),
            start_position: None,
            blocks: names
                .zip(contents)
                .map(|(block_hash, tokens_hash)| KvCacheStoredBlockData { block_hash, tokens_hash, mm_extra_info: None })
                .collect(),
        })
    };
    RouterEvent::new(u64::from(rank), KvCacheEvent { event_id, data, dp_rank: 0 })
}

pub fn read(path: &str) -> Workload {
    let bytes = std::fs::read(path).expect("the workload file");
    let words: Vec<u32> = bytes.chunks_exact(4).map(|part| u32::from_le_bytes(part.try_into().unwrap())).collect();
    assert_eq!(words[0], 0x3142_5057, "not a workload file");
    let ranks = words[1];
    let mut at = 16;
    let mut phase = |header: usize| {
        let length = words[header + 2] as usize;
        at += length;
        Words { events: words[header] as usize, blocks: words[header + 1] as usize, words: words[at - length..at].to_vec() }
    };
    let (stores, churn, cuts) = (phase(4), phase(7), phase(10));
    let mut reader = Reader { words: &words, at };
    let queries = (0..words[3])
        .map(|_| {
            let count = reader.word();
            reader.hashes(count).into_iter().map(LocalBlockHash).collect()
        })
        .collect();
    Workload { ranks, stores, churn, cuts, queries }
}
