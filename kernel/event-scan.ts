// KV events in the one MessagePack encoding that Dynamo gives them (AssemblyScript), from bytes to flat words.
//
// Anything else ends the scan, and the host reads the payload in general. The host owns the memory: it lays the payload
// there with 512 bytes behind it, and gives room for the records. Names are compared as words, the last one overlapping the
// one before; after each word stands what it is in text.

/** Bytes of an event's record, as `src/dynamo/wire/kv-event-batch.ts` describes it. */
const recordBytes: usize = 48
const plainBlockBytes: usize = 57

/** What `integer` has read. */
let value: u64 = 0

// @ts-ignore: decorator
@inline
function swapped(at: usize): v128 {
  const bytes = v128.load64_zero(at)
  return i8x16.shuffle(bytes, bytes, 7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0)
}

/** Reads an unsigned integer into `value`; returns the address behind it, 0 for anything else. */
function integer(at: usize): usize {
  const first = load<u8>(at)
  if (first < 0x80) { value = first; return at + 1 }
  if (first === 0xcf) { value = i64x2.extract_lane(swapped(at + 1), 0); return at + 9 }
  if (first === 0xcc) { value = load<u8>(at + 1); return at + 2 }
  if (first === 0xcd) { value = (<u32>load<u8>(at + 1) << 8) | load<u8>(at + 2); return at + 3 }
  if (first === 0xce) { value = bswap<u32>(load<u32>(at + 1)); return at + 5 }
  return 0
}

/** Reads an array header into `value`; as `integer`. */
function arrayHeader(at: usize): usize {
  const first = load<u8>(at)
  if ((first & 0xf0) === 0x90) { value = first & 0x0f; return at + 1 }
  if (first === 0xdc) { value = (<u32>load<u8>(at + 1) << 8) | load<u8>(at + 2); return at + 3 }
  if (first === 0xdd) { value = bswap<u32>(load<u32>(at + 1)); return at + 5 }
  return 0
}

/** Reads the name of a tier into `value`; as `integer`. */
function tierName(at: usize): usize {
  switch (load<u8>(at)) {
    case 0xa6: value = 0; return load<u32>(at) === 0x766564a6 /* .dev */ && load<u32>(at, 3) === 0x65636976 /* vice */ ? at + 7 : 0
    case 0xab: value = 1; return load<u64>(at) === 0x69705f74736f68ab /* .host_pi */ && load<u64>(at, 4) === 0x64656e6e69705f74 /* t_pinned */ ? at + 12 : 0
    case 0xa4: value = 2; return load<u32>(at) === 0x736964a4 /* .dis */ && load<u8>(at, 4) === 0x6b /* k */ ? at + 5 : 0
    case 0xa8: value = 3; return load<u64>(at) === 0x616e7265747865a8 /* .externa */ && load<u8>(at, 8) === 0x6c /* l */ ? at + 9 : 0
    default: return 0
  }
}

/** Reads the residency domain, name and value, into `value`; as `integer`. */
function domain(at: usize): usize {
  if (load<u64>(at) !== 0x6e656469736572b0 /* .residen */ || load<u64>(at, 8) !== 0x69616d6f645f7963 /* cy_domai */) return 0
  if (load<u64>(at, 9) !== 0x6e69616d6f645f79 /* y_domain */) return 0
  at += 17
  if (load<u8>(at) === 0xa6) {
    value = 0
    return load<u32>(at) === 0x726f77a6 /* .wor */ && load<u32>(at, 3) === 0x72656b72 /* rker */ ? at + 7 : 0
  }
  value = 1
  return load<u64>(at) === 0x6f5f6568636163ab /* .cache_o */ && load<u64>(at, 4) === 0x72656e776f5f6568 /* he_owner */ ? at + 12 : 0
}

/** Reads `count` blocks without multimodal content: their names to `hashes`, their local hashes behind. As `integer`. */
function plainBlocks(at: usize, count: usize, hashes: usize): usize {
  const locals = hashes + (count << 3)
  for (; hashes < locals; hashes += 8) {
    if (load<u64>(at) !== 0x5f6b636f6c62aa83 /* ..block_ */ || load<u64>(at, 5) !== 0xcf687361685f6b63 /* ck_hash. */) return 0
    if (load<u64>(at, 21) !== 0x5f736e656b6f74ab /* .tokens_ */ || load<u64>(at, 26) !== 0xcf687361685f736e /* ns_hash. */) return 0
    if (load<u64>(at, 42) !== 0x727478655f6d6dad /* .mm_extr */ || load<u64>(at, 49) !== 0xc06f666e695f6172 /* ra_info. */) return 0
    v128.store64_lane(hashes, swapped(at + 13), 0)
    v128.store64_lane(hashes + (count << 3), swapped(at + 34), 0)
    at += plainBlockBytes
  }
  return at
}

