// The prefix comparison of the index (AssemblyScript): how far a query's local hashes follow one edge of the tree.
//
// The host owns the memory: block contents of 12 bytes by id, as `src/index/tree-store.ts` describes them, and the query.

/** Leading blocks, at most `count`, of the edge from block `id` on that equal the 64-bit hashes at `query` (a byte address). */
export function matchRun(id: u32, query: usize, count: u32): u32 {
  const begin = query
  const end = query + (<usize>count << 3)
  while (query < end) {
    let at: usize = <usize>id * 12
    let next: u32
    // Links mostly lead to the neighbour: so foreseen, the next comparison need not wait for the link.
    do {
      if (load<u64>(at, 4) !== load<u64>(query)) return <u32>((query - begin) >> 3)
      next = load<u32>(at)
      id += 1
      at += 12
      query += 8
    } while (next === id && query < end)
    id = next
  }
  return count
}
