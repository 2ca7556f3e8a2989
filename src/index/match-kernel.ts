/** Compares a query with the edges of one tree, in WebAssembly on the tree's own memory. */
import type { HashList } from '../model/hash-list.ts'
import { matchKernelBase64 } from './match-kernel-bytes.ts'
import type { RecordArena } from './record-arena.ts'

interface Exports {
  matchRun(id: number, query: number, count: number): number
}

// The DOM library declares WebAssembly; Node's types do not.
interface WebAssemblyGlobal {
  readonly WebAssembly: {
    readonly Module: new (bytes: Uint8Array) => object
    readonly Instance: new (module: object, imports: object) => { readonly exports: unknown }
  }
}

/** Blocks of a query that lie in the tree's memory at a time. */
const windowBlocks = 4096

/** Records of 12 bytes that the query's window takes at the beginning of the contents. */
export const windowRecords = Math.ceil((8 * windowBlocks) / 12)

let compiled: object | null = null

/** Follows edges of blocks in `contents`, an arena in place whose first `windowRecords` records are left to this. */
export class MatchKernel {
  readonly #contents: RecordArena
  readonly #run: Exports['matchRun']
  #query: HashList = new Uint32Array(0)
  /** First block of the query in the window. */
  #from = 0

  constructor(contents: RecordArena) {
    const { WebAssembly } = globalThis as unknown as WebAssemblyGlobal
    if (contents.memory === null) throw new RangeError('no memory for the prefix index')
    compiled ??= new WebAssembly.Module(Uint8Array.from(atob(matchKernelBase64), (unit) => unit.charCodeAt(0)))
    this.#contents = contents
    this.#run = (new WebAssembly.Instance(compiled, { env: { memory: contents.memory } }).exports as Exports).matchRun
  }

  /** Takes a query; it must stay as it is until the last `run`. */
  begin(query: HashList): void {
    this.#query = query
    this.#load(0)
  }

  #load(from: number): void {
    const query = this.#query
    const end = Math.min(query.length, 2 * (from + windowBlocks))
    this.#contents.words.set(from === 0 && end === query.length ? query : query.subarray(2 * from, end))
    this.#from = from
  }

  /** How many blocks, at most `count`, are equal from block `id` of an edge and from `position` of the query on. */
  run(id: number, position: number, count: number): number {
    let matched = 0
    let at = position
    let block = id
    for (;;) {
      if (at < this.#from || at >= this.#from + windowBlocks) this.#load(at)
      const part = Math.min(count - matched, this.#from + windowBlocks - at)
      const equal = this.#run(block, 8 * (at - this.#from), part)
      matched += equal
      if (equal < part || matched === count) return matched
      // The window ended within an edge.
      at += part
      for (let passed = 0; passed < part; passed += 1) block = this.#contents.ints[3 * block]!
    }
  }
}
