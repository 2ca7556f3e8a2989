/** The prefill load model from its options: none, measured, or a table of durations from a file. */
import { durationTableError } from '../load/prefill-durations.ts'
import type { PrefillLoadModel } from '../router/contract.ts'
import { placeOf } from './draft.ts'
import type { Draft, ReadFile } from './draft.ts'
import { UsageError } from './usage-error.ts'
import { readMapping } from './yaml-files.ts'

/** Null: prompt work does not decay. Errors: `UsageError` that names the option, the file and the mend. */
export async function readPrefillModel(draft: Draft, readFile: ReadFile): Promise<PrefillLoadModel | null> {
  const model = draft.values['prefillLoadModel']
  const path = draft.values['aisPerfConfig']
  if (typeof path === 'string' && model !== 'ais') throw new UsageError(`${placeOf(draft, 'aisPerfConfig')} needs --router-prefill-load-model ais`)
  if (model === 'none') return null
  if (draft.values['trackPrefillTokens'] === false) {
    throw new UsageError(`${placeOf(draft, 'prefillLoadModel')} needs --router-track-prefill-tokens, which ${placeOf(draft, 'trackPrefillTokens')} turned off`)
  }
  if (model === 'measured') return { kind: 'measured' }
  if (typeof path !== 'string') {
    throw new UsageError(`${placeOf(draft, 'prefillLoadModel')}: ais needs a table of durations in --ais-perf-config; NVIDIA's predictor is not built in. measured needs none`)
  }
  const document = await readMapping(path, placeOf(draft, 'aisPerfConfig'), readFile)
  const table = document['prefill_durations']
  const place = `${path}: prefill_durations`
  if (!Array.isArray(table)) throw new UsageError(`${place} is missing; give a list of pairs [tokens, milliseconds]. Configurations of NVIDIA's predictor are not read`)
  const points = table.map((pair: unknown, index) => {
    const [tokens, ms] = Array.isArray(pair) && pair.length === 2 ? pair as unknown[] : []
    if (typeof tokens !== 'number' || typeof ms !== 'number') throw new UsageError(`${place}: entry ${index}: ${JSON.stringify(pair)} is not valid; expected [tokens, milliseconds]`)
    return { tokens, ms }
  })
  const problem = durationTableError(points)
  if (problem !== null) throw new UsageError(`${place}: ${problem}`)
  return { kind: 'table', points }
}