/** Reads a stored event from its parent on into a record; as `integer`, with the number of its hashes in `value`. */
function stored(at: usize, end: usize, record: usize, hashes: usize): usize {
  if (load<u64>(at) !== 0x746e65726170ab83 /* ..parent */ || load<u64>(at, 5) !== 0x687361685f746e65 /* ent_hash */) return 0
  at += 13
  if (load<u8>(at) === 0xc0) at += 1
  else {
    at = integer(at)
    if (at === 0) return 0
    store<u64>(record, value, 24)
    store<u8>(record, 1, 3)
  }
  if (load<u64>(at) !== 0x705f7472617473ae /* .start_p */ || load<u64>(at, 7) !== 0x6e6f697469736f70 /* position */) return 0
  at += 15
  if (load<u8>(at) === 0xc0) at += 1
  else {
    at = integer(at)
    if (at === 0 || value > 0xffffffff) return 0
    store<u32>(record, <u32>value, 32)
    store<u8>(record, load<u8>(record, 3) | 2, 3)
  }
  if (load<u32>(at) !== 0x6f6c62a6 /* .blo */ || load<u32>(at, 3) !== 0x736b636f /* ocks */) return 0
  at = arrayHeader(at + 7)
  if (at === 0 || at > end) return 0
  const count = <usize>value
  if ((end - at) / plainBlockBytes < count) return 0
  value = <u64>count << 1
  store<u32>(record, count, 36)
  return plainBlocks(at, count, hashes)
}

/** As `stored`, from the name of the kind on. */
function removed(at: usize, end: usize, record: usize, hashes: usize): usize {
  if (load<u64>(at, 8) !== 0x6b636f6c62ac8164 /* d..block */ || load<u64>(at, 15) !== 0x7365687361685f6b /* k_hashes */) return 0
  at = arrayHeader(at + 23)
  if (at === 0 || at > end) return 0
  const count = <usize>value
  if ((end - at) / 9 < count) return 0
  store<u8>(record, 1)
  store<u32>(record, count, 36)
  for (const last = hashes + (count << 3); hashes < last; hashes += 8) {
    if (load<u8>(at) !== 0xcf) return 0
    v128.store64_lane(hashes, swapped(at + 1), 0)
    at += 9
  }
  return at
}

/** Reads one event into a zeroed record; as `integer`, with the number of its hashes in `value`. */
function event(at: usize, end: usize, record: usize, hashes: usize): usize {
  const head = load<u64>(at)
  if ((head !== 0x72656b726f77a984 /* ..worker */ && head !== 0x72656b726f77a983) || load<u32>(at, 7) !== 0x64695f72 /* r_id */) return 0
  at = integer(at + 11)
  if (at === 0) return 0
  store<u64>(record, value, 8)
  if (load<u64>(at) !== 0x656761726f7473ac /* .storage */ || load<u64>(at, 5) !== 0x726569745f656761 /* age_tier */) return 0
  at = tierName(at + 13)
  if (at === 0) return 0
  store<u8>(record, <u8>value, 1)
  value = 2
  if (head === 0x72656b726f77a984) {
    at = domain(at)
    if (at === 0) return 0
  }
  store<u8>(record, <u8>value, 2)
  if (load<u64>(at) !== 0xa883746e657665a5 /* .event.. */ || load<u64>(at, 8) !== 0x64695f746e657665 /* event_id */) return 0
  at = integer(at + 16)
  if (at === 0) return 0
  store<u64>(record, value, 16)
  if (load<u32>(at) !== 0x746164a4 /* .dat */ || load<u8>(at, 4) !== 0x61 /* a */) return 0
  at += 5
  const kind = load<u64>(at)
  if (kind === 0x6465726f7473a681 /* ..stored */) at = stored(at + 8, end, record, hashes)
  else if (kind === 0x65766f6d6572a781 /* ..remove */) {
    at = removed(at, end, record, hashes)
    value = load<u32>(record, 36)
  } else if (kind === 0x64657261656c63a7 /* .cleared */) {
    store<u8>(record, 2)
    at += 8
    value = 0
  } else return 0
  if (at === 0 || load<u64>(at) !== 0x6b6e61725f7064a7 /* .dp_rank */) return 0
  const count = value
  at = integer(at + 8)
  if (at === 0 || at > end || value > 0xffffffff) return 0
  store<u32>(record, <u32>value, 4)
  value = count
  return at
}

/**
 * Reads a payload, an array of events in `[at, end)`, into records from `records` on and hashes from `hashes` on, which is
 * where the records may end. Returns the number of events, -1 when any of it is otherwise.
 */
export function scanEvents(at: usize, end: usize, records: usize, hashes: usize): i32 {
  const recordsEnd = hashes
  const hashBase = hashes
  at = arrayHeader(at)
  if (at === 0) return -1
  const count = <usize>value
  if (count > (recordsEnd - records) / recordBytes) return -1
  for (const last = records + count * recordBytes; records < last; records += recordBytes) {
    v128.store(records, i64x2.splat(0))
    v128.store(records, i64x2.splat(0), 16)
    v128.store(records, i64x2.splat(0), 32)
    store<u32>(records, <u32>((hashes - hashBase) >> 2), 40)
    at = event(at, end, records, hashes)
    if (at === 0) return -1
    hashes += <usize>value << 3
  }
  return at === end ? <i32>count : -1
}
