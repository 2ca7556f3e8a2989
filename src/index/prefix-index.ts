/** The prefix index of one pool. */
import type { ApproximatePrefixIndex, PrefixIndexOptions } from './contract.ts'
import { ReferenceIndex } from './reference-index.ts'

/** An empty index. */
export const createPrefixIndex = (options: PrefixIndexOptions = {}): ApproximatePrefixIndex => new ReferenceIndex(options)
