/** Runs the contract suite over the fast index and the plain one. */
import { test } from 'node:test'
import { prefixIndexContract } from './contract-suite.ts'
import { createPrefixIndex } from './prefix-index.ts'
import { ReferenceIndex } from './reference-index.ts'

for (const [implementation, create] of [['fast', createPrefixIndex], ['plain', (options) => new ReferenceIndex(options)]] as const satisfies readonly (readonly [string, Parameters<typeof prefixIndexContract>[0]])[]) {
  for (const { name, run } of prefixIndexContract(create)) test(`${implementation}: ${name}`, run)
}
