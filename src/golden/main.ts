#!/usr/bin/env node
/** `npm run golden -- DIR`: runs every fixture file of a known kind in DIR against this implementation. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse, isSafeNumber } from 'lossless-json'
import type { GoldenDocument, GoldenKind } from './kind.ts'

const kindModules: Readonly<Record<string, () => Promise<{ readonly golden: GoldenKind }>>> = {
  hashing: () => import('./hashing.ts'),
  tracking_hash: () => import('./tracking-hash.ts'),
  zmq_kv_events: () => import('./zmq-kv-events.ts'),
  event_plane_capture: () => import('./event-plane-capture.ts'),
  radix_tree: () => import('./radix-tree.ts'),
  tiered_index: () => import('./tiered-index.ts'),
  slots: () => import('./slots.ts'),
  selection: () => import('./selection.ts'),
  queue: () => import('./queue.ts'),
  cli_options: () => import('./cli-options.ts'),
}

const parseNumber = (text: string): number | bigint =>
  /^-?\d+$/.test(text) && !isSafeNumber(text) ? BigInt(text) : Number(text)

async function main(folder: string | undefined): Promise<number> {
  if (folder === undefined) {
    process.stderr.write('usage: npm run golden -- DIR\n')
    return 2
  }
  const total = { passed: 0, failed: 0, skipped: 0 }
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.json')).sort()) {
    const document = parse(readFileSync(join(folder, file), 'utf8'), undefined, parseNumber) as GoldenDocument
    const load = kindModules[document.kind]
    if (load === undefined) continue
    const { golden } = await load()
    const count = { passed: 0, failed: 0, skipped: 0 }
    const reasons = new Map<string, number>()
    for (const { id, outcome } of golden.run(document)) {
      count[outcome.kind] += 1
      if (outcome.kind === 'failed' && count.failed <= 5) process.stdout.write(`  ${document.kind} ${id}: ${outcome.message}\n`)
      if (outcome.kind === 'skipped') reasons.set(outcome.reason, (reasons.get(outcome.reason) ?? 0) + 1)
    }
    process.stdout.write(`${document.kind}: ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`)
    for (const [reason, cases] of reasons) process.stdout.write(`  skipped ${cases}: ${reason}\n`)
    total.passed += count.passed
    total.failed += count.failed
    total.skipped += count.skipped
  }
  if (total.passed + total.failed + total.skipped === 0) {
    process.stderr.write(`${folder}: no fixture file of a known kind (${Object.keys(kindModules).join(', ')})\n`)
    return 2
  }
  process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`)
  return total.failed === 0 ? 0 : 1
}

process.exitCode = await main(process.argv[2])
